"""How much of the future does a mask on response tokens tell? Measured on real texts.

python scripts/bench/mask_leak.py --texts FILE.jsonl[.gz] [--field text] [--limit 500]

The factors of a response are made by an annotator that has read all of it. Here each text is
annotated once more for every word, cut off behind that word, as a reader who does not know the
rest would have to. Whatever differs, the future has told. Prints one JSON object:

  changed    share of words whose factor, whose likeliest mask bit (keep_prob above its median) and
             whose drawn mask bit differ; the draw u is the same for both
  bits       information per word that factor and mask bit hold beyond the causal factors, in bits:
             H(pos, dep | causal pos, dep), and I(mask bit; pos, dep, tfidf | the causal ones)
  foretold   how much better the next words are foretold from the factors and from the mask bits of
             the words so far than from the causal ones: cross-entropy in bits, out of sample
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WINDOW = 4  # words looked back at


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", type=Path, required=True, help=".jsonl or .jsonl.gz")
    parser.add_argument("--field", default="text", help="of each line; a list gives its first")
    parser.add_argument("--limit", type=int, default=500, help="texts to take, from the first on")
    parser.add_argument("--preset", default="balanced", help="of the formula")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    print(json.dumps(measure(texts_of(flags.texts, flags.field, flags.limit), flags), indent=1))


def texts_of(path: Path, field: str, limit: int) -> list[str]:
    """The distinct texts of a file in order, but for empty and very long ones."""
    from opengrok_jax import storage
    from opengrok_jax.masking import syntax

    found: dict[str, None] = {}
    for row in storage.read_jsonl(path):
        value = row[field][0] if isinstance(row[field], list) else row[field]
        text = syntax.well_formed(value)
        if text.strip() and len(syntax.pieces(text)) == 1:
            found[text] = None
        if len(found) == limit:
            break
    return list(found)


def measure(texts: list[str], flags: argparse.Namespace) -> dict[str, Any]:
    """All figures for these texts."""
    from opengrok_jax.masking import keep, syntax

    nlp = syntax.load_pipeline()
    whole = annotated(nlp, texts)
    cut = {(n, w): text[:end] for n, text in enumerate(texts) for w, end in ends(whole[text])}
    parts = annotated(nlp, list(dict.fromkeys(cut.values())))
    spread = frequencies([whole[text].lower for text in texts])
    rows: dict[str, list[np.ndarray]] = {"full": [], "causal": []}
    for n, text in enumerate(texts):
        words = whole[text]
        rows["full"].append(factors(words, spread))
        now = []
        for w, _ in ends(words):
            prefix = parts[cut[n, w]]
            # The word that holds this one's first character: a cut may change where words end.
            at = max(int(np.searchsorted(prefix.starts, words.starts[w], side="right")) - 1, 0)
            now.append(factors(prefix, spread)[at])
        rows["causal"].append(np.array(now).reshape(-1, 3))
    full, causal = (np.concatenate(rows[name]) for name in ("full", "causal"))
    weights = keep.PRESETS[flags.preset]
    scale = np.array([weights.alpha, weights.beta, weights.gamma])
    rng = np.random.Generator(np.random.Philox(flags.seed))
    chance, u = rng.random((2, len(full)))
    sums = full @ scale + weights.delta * chance
    bias = weights.bias
    if weights.target_keep_rate is not None:
        bias = keep.calibrate(keep.sums_of(sums, weights), weights.target_keep_rate)
    p_full = keep.sigmoid(sums + bias)
    p_causal = keep.sigmoid(causal @ scale + weights.delta * chance + bias)
    kept = (u < p_full), (u < p_causal)
    # The formula's own chance is no news of the text: averaged out where information is counted.
    even = (np.arange(32) + 0.5) / 32
    p_mean = keep.sigmoid((full @ scale + bias)[:, None] + weights.delta * even).mean(axis=1)
    lengths = [len(part) for part in rows["full"]]
    return {
        "texts": len(texts),
        "words": len(full),
        "preset": flags.preset,
        "keep_rate": {"full": float(kept[0].mean()), "causal": float(kept[1].mean())},
        "changed": {
            "pos": float((full[:, 1] != causal[:, 1]).mean()),
            "dep": float((full[:, 2] != causal[:, 2]).mean()),
            "tfidf": float((np.abs(full[:, 0] - causal[:, 0]) > 1e-6).mean()),
            "tfidf_mean_difference": float(np.abs(full[:, 0] - causal[:, 0]).mean()),
            "keep_prob_mean_difference": float(np.abs(p_full - p_causal).mean()),
            "mask_bit": float((kept[0] != kept[1]).mean()),
            "mask_bit_of_other_draw": float((kept[0] != (rng.random(len(u)) < p_full)).mean()),
        },
        "bits": {
            "pos_dep_given_causal": conditional_entropy(full[:, 1:], causal[:, 1:]),
            "pos_dep": entropy(Counter(map(tuple, full[:, 1:].tolist()))),
            "mask_bit": float(binary(p_mean.mean())),
            "mask_bit_about_the_rest": information(p_mean, causal),
        },
        "foretold": foretold(full, causal, kept, lengths, flags.seed),
    }


class Words(NamedTuple):
    """The words of one text: where they are, their scores, themselves in lower case."""

    starts: np.ndarray
    ends: np.ndarray
    pos: np.ndarray
    dep: np.ndarray
    lower: tuple[str, ...]


def annotated(nlp: Any, texts: list[str]) -> dict[str, Words]:
    """The words of each text, by the package's own annotation; texts are not cut into pieces."""
    from opengrok_jax.masking import factors, syntax, words

    result: dict[str, Words] = {}
    for first in range(0, len(texts), words.CHUNK):
        some = texts[first : first + words.CHUNK]
        table = words.annotate(nlp, some)
        pos, dep = factors.syntax_scores(table, syntax.POS_TAGS, syntax.RELATIONS)
        ends = np.cumsum(table.counts)
        for text, low, high in zip(
            some, (ends - table.counts).tolist(), ends.tolist(), strict=True
        ):
            here = slice(low, high)
            starts, stops = table.starts[here].astype(int), table.ends[here].astype(int)
            lower = tuple(text[a:b].lower() for a, b in zip(starts, stops, strict=True))
            result[text] = Words(starts, stops, pos[here], dep[here], lower)
    return result


def ends(words: Any) -> list[tuple[int, int]]:
    """Number and end of every word."""
    return list(enumerate(words.ends.tolist()))


def frequencies(documents: list[tuple[str, ...]]) -> tuple[int, Counter]:
    """How many documents there are, and how many hold each word; known before any is written."""
    return len(documents), Counter(word for words in documents for word in set(words))


def factors(words: Any, spread: tuple[int, Counter]) -> np.ndarray:
    """tfidf (as `masking.tfidf` defines it), pos and dep of each word; float64 [W, 3]."""
    total, documents = spread
    counts = Counter(words.lower)
    weight = [
        (1 + math.log(counts[w])) * (1 + math.log((1 + total) / (1 + documents[w])))
        for w in words.lower
    ]
    top = max(weight, default=1.0)
    return np.stack([np.array(weight) / top, words.pos, words.dep], axis=1)


def binary(p: Any) -> Any:
    """Entropy of a bit that is 1 with probability p."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def entropy(counts: Counter) -> float:
    """Of a distribution given by counts, in bits."""
    share = np.array(list(counts.values())) / sum(counts.values())
    return float(-(share * np.log2(share)).sum())


def conditional_entropy(of: np.ndarray, given: np.ndarray) -> float:
    """H(of | given) of discrete rows, in bits."""
    pairs = Counter(zip(map(tuple, of.tolist()), map(tuple, given.tolist()), strict=True))
    return entropy(pairs) - entropy(Counter(map(tuple, given.tolist())))


def information(p: np.ndarray, causal: np.ndarray) -> float:
    """I(mask bit; what the whole text makes of the word | what its beginning makes of it), in bits.

    The bit is drawn with probability p. Given the causal factors, in cells (tfidf in twentieths),
    the mean of p in a cell is what a causal reader expects of it: H(mean of p) - mean of H(p). What
    varies within a twentieth counts as news too, so that this is an upper bound.
    """
    cells = [(int(20 * t), pos, dep) for t, pos, dep in causal.tolist()]
    members: dict[Any, list[int]] = {}
    for n, cell in enumerate(cells):
        members.setdefault(cell, []).append(n)
    mixed = sum(len(m) * float(binary(p[m].mean())) for m in members.values()) / len(p)
    return mixed - float(binary(p).mean())


def foretold(
    full: np.ndarray,
    causal: np.ndarray,
    kept: tuple[np.ndarray, np.ndarray],
    lengths: list[int],
    seed: int,
) -> dict[str, dict[str, float]]:
    """Cross-entropy, in bits, of what comes next, from three kinds of features of the words so far.

    Logistic regression on the last `WINDOW` words, five folds of whole texts. Asked are: is the
    next word a content word, is it an end of a chosen relation, does the text end here.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    text = np.repeat(np.arange(len(lengths)), lengths)
    last = np.append(text[1:] != text[:-1], True)
    extra = {
        "causal": np.zeros((len(full), 0)),
        "with_mask_bits": kept[0][:, None].astype(float),
        "with_factors": full,
    }
    questions = {
        "next_is_content": (np.append(full[1:, 1], 0), ~last),
        "next_is_related": (np.append(full[1:, 2], 0), ~last),
        "text_ends": (last, np.ones(len(last), bool)),
    }
    result: dict[str, dict[str, float]] = {}
    for question, (answer, asked) in questions.items():
        rate = float(np.mean(answer[asked]))
        result[question] = {"nothing": float(binary(rate))}
        for name, more in extra.items():
            # The draw of the mask is no feature: its bits are told, its uniforms are not.
            features = back(np.concatenate([causal, more], axis=1), text)
            model = LogisticRegression(C=1.0, max_iter=500)
            both = cross_val_predict(
                model,
                features[asked],
                answer[asked].astype(int),
                groups=text[asked],
                cv=GroupKFold(5),
                method="predict_proba",
            )
            said = np.asarray(both, np.float64)[:, 1]
            right = np.where(answer[asked] > 0, said, 1 - said)
            result[question][name] = float(-np.log2(np.clip(right, 1e-12, 1)).mean())
    return result


def back(values: np.ndarray, text: np.ndarray) -> np.ndarray:
    """The rows of the last `WINDOW` words side by side; zeros and a mark before a text begins."""
    columns = []
    for lag in range(WINDOW):
        shifted = np.zeros((len(values), values.shape[1] + 1))
        same = np.zeros(len(values), bool)
        same[lag:] = text[lag:] == text[: len(text) - lag]
        shifted[same, :-1] = values[np.flatnonzero(same) - lag]
        shifted[same, -1] = 1
        columns.append(shifted)
    return np.concatenate(columns, axis=1)


if __name__ == "__main__":
    main()
