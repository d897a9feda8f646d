"""Curate: masks personal data, checks every answer, and splits what is kept.

    prompts.jsonl, responses.jsonl -> kept.jsonl, rejected.jsonl

Personal data is masked first, in prompt and answer alike, so that neither file holds any and all
checks see what the student would see.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrok_jax import records, storage
from opengrok_jax.curation import pii
from opengrok_jax.curation.checks import Reason, Settings, judge
from opengrok_jax.curation.duplicates import near_duplicates
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.progress import track
from opengrok_jax.records import Example, Prompt, Response, Split

KEPT, REJECTED = "kept.jsonl", "rejected.jsonl"


@dataclass(frozen=True)
class Pair:
    """A prompt and its answer, masked, with what was masked in them by kind."""

    prompt: Prompt
    response: Response
    masked: Counter[str]


def run(
    *,
    prompts_file: Path,
    responses_file: Path,
    out: Path,
    min_words: int = 3,
    max_words: int = 400,
    echo_overlap: float = 0.8,
    duplicate_similarity: float = 0.4,
    mask_handles: bool = True,
    valid_share: float = 0.1,
    seed: int = 0,
) -> dict:
    """Writes `out/kept.jsonl` (records.Example) and `out/rejected.jsonl`.

    A rejected row is {"prompt_id", "reason", "detail", "check", "response", "cell"}.

    Args:
      prompts_file, responses_file: records.Prompt and records.Response rows.
      out: folder of this stage.
      min_words, max_words, echo_overlap: see `checks.Settings`.
      duplicate_similarity: see `duplicates.near_duplicates`.
      mask_handles: whether @names are masked, too.
      valid_share: about how much of what is kept goes to the validation split, in (0,1).
      seed: of the split.

    Returns:
      Counts: kept, train, valid, rejected, reasons, and pii (placeholders in the kept messages
      and responses, by kind).

    Raises:
      ConfigError: a value is out of range.
      DataError: a file is missing or malformed; an answer is to an unknown prompt, the second to
        one, or comes without a declaration of rights; fewer than two answers were kept.
    """
    settings = Settings(min_words=min_words, max_words=max_words, echo_overlap=echo_overlap)
    if not 0 < valid_share < 1:
        raise ConfigError(f"curation.valid_share is {valid_share}; expected between 0 and 1")
    pairs = _pairs(
        storage.read_records(prompts_file, Prompt), storage.read_records(responses_file, Response)
    )
    passed: list[Pair] = []
    rejected: list[dict[str, Any]] = []
    with track("curate", total=len(pairs), unit="answers") as advance:
        for prompt, response in pairs:
            pair = masked(prompt, response, mask_handles)
            check, verdict = judge(pair.prompt, pair.response, settings)
            if verdict.keep:
                passed.append(pair)
            else:
                rejected.append(_rejected(pair, check, verdict.reason, verdict.detail))
            advance(1, note=f"{len(rejected)} rejected")
    answers = [(p.prompt.cell.intent, p.response.text) for p in passed]
    repeated = near_duplicates(answers, duplicate_similarity)
    for index, (earlier, likeness) in repeated.items():
        detail = f"{likeness:.0%} like the answer to {passed[earlier].prompt.id}"
        rejected.append(_rejected(passed[index], "duplicates", str(Reason.NEAR_DUPLICATE), detail))
    kept = [pair for index, pair in enumerate(passed) if index not in repeated]
    order = {response.prompt_id: place for place, (_, response) in enumerate(pairs)}
    rejected.sort(key=lambda row: order[row["prompt_id"]])
    # Before anything is refused below: these rows are what explains it.
    storage.write_jsonl(out / REJECTED, rejected)
    reasons = dict(Counter(row["reason"] for row in rejected).most_common())
    if len(kept) < 2:
        raise DataError(_too_few(len(kept), len(pairs), reasons, out))
    splits = split([pair.prompt.id for pair in kept], valid_share, seed)
    examples = [_example(pair, s) for pair, s in zip(kept, splits, strict=True)]
    storage.write_jsonl(out / KEPT, examples)
    return {
        "kept": len(kept),
        "train": splits.count("train"),
        "valid": splits.count("valid"),
        "rejected": len(rejected),
        "reasons": reasons,
        "pii": {str(kind): n for kind, n in _masked_in(kept).most_common()},
    }


def _pairs(
    prompts: Sequence[Prompt], responses: Sequence[Response]
) -> list[tuple[Prompt, Response]]:
    by_id = {prompt.id: prompt for prompt in prompts}
    pairs, seen = [], set()
    for response in responses:
        prompt = by_id.get(response.prompt_id)
        if prompt is None:
            raise DataError(
                f"there is an answer to prompt {response.prompt_id}, which is not among the "
                f"{len(prompts)} prompts; collect again from these prompts"
            )
        if response.prompt_id in seen:
            raise DataError(f"there are two answers to prompt {response.prompt_id}; keep one")
        if not response.rights.strip():
            raise DataError(
                f"the answer to prompt {response.prompt_id} from {response.model_served} comes "
                "without a declaration of rights; no training data is made of it. Collect with "
                "teacher.rights saying what allows training on it"
            )
        seen.add(response.prompt_id)
        pairs.append((prompt, response))
    return pairs


def masked(prompt: Prompt, response: Response, handles: bool) -> Pair:
    """The pair with personal data replaced everywhere in it, the label included.

    A label or an entity that quotes the post must go on quoting it.
    """
    found: Counter[str] = Counter()
    messages = []
    for message in prompt.messages:
        text, kinds = pii.mask(message.content, handles)
        found += kinds
        messages.append(dataclasses.replace(message, content=text))
    text, kinds = pii.mask(response.text, handles)
    found += kinds
    return Pair(
        dataclasses.replace(
            prompt,
            messages=tuple(messages),
            # Quoted in the messages, and counted there.
            posts=tuple(pii.mask(post, handles)[0] for post in prompt.posts),
            label=pii.mask(prompt.label, handles)[0],
        ),
        dataclasses.replace(response, text=text),
        found,
    )


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


def _masked_in(pairs: Sequence[Pair]) -> Counter[str]:
    total: Counter[str] = Counter()
    for pair in pairs:
        total += pair.masked
    return total


def _example(pair: Pair, side: Split) -> Example:
    return Example(
        id=pair.prompt.id,
        messages=pair.prompt.messages,
        response=pair.response.text,
        split=side,
        cell=pair.prompt.cell,
        posts=pair.prompt.posts,
        label=pair.prompt.label,
        source=pair.response.source,
        model_served=pair.response.model_served,
        rights=pair.response.rights,
    )


def _rejected(pair: Pair, check: str, reason: str, detail: str) -> dict[str, Any]:
    return {
        "prompt_id": pair.prompt.id,
        "reason": reason,
        "detail": detail,
        "check": check,
        "response": pair.response.text,
        "cell": records.to_json(pair.prompt.cell),
    }


def _too_few(kept: int, answers: int, reasons: dict[str, int], out: Path) -> str:
    said = f"{kept} of {answers} answers were kept, and training needs two at least"
    if not reasons:
        return f"{said}; collect more answers"
    reason, count = next(iter(reasons.items()))
    return f"{said}; most were rejected as {reason} ({count}), see {out / REJECTED}"
