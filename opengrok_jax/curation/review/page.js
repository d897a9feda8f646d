"use strict";
(() => {
  const token = new URLSearchParams(location.search).get("token") || "";
  const $ = (id) => document.getElementById(id);
  const drafts = new Map(); // ticket -> text of an edit that was left
  let state = null; // as the server told it
  let mode = "read"; // read, reject, edit
  let busy = false;
  let looked = 0; // milliseconds on this answer, while the page was in sight
  let since = null;

  // ---- text of anybody: only ever as text nodes, and what cannot be seen becomes visible -------

  const HIDDEN =
    /(?:(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u034F\u115F\u1160\u17B4\u17B5\u180B-\u180F\u3164\uFFA0\u{E0100}-\u{E01EF}])+/gu;
  const PICTURE = /^\p{Extended_Pictographic}/u;
  const JOINS = /[\p{Extended_Pictographic}\p{Emoji_Modifier}\uFE0F]/u;

  const BLOCK = 8000; // a browser needs half a minute to break a line of a million letters

  function show(node, text) {
    node.replaceChildren();
    if (text.length <= BLOCK) return fill(node, text);
    let marks = 0;
    for (let at = 0; at < text.length; ) {
      const line = text.lastIndexOf("\n", at + BLOCK);
      const end = at + BLOCK >= text.length ? text.length : line > at ? line + 1 : whole(text, at + BLOCK);
      const part = make("span", undefined, "block");
      marks += fill(part, text.slice(at, end));
      node.append(part);
      at = end;
    }
    return marks;
  }

  // Not within a character of two units.
  const whole = (text, end) => (/[\uD800-\uDBFF]/.test(text[end - 1]) ? end - 1 : end);

  function fill(node, text) {
    let from = 0;
    let marks = 0;
    for (const found of text.matchAll(HIDDEN)) {
      const run = found[0];
      const after = text.slice(found.index + run.length, found.index + run.length + 2);
      const before = [...text.slice(Math.max(0, found.index - 2), found.index)].pop() ?? "";
      if (run === "\u200D" && JOINS.test(before) && PICTURE.test(after)) continue; // one emoji
      node.append(text.slice(from, found.index), mark(run));
      from = found.index + run.length;
      marks += [...run].length;
    }
    node.append(text.slice(from));
    return marks;
  }

  function mark(run) {
    const points = [...run].map((c) => "U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"));
    const kinds = [...new Set(points)];
    const span = make("span", kinds.slice(0, 4).join(" ") + (kinds.length > 4 ? " …" : ""));
    if (points.length > 1) span.append(" ×" + points.length);
    span.className = "mark";
    return span;
  }

  function make(tag, text, kind) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (kind) node.className = kind;
    return node;
  }

  // ---- drawing --------------------------------------------------------------------------------

  function draw() {
    const item = state.item;
    $("progress").max = Math.max(1, state.total);
    $("progress").value = state.done;
    $("count").textContent = `${state.done} of ${state.total} decided`;
    const open = state.total - state.done;
    $("left").textContent =
      state.median_seconds && open ? `about ${span(state.median_seconds * open)} left` : "";
    $("work").hidden = !item;
    $("side").hidden = !state.total;
    $("end").hidden = Boolean(item);
    for (const id of ["accept", "reject", "edit", "skip"]) able(id, Boolean(item));
    able("undo", state.can_undo);
    soFar();
    if (!item) return drawEnd();
    $("turns").replaceChildren(...item.turns.map(turn));
    if (item.label) {
      const label = make("span", undefined, "text");
      show(label, item.label);
      const line = make("p", "Gold label: ", "soft");
      line.append(label);
      $("turns").append(line);
    }
    const marks = show($("answer"), item.answer);
    const words = (item.answer.match(/\S+/g) || []).length;
    const letters = [...item.answer].length;
    $("facts").textContent =
      `${plural(words, "word")}, ${plural(letters, "character")}` +
      (marks ? `; ${plural(marks, "character")} that cannot be seen ${marks === 1 ? "is" : "are"} marked` : "") +
      (item.answer.trim() ? "" : "; there is nothing to read");
    $("answer-title").textContent = "Answer";
    $("answer-title").setAttribute("aria-label", `Answer, ${state.done} of ${state.total} decided`);
    why(item.why);
  }

  function drawEnd() {
    $("end-title").textContent = state.total ? "All decided" : "Nothing to review";
    $("end-said").textContent = state.total
      ? `${plural(state.accepted, "answer")} accepted, ${state.edited} edited, ${state.rejected} rejected.`
      : "No answer is flagged, and none was drawn.";
    $("why").replaceChildren();
    $("why-title").parentNode.hidden = true;
  }

  function turn(said) {
    const node = make("div", undefined, "turn");
    if (said.role !== "user" || state.item.turns.length > 1) node.append(make("span", said.role, "role"));
    for (const part of said.parts) {
      const box = make(part.post ? "blockquote" : "div", undefined, "part text");
      box.dir = "auto";
      show(box, part.text.replace(/^\n+|\n+$/g, ""));
      node.append(box);
    }
    return node;
  }

  function why(findings) {
    $("why-title").parentNode.hidden = false;
    if (!findings.length) {
      $("why").replaceChildren(
        make("p", "No rule rejects it. It was drawn because it lies near a line, or by chance.", "soft"));
      return;
    }
    $("why").replaceChildren(...findings.map((found) => {
      const box = make("p", undefined, found.certain ? "why" : "why doubt");
      box.append(make("b", found.reason.replaceAll("_", " ")));
      box.append(found.certain ? " — a rule rejects it" : " — in doubt");
      const detail = make("span", undefined, "detail");
      show(detail, found.detail);
      box.append(detail, make("span", `check ${found.check.replaceAll("_", " ")}, score ${round(found.score)}`, "soft"));
      return box;
    }));
  }

  function soFar() {
    const rows = [["Accepted", state.accepted], ["Edited", state.edited], ["Rejected", state.rejected],
      ["Skipped for now", state.skipped]];
    if (state.median_seconds) rows.push(["Time per answer", span(state.median_seconds)]);
    rows.push(["Reviewer", state.reviewer]);
    $("so-far").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", name), make("dd", String(value))]));
    $("agreement").replaceChildren(...state.agreement.map((a) => {
      const other = a.first === a.second ? "yourself" : a.first === state.reviewer ? a.second : a.first;
      const kappa = a.kappa === null ? "" : `, kappa ${a.kappa.toFixed(2)}`;
      return make("p", `Agreement with ${other}: ${a.same} of ${a.rows}${kappa}`);
    }));
  }

  const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const round = (x) => String(Math.round(x * 1000) / 1000);
  const able = (id, can) => $(id).setAttribute("aria-disabled", String(!can));
  function span(seconds) {
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return `${(seconds / 3600).toFixed(1)} h`;
  }

  // ---- time -----------------------------------------------------------------------------------

  const now = () => looked + (since === null ? 0 : performance.now() - since);
  function tick() {
    const s = Math.floor(now() / 1000);
    $("clock").textContent = `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
  }
  function restart() {
    looked = 0;
    since = document.hidden ? null : performance.now();
    tick();
  }
  document.addEventListener("visibilitychange", () => {
    looked = now();
    since = document.hidden ? null : performance.now();
  });
  setInterval(tick, 1000);

  // ---- the server -----------------------------------------------------------------------------

  async function ask(path, body) {
    let answer;
    try {
      answer = await fetch(path, {
        method: body === undefined ? "GET" : "POST",
        headers: { "X-Opengrok-Token": token, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: "omit", redirect: "error", cache: "no-store",
      });
    } catch {
      throw new Error("the command behind this page does not answer. Start it again and open the address that it prints; what was saved is safe");
    }
    let told;
    try { told = await answer.json(); } catch { throw new Error(`the answer cannot be read (${answer.status})`); }
    if (!answer.ok) throw Object.assign(new Error(told.error), { state: told.state });
    return told;
  }

  async function send(path, body, done) {
    if (busy) return;
    busy = true;
    document.body.setAttribute("aria-busy", "true");
    $("wrong").hidden = true;
    try {
      arrive(await ask(path, body), done);
    } catch (error) {
      if (error.state) arrive(error.state, "");
      $("wrong").textContent = `Not saved: ${error.message}`;
      $("wrong").hidden = false;
    } finally {
      busy = false;
      document.body.removeAttribute("aria-busy");
    }
  }

  function arrive(next, done) {
    state = next;
    enter("read");
    draw();
    restart();
    window.scrollTo(0, 0);
    $("said").textContent = `${done} ${state.done} of ${state.total} decided.`;
    (state.item ? $("answer-title") : $("end-title")).focus({ preventScroll: true });
  }

  function decide(decision, more, done) {
    const seconds = Math.round(now() / 100) / 10;
    return send("/decide", { ticket: state.item.ticket, decision, seconds, ...more }, done);
  }

  // ---- what one can do ------------------------------------------------------------------------

  function enter(next) {
    mode = next;
    $("buttons").hidden = mode !== "read";
    $("rejecting").hidden = mode !== "reject";
    $("editing").hidden = mode !== "edit";
    $("answer").hidden = mode === "edit";
    $("editor").hidden = mode !== "edit";
  }

  const actions = {
    accept() { if (state.item) decide("accept", {}, "Saved: accepted."); },
    skip() { if (state.item) decide("skip", {}, "Skipped; it comes again."); },
    undo() { if (state.can_undo) send("/undo", {}, "Taken back."); },
    reject() {
      if (!state.item) return;
      $("reasons").replaceChildren(...Object.entries(state.reasons).map(([slug, text], index) => {
        const label = make("label");
        const input = make("input");
        Object.assign(input, { type: "radio", name: "reason", value: slug, required: true });
        label.append(input, make("kbd", String(index + 1)), make("span", text));
        return label;
      }));
      $("note").value = "";
      enter("reject");
      $("answer-title").scrollIntoView({ block: "start" });
      $("reasons").querySelector("input").focus({ preventScroll: true });
    },
    edit() {
      if (!state.item) return;
      const text = drafts.get(state.item.ticket) ?? state.item.answer;
      $("editor").value = text.toWellFormed ? text.toWellFormed() : text;
      enter("edit");
      $("editor").focus();
      $("editor").setSelectionRange(0, 0);
      $("editor").scrollIntoView({ block: "nearest" });
    },
    ask() { $("help").showModal(); },
  };

  function saveReject() {
    const chosen = $("reasons").querySelector("input:checked");
    if (!chosen) return complain("choose a reason first");
    if (chosen.value === "other" && !$("note").value.trim()) {
      $("note").focus();
      return complain("say what is wrong with it");
    }
    decide("reject", { reason: chosen.value, note: $("note").value }, "Saved: rejected.");
  }

  function saveEdit() {
    drafts.set(state.item.ticket, $("editor").value);
    decide("edit", { edited: $("editor").value }, "Saved: edited.");
  }

  function complain(text) {
    $("wrong").textContent = `Not saved: ${text}.`;
    $("wrong").hidden = false;
  }

  function leave() {
    if (mode === "edit") drafts.set(state.item.ticket, $("editor").value);
    const from = mode;
    enter("read");
    $("wrong").hidden = true;
    $(from === "edit" ? "edit" : "reject").focus();
  }

  for (const id of Object.keys(actions)) $(id).addEventListener("click", () => { if (!busy && state) actions[id](); });
  $("rejecting").addEventListener("submit", (event) => { event.preventDefault(); saveReject(); });
  $("rejecting").noValidate = true;
  $("leave-reject").addEventListener("click", leave);
  $("leave-edit").addEventListener("click", leave);
  $("save-edit").addEventListener("click", saveEdit);
  $("close-help").addEventListener("click", () => $("help").close());

  const KEYS = { a: "accept", r: "reject", e: "edit", s: "skip", u: "undo", "?": "ask" };

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || busy || !state) return;
    if ($("help").open) {
      if (event.key === "?") { event.preventDefault(); $("help").close(); }
      return;
    }
    const writing = event.target.tagName === "TEXTAREA";
    if (mode === "edit") {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); saveEdit(); }
      else if (event.key === "Escape") { event.preventDefault(); leave(); }
      return;
    }
    if (mode === "reject") {
      if (event.key === "Escape") { event.preventDefault(); leave(); }
      else if (event.key === "Enter" && !event.shiftKey && event.target.tagName !== "BUTTON") {
        event.preventDefault();
        saveReject();
      } else if (!writing && /^[1-9]$/.test(event.key)) {
        const input = $("reasons").querySelectorAll("input")[Number(event.key) - 1];
        if (input) { event.preventDefault(); input.checked = true; input.focus(); }
      }
      return;
    }
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !$("single").checked) return;
    const action = KEYS[event.key.toLowerCase()];
    if (action) { event.preventDefault(); actions[action](); }
  });

  enter("read");
  ask("/state").then((first) => arrive(first, ""), (error) => {
    $("wrong").textContent = error.message;
    $("wrong").hidden = false;
  });
})();
