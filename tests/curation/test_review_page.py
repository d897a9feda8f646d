"""The page in a real Chromium: keys, mouse and touch, hostile text, both themes, both widths."""

import contextlib
import re
import shutil
import socket
import threading

import pytest

from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.curation.review.queueing import Draw
from opengrok_jax.curation.review.server import page as page_text
from opengrok_jax.records import Message
from tests.curation.review_rows import served, verdict

ALL = Draw(uncertain=1.0, audit=0.0, repeat=0.0)
EVIL = {
    "script": "<script>document.title='owned';fetch('http://127.0.0.1:{port}/x')</script>",
    "closing": "</script></style></textarea></div><script>document.title='owned'</script>",
    "image": "<img src='http://127.0.0.1:{port}/i' onerror=\"document.title='owned'\">",
    "svg": "<svg/onload=document.title='owned'><style>@import 'http://127.0.0.1:{port}/s';</style>",
    "frame": "<iframe src='http://127.0.0.1:{port}/f'></iframe><meta http-equiv=refresh content=0>",
    "link": "[click](javascript:document.title='owned') javascript:alert(1) http://127.0.0.1:{port}/l",
    "template": "{{constructor.constructor('return 1')()}} ${{7*7}} NONCE /*SCRIPT*/ /*STYLE*/",
    "turned": "safe \u202egnp.exe\u202c and \u2066isolated\u2069",
    "unseen": "a\u200bb\u2060c\ufeffd\u00ade",
    "null": "nul\0l and bell\x07 and escape\x1b[31m",
    "half": "half \ud800 a character, and the other \udc00",
    "formula": '=HYPERLINK("http://127.0.0.1:{port}/h")',
    "zalgo": "z" + "\u0300\u0301\u0317" * 200 + "algo",
    "long": "w" * 100_000,
    "blank": " \n\t ",
    "lines": "l\n" * 3000,
}


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(
        filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
    )
    if path is None:
        pytest.skip("no chromium or google-chrome on the PATH")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, server, *, width=1280, height=860, **more):
    """The page, with everything that went wrong in it or that it asked of anybody."""
    context = browser.new_context(viewport={"width": width, "height": height}, **more)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.wrong, page.asked = [], []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda message: page.wrong.append(message.text))
    page.on("dialog", lambda dialog: page.wrong.append(dialog.message))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(server.url)
    page.locator("#count", has_text="decided").wait_for()
    try:
        yield page
    finally:
        context.close()


@pytest.fixture
def server(tmp_path):
    with served(tmp_path, [verdict(f"p{n}", f"answer {n}") for n in range(4)], ALL) as server:
        yield server


def said(tmp_path):
    return [
        (d.decision, d.reason, d.note, d.edited)
        for d in decisions.read(tmp_path / "review" / "decisions.jsonl")
    ]


def done(page, count):
    page.locator("#count", has_text=re.compile(rf"^{count} of")).wait_for()


def test_the_keyboard_alone_is_enough(browser, server, tmp_path):
    with opened(browser, server) as page:
        first = page.locator("#answer").inner_text()
        keys = page.keyboard
        keys.press("a")
        done(page, 1)
        assert page.locator("#said").inner_text() == "Saved: accepted. 1 of 4 decided."
        keys.press("r")
        keys.press("5")
        keys.press("Escape")  # nothing happened
        keys.press("r")
        keys.press("2")
        keys.press("Tab")
        keys.type("two of them are invented, and a 7")
        keys.press("Enter")
        done(page, 2)
        keys.press("e")
        keys.press("Control+a")
        keys.type("anew, ars?")
        keys.press("Escape")  # the draft stays
        keys.press("e")
        keys.press("End")
        keys.type("!")
        keys.press("Control+Enter")
        done(page, 3)
        keys.press("s")
        page.locator("#so-far", has_text=re.compile(r"Skipped for now\s*1")).wait_for()
        keys.press("u")
        page.locator("#so-far", has_text=re.compile(r"Skipped for now\s*0")).wait_for()
        keys.press("u")
        done(page, 2)
        assert page.locator("#answer").inner_text() != first
        keys.press("a")
        done(page, 3)
        keys.press("a")
        page.locator("#end-title", has_text="All decided").wait_for()
        assert page.locator("#end-said").inner_text() == "3 answers accepted, 0 edited, 1 rejected."
        assert page.wrong == []
    assert said(tmp_path) == [
        ("accept", "", "", ""),
        ("reject", "unsupported", "two of them are invented, and a 7", ""),
        ("edit", "", "", "anew, ars?!"),
        ("skip", "", "", ""),
        ("undo", "", "", ""),
        ("undo", "", "", ""),
        ("accept", "", "", ""),
        ("accept", "", "", ""),
    ]


def test_tab_reaches_every_button_and_shows_where_it_is(browser, server, tmp_path):
    with opened(browser, server) as page:
        reached = []
        for _ in range(6):  # from the answer on
            page.keyboard.press("Tab")
            box = page.locator(":focus")
            reached.append(box.get_attribute("id"))
            assert box.evaluate("e => getComputedStyle(e).outlineWidth") == "3px"
        assert reached == ["accept", "reject", "edit", "skip", "undo", "ask"]
        page.locator("#accept").focus()
        page.keyboard.press("Enter")
        done(page, 1)
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("a")  # not while the help is open
        page.keyboard.press("Escape")
        assert not page.locator("#help").is_visible()
    assert [row[0] for row in said(tmp_path)] == ["accept"]


def test_single_keys_can_be_turned_off_and_a_held_key_decides_once(browser, server, tmp_path):
    with opened(browser, server) as page:
        page.keyboard.down("a")
        page.keyboard.down("a")  # as it repeats
        page.keyboard.down("a")
        done(page, 1)
        page.keyboard.up("a")
        page.keyboard.press("?")
        page.locator("#single").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("a")
        page.locator("#skip").click()
        page.locator("#so-far", has_text=re.compile(r"Skipped for now\s*1")).wait_for()
    assert [row[0] for row in said(tmp_path)] == ["accept", "skip"]


def test_fingers_are_enough_too(browser, server, tmp_path):
    with opened(browser, server, width=390, height=844, has_touch=True, is_mobile=True) as page:
        for box in page.locator("#buttons button").all():
            assert box.bounding_box()["height"] >= 44
        page.locator("#accept").tap()
        done(page, 1)
        page.locator("#reject").tap()
        page.locator("#reasons label", has_text="Something else").tap()
        page.locator("#rejecting button[type=submit]").tap()
        page.get_by_role("alert").get_by_text("say what is wrong").wait_for()
        page.locator("#note").fill("it sings")
        page.locator("#rejecting button[type=submit]").tap()
        done(page, 2)
        page.locator("#edit").tap()
        page.locator("#editor").fill("better")
        page.locator("#save-edit").tap()
        done(page, 3)
        page.locator("#undo").tap()
        done(page, 2)
    assert said(tmp_path)[1:3] == [("reject", "other", "it sings", ""), ("edit", "", "", "better")]


def test_what_the_server_refuses_is_shown_and_the_text_stays(browser, server, tmp_path):
    with opened(browser, server) as page:
        page.keyboard.press("e")
        page.keyboard.press("Control+Enter")
        page.get_by_role("alert").get_by_text("nothing was changed").wait_for()
        page.locator("#editor").fill("a long thought")
        server.session.close()
        page.keyboard.press("Control+Enter")
        page.get_by_role("alert").get_by_text("Not saved: the review has ended").wait_for()
        page.keyboard.press("e")
        assert page.locator("#editor").input_value() == "a long thought"
        page.context.set_offline(True)
        page.keyboard.press("Control+Enter")
        page.get_by_role("alert").get_by_text("does not answer").wait_for()
        assert page.locator("#editor").input_value() == "a long thought"
    assert said(tmp_path) == []


def test_labels_for_who_cannot_see(browser, tmp_path):
    row = verdict("p1", "an answer", reason="harmful")
    with served(tmp_path, [row, verdict("p2")], ALL) as server, opened(browser, server) as page:
        for name in ("Accept", "Reject", "Edit", "Skip", "Undo", "Help"):
            assert page.get_by_role("button", name=name).count() == 1
        for name in ("Asked", "Why it is here", "So far"):
            assert page.get_by_role("region", name=name).count() == 1
        assert page.get_by_role("progressbar", name="Answers decided").count() == 1
        assert page.locator(":focus").get_attribute("id") == "answer-title"
        assert page.locator("#said").get_attribute("aria-live") == "polite"
        assert page.get_by_role("button", name="Undo").get_attribute("aria-disabled") == "true"
        assert "as seen" in page.get_by_role("region", name="Why it is here").inner_text()
        page.keyboard.press("r")
        assert page.get_by_role("group", name="Why reject it?").get_by_role("radio").count() == 7
        page.keyboard.press("Escape")
        page.keyboard.press("e")
        assert page.get_by_role("textbox", name="The answer as it should be").is_visible()


class Trap:
    """A port of this machine that notes who connects."""

    def __enter__(self):
        self.caught = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()
        return self

    def _listen(self):
        while True:
            connection, _ = self.socket.accept()
            with connection:
                connection.settimeout(2)
                first = connection.recv(100)
                if first == b"end":
                    return
                self.caught.append(first)

    def __exit__(self, *_):
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(b"end")
        self.thread.join()
        self.socket.close()


def test_hostile_text_lies_still(browser, tmp_path):
    """In the answer, the prompt, the post, the label, the finding and the editor."""
    with Trap() as trap:
        evil = {name: text.replace("{port}", str(trap.port)) for name, text in EVIL.items()}
        rows = [
            verdict(
                f"p{n}",
                text,
                reason=text[:300],
                label=text[:200],
                posts=(text[:200],),
                messages=(Message(role="user", content=f"1. {text[:2000]}"),),
            )
            for n, text in enumerate(evil.values())
        ]
        with served(tmp_path, rows, Draw(repeat=0.0)) as server, opened(browser, server) as page:
            texts = {}
            for _ in rows:
                shown, label = page.locator("#answer"), page.locator("#turns > .soft > .text")
                texts[shown.inner_text()] = shown.locator(".mark").all_inner_texts()
                assert shown.locator(":not(.mark):not(.block)").count() == 0
                assert label.locator(".mark").all_inner_texts() == texts[shown.inner_text()]
                page.keyboard.press("e")
                page.keyboard.press("Escape")
                before = page.locator("#count").inner_text()
                page.keyboard.press("a")
                page.wait_for_timeout(1)
                page.locator("#count").filter(has_not_text=before).wait_for()
            page.locator("#end-title", has_text="All decided").wait_for()
            assert page.title() == "OpenGrok review"
            assert page.wrong == []
            asked = {url.split("?")[0] for url in page.asked} - {"data:,"}
            assert asked == {server.origin + path for path in ("/", "/state", "/decide")}
            assert trap.caught == []
    marks = [mark for found in texts.values() for mark in found]
    for point in ("U+202E", "U+202C", "U+2066", "U+200B", "U+2060", "U+FEFF", "U+00AD", "U+0000",
                  "U+0007", "U+001B", "U+D800", "U+DC00"):  # fmt: skip
        assert point in marks
    assert any(text.startswith("<script>") for text in texts)
    assert any(text.replace("\n", "") == EVIL["long"] for text in texts)
    kept = decisions.read(tmp_path / "review" / "decisions.jsonl")
    assert {(d.prompt_id, d.body_sha) for d in kept} == {(r.prompt_id, r.body_sha) for r in rows}


def test_emoji_of_several_characters_stay_whole(browser, tmp_path):
    text = (
        "family \U0001f468\u200d\U0001f469\u200d\U0001f467, flag \U0001f3f3\ufe0f\u200d\U0001f308"
    )
    with served(tmp_path, [verdict("p1", text)], ALL) as server, opened(browser, server) as page:
        assert page.locator("#answer").inner_text() == text
        assert page.locator("#answer .mark").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_or_covered(browser, tmp_path, width, scheme):
    rows = [
        verdict("p1", "word " * 300 + "w" * 500, reason="harmful", label="l" * 500),
        verdict("p2", "a"),
    ]
    with served(tmp_path, rows, ALL) as server:
        with opened(browser, server, width=width, color_scheme=scheme) as page:
            for key in ("", "r", "Escape", "e", "Escape", "?"):
                if key:
                    page.keyboard.press(key)
                width_of = "document.documentElement.scrollWidth"
                assert page.evaluate(width_of) <= width
                cut = "e => [e.scrollHeight - e.clientHeight, e.scrollWidth - e.clientWidth]"
                for box in page.locator(".text:visible, aside, #editor:visible").all():
                    down, right = box.evaluate(cut)
                    assert right <= 0
                    assert down <= 0 or box.get_attribute("id") == "editor"  # it scrolls
                page.screenshot(path=tmp_path / f"{width}-{scheme}-{key or 'read'}.png")
            page.keyboard.press("Escape")
            page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
            facts, bar = (page.locator(s).bounding_box() for s in ("aside", "footer"))
            assert facts["y"] + facts["height"] <= bar["y"] + 1
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
                "rgb(20, 23, 26)" if scheme == "dark" else "rgb(246, 246, 243)"
            )


def test_who_wants_no_motion_gets_none(browser, server):
    with opened(browser, server, reduced_motion="reduce") as page:
        seconds = "e => getComputedStyle(e).transitionDuration"
        assert page.locator("#accept").evaluate(seconds) == "0s"


# ---- without a browser ------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1])
def test_every_text_has_enough_contrast(theme):
    """4.5 for text, 3 for what only marks."""
    text = page_text("n")
    blocks = re.findall(r":root \{([^}]*--page[^}]*)\}", text)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[theme]))
    for front in ("ink", "soft"):
        for back in ("page", "card", "tint"):
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back)
    assert contrast(colours["mark"], colours["mark-bg"]) >= 4.5
    for bar in ("blue-bar", "red-bar", "green-bar", "blue"):
        assert contrast(colours[bar], colours["card"]) >= 3, bar


def test_okabe_ito_in_the_light_theme():
    text = page_text("n").lower()
    for colour in ("#0072b2", "#d55e00", "#009e73"):
        assert colour in text


def test_the_keys_that_the_help_lists_are_those_there_are():
    text = page_text("n")
    keys = dict(re.findall(r'([a-z]|"\?"): "(\w+)"', text.split("const KEYS = {")[1].split("}")[0]))
    listed = re.findall(r"<dt><kbd>(.)</kbd></dt>", text)
    assert [k.strip('"').upper() for k in keys] == listed
    assert "<kbd>1</kbd> to <kbd>7</kbd>" in text
    assert len(decisions.REASONS) == 7
