"""Curate: masks personal data, checks every answer, and splits what is kept.

    prompts.jsonl, responses.jsonl, review/decisions.jsonl (where people decided)
        -> verdicts.jsonl   records.Verdict of every answer: scores, findings, what to look at
           kept.jsonl       records.Example of those that are kept
           rejected.jsonl   the others, with the reason
           balance.json     what `balance.report` says

Two passes: the first judges row by row, in several processes where there are many, into a file of
its own; the second knows of near-duplicates and decisions and writes the results. Memory holds
the prompts and a few numbers for each answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from opengrok_jax import records, rights, storage
from opengrok_jax.curation import balance, contamination, judging, language, rules
from opengrok_jax.curation.duplicates import near_duplicates
from opengrok_jax.curation.judging import How, Judged
from opengrok_jax.curation.looks import FINAL, Reason, Settings
from opengrok_jax.curation.people import People, effect, keeps, why
from opengrok_jax.curation.review import decision_log
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.progress import track
from opengrok_jax.records import Decision, Finding, Prompt, Response, Split

VERDICTS, KEPT, REJECTED, BALANCE = (
    "verdicts.jsonl", "kept.jsonl", "rejected.jsonl", "balance.json",
)  # fmt: skip
REJECTED_FIELDS = ("prompt_id", "reason", "detail", "check", "response", "cell")


def run(
    *,
    prompts_file: Path,
    responses_file: Path,
    out: Path,
    decisions_file: Path | None = None,
    min_words: int = 3,
    max_words: int = 400,
    echo_overlap: float = 0.8,
    duplicate_similarity: float = 0.4,
    languages: Sequence[str] = (),
    labels: Mapping[str, Sequence[str]] | None = None,
    evaluation_files: str | Sequence[str] = (),
    mask_handles: bool = True,
    valid_share: float = 0.1,
    seed: int = 0,
    workers: int = 0,
) -> dict:
    """Writes verdicts.jsonl, kept.jsonl, rejected.jsonl and balance.json to `out`.

    A rejected row is {"prompt_id", "reason", "detail", "check", "response", "cell"}.

    Args:
      prompts_file, responses_file: records.Prompt and records.Response rows.
      out: folder of this stage.
      decisions_file: records.Decision rows of the review; it need not exist.
      min_words, max_words, echo_overlap, languages, labels: see `looks.Settings`.
      duplicate_similarity: see `duplicates.near_duplicates`.
      evaluation_files: sets whose texts must not teach, .jsonl or .jsonl.gz with "text"; one name
        or several. The sets that ship are always among them.
      mask_handles: whether @names are masked, too.
      valid_share: about how much of what is kept goes to the validation split, in (0,1).
      seed: of the split.
      workers: processes; 0 takes one for few rows and one for each core for many.

    Returns:
      Counts: kept, train, valid, rejected, reasons, flagged, uncertain, human (decisions by what
      became of them), pii (placeholders in the kept messages and responses, by kind), rules.

    Raises:
      ConfigError: a value is out of range.
      DataError: a file is missing or malformed; an answer is to an unknown prompt, the second to
        one, or may not be trained on by what is declared; fewer than two answers were kept.
      MissingExtra: languages are given, and py3langid is not installed.
    """
    if not 0 < valid_share < 1:
        raise ConfigError(f"curation.valid_share is {valid_share}; expected between 0 and 1")
    if workers < 0:
        raise ConfigError(f"curation.workers is {workers}; expected 0 or more")
    language.check(tuple(languages))
    sets = [evaluation_files] if isinstance(evaluation_files, str) else list(evaluation_files)
    shipped = sorted(contamination.SHIPPED.glob("*.jsonl"))
    settings = Settings(
        min_words=min_words,
        max_words=max_words,
        echo_overlap=echo_overlap,
        languages=tuple(languages),
        labels={task: tuple(names) for task, names in (labels or {}).items()},
        evaluation=contamination.index([*shipped, *map(Path, filter(None, sets))]),
    )
    how = How(
        settings=settings,
        mask_handles=mask_handles,
        rules=rules.version(
            settings, duplicate_similarity=duplicate_similarity, mask_handles=mask_handles
        ),
    )
    prompts = {prompt.id: prompt for prompt in storage.read_records(prompts_file, Prompt)}
    people = People(decision_log.read(decisions_file) if decisions_file else [], mask_handles)
    with _spool(out) as spool:
        answers = _first_pass(
            _pairs(prompts, responses_file),
            total=_lines(responses_file),
            how=how,
            workers=workers,
            people=people,
            spool=spool,
        )
        repeated = near_duplicates(answers.intents, answers.sketches, duplicate_similarity)
        kept = [i for index, i in enumerate(answers.ids) if index not in repeated]
        splits = split(kept, valid_share, seed) if len(kept) > 1 else []
        spool.seek(0)
        counts = _second_pass(
            spool, answers, repeated, dict(zip(kept, splits, strict=False)), people, out
        )
    if len(kept) < 2:
        raise DataError(_too_few(len(kept), len(answers.places), counts["reasons"], out))
    return {
        "kept": len(kept),
        "train": splits.count("train"),
        "valid": splits.count("valid"),
        **counts,
        "rules": how.rules,
    }


# ---- the first pass ---------------------------------------------------------------------------


@dataclass
class Answers:
    """What is known of all rows after the first pass.

    Attributes:
      ids, intents, sketches: of the rows that rules and people keep, for `near_duplicates`.
      places: for every row its index in these; -1 for the others.
    """

    ids: list[str] = field(default_factory=list)
    intents: list[str] = field(default_factory=list)
    sketches: list[np.ndarray] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


@contextlib.contextmanager
def _spool(out: Path) -> Iterator[IO[bytes]]:
    """A file for the judged rows; it goes when the block ends, and a killed run's with the next."""
    path = out / f".judged.{os.getpid()}.partial"
    with storage.storing(path):
        out.mkdir(parents=True, exist_ok=True)
        storage.clear_partial(out)
        try:
            with open(path, "w+b") as file:
                yield file
        finally:
            path.unlink(missing_ok=True)


def _pairs(prompts: Mapping[str, Prompt], responses_file: Path) -> Iterator[judging.Pair]:
    seen = set()
    for number, row in enumerate(storage.read_jsonl(responses_file), start=1):
        try:
            response = records.from_json(Response, row)
        except DataError as error:
            raise DataError(f"{responses_file}, record {number}: {error}") from None
        prompt = prompts.get(response.prompt_id)
        if prompt is None:
            raise DataError(
                f"there is an answer to prompt {response.prompt_id}, which is not among the "
                f"{len(prompts)} prompts; collect again from these prompts"
            )
        if response.prompt_id in seen:
            raise DataError(f"there are two answers to prompt {response.prompt_id}; keep one")
        if said := rights.objection(rights.of_response(response)):
            raise DataError(f"no training data is made: {said}")
        seen.add(response.prompt_id)
        yield prompt, response


def _lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(1 for line in file if line.strip())


def _first_pass(
    pairs: Iterator[judging.Pair],
    *,
    total: int,
    how: How,
    workers: int,
    people: People,
    spool: IO[bytes],
) -> Answers:
    """Judges every pair and writes it to the spool."""
    answers, rejected = Answers(), 0
    with track("curate", total=total, unit="answers") as advance:
        for unedited in judging.judged(pairs, how, workers or judging.workers_for(total)):
            row = people.judged(unedited, how)
            verdict = row.verdict
            decision = people.on(verdict.prompt_id, verdict.body_sha)
            if keeps(verdict.findings, decision):
                answers.places.append(len(answers.ids))
                answers.ids.append(verdict.prompt_id)
                answers.intents.append(verdict.cell.intent)
                answers.sketches.append(row.sketch)
            else:
                answers.places.append(-1)
                rejected += 1
            spool.write(_spooled(row))
            advance(1, note=f"{rejected} rejected")
    return answers


def _spooled(row: Judged) -> bytes:
    """A judged row as a JSON line."""
    parts = {
        "verdict": records.to_json(row.verdict),
        "provenance": records.to_json(row.provenance),
        "source": row.response.source,
        "model_served": row.response.model_served,
        "rights": row.response.rights,
        "marks": row.marks,
    }
    return json.dumps(parts, ensure_ascii=False).encode() + b"\n"


# ---- the second pass --------------------------------------------------------------------------


def _second_pass(
    spool: IO[bytes],
    answers: Answers,
    repeated: Mapping[int, tuple[int, float]],
    sides: Mapping[str, Split],
    people: People,
    out: Path,
) -> dict[str, Any]:
    """Writes the results; kept.jsonl only where there are `sides`. Answers the counts."""
    tally: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    human: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    seen: Counter[tuple[str, bool, tuple[str, ...]]] = Counter()
    with contextlib.ExitStack() as files:
        to = {
            name: files.enter_context(storage.replacing(out / name))
            for name in (VERDICTS, REJECTED, *([KEPT] if sides else []))
        }
        for place, line in zip(answers.places, spool, strict=True):
            row = json.loads(line)
            verdict = row["verdict"]
            findings = [Finding(**finding) for finding in verdict["findings"]]
            if place in repeated:
                earlier, likeness = repeated[place]
                findings.append(_duplicate(answers.ids[earlier], likeness))
            decision = people.on(verdict["prompt_id"], verdict["body_sha"])
            if decision is not None:
                human[effect(findings, decision)] += 1
            verdict |= _settled(findings, decision)
            write(to[VERDICTS], verdict)
            seen[verdict["cell"]["topic"], verdict["keep"], tuple(row["marks"])] += 1
            tally["flagged"] += verdict["flagged"]
            tally["uncertain"] += verdict["uncertain"]
            if not verdict["keep"]:
                tally["rejected"] += 1
                reasons[verdict["reason"]] += 1
                write(to[REJECTED], {key: verdict[key] for key in REJECTED_FIELDS})
            elif sides:
                masked.update(verdict["masked"])
                write(to[KEPT], _example(row, sides[verdict["prompt_id"]], decision, people))
    storage.write_json(out / BALANCE, balance.report(seen.elements()))
    return {
        "rejected": tally["rejected"],
        "reasons": dict(reasons.most_common()),
        "flagged": tally["flagged"],
        "uncertain": tally["uncertain"],
        "human": dict(human.most_common()) | ({"stale": n} if (n := people.stale()) else {}),
        "pii": dict(masked.most_common()),
    }


def write(file: IO[bytes], row: dict[str, Any]) -> None:
    """Adds a JSON line."""
    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _duplicate(earlier: str, likeness: float) -> Finding:
    return Finding(
        check="duplicates",
        reason=str(Reason.NEAR_DUPLICATE),
        score=round(likeness, 4),
        certain=True,
        detail=f"{likeness:.0%} like the answer to {earlier}",
    )


def _settled(findings: Sequence[Finding], decision: Decision | None) -> dict[str, Any]:
    """The fields of a verdict that follow from all findings and what a person decided."""
    certain = [finding for finding in findings if finding.certain]
    keep = keeps(findings, decision)
    first = why(decision) if decision and decision.decision == "reject" else None
    first = first or (certain[0] if certain and not keep else None)
    return {
        "keep": keep,
        "reason": first.reason if first else "",
        "check": first.check if first else "",
        "detail": first.detail if first else "",
        "decided_by": "human" if decision and (keep or first == why(decision)) else "rules",
        "flagged": bool(certain) and not any(f.reason in FINAL for f in certain),
        "uncertain": not certain and bool(findings),
        "findings": [records.to_json(finding) for finding in findings],
    }


def _example(
    row: dict[str, Any], side: Split, decision: Decision | None, people: People
) -> dict[str, Any]:
    """records.Example as a plain dict."""
    verdict, provenance = row["verdict"], row["provenance"]
    response = verdict["response"]
    if decision is not None:
        provenance |= {"decided_by": "human", "reviewer": decision.reviewer}
        if decision.decision == "edit":
            provenance["original"], response = response, people.edited(decision)
    return {
        "id": verdict["prompt_id"],
        "messages": verdict["messages"],
        "response": response,
        "split": side,
        **{name: verdict[name] for name in ("cell", "posts", "label")},
        **{name: row[name] for name in ("source", "model_served", "rights")},
        "provenance": provenance,
    }


# ---- the split --------------------------------------------------------------------------------


def split(ids: Sequence[str], valid_share: float, seed: int) -> list[Split]:
    """ "train" or "valid" for each of at least two ids; both occur.

    An id falls where a hash of it and the seed says, so that it stays on its side when other ids
    come or go; only where one side would be empty, the id nearest to it changes over.
    """
    chances = [_chance(f"{seed}/{i}") for i in ids]
    splits: list[Split] = ["valid" if c < valid_share else "train" for c in chances]
    if "valid" not in splits:
        splits[chances.index(min(chances))] = "valid"
    if "train" not in splits:
        splits[chances.index(max(chances))] = "train"
    return splits


def _chance(key: str) -> float:
    """A number in [0,1) that looks like chance and is the same everywhere."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def _too_few(kept: int, answers: int, reasons: dict[str, int], out: Path) -> str:
    said = f"{kept} of {answers} answers were kept, and training needs two at least"
    if not reasons:
        return f"{said}; collect more answers"
    reason, count = next(iter(reasons.items()))
    return f"{said}; most were rejected as {reason} ({count}), see {out / REJECTED}"
