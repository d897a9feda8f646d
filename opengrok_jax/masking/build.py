"""Examples to masked examples: encode, annotate, weigh, draw.

examples.jsonl -> masked.parquet/     one row per example, factors and mask per token
                  frequencies.parquet in how many documents each word is, for new prompts
                  corpus.json         the bias found, what is kept of which kind, what was skipped
                  soft/               where the teacher told log-probabilities; see soft_targets.py
                  tokenizer/          the tokenizer that made the ids, for the student
                  cache/              what the annotator said and the factors; see corpus.py

The bytes depend on the examples and the settings alone: not on the number of workers, on how often
the build was stopped, or on what the cache held. Where only the numbers of the formula, the scope
or the seed changed, the factors are there already, and no annotator is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from opengrok_jax import masked_file, progress, records, storage, tokenizer_files
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masking import corpus as corpora
from opengrok_jax.masking import draw, encode, keep, ray_workers, soft_targets, syntax, words
from opengrok_jax.masking import workers as workers_module
from opengrok_jax.masking.corpus import Corpus, Source
from opengrok_jax.masking.keep import Sums, Weights
from opengrok_jax.masking.workers import Work
from opengrok_jax.records import Example, MaskedExample
from opengrok_jax.tokenizer import ChatTokenizer
from opengrok_jax.tokenizer import load as load_tokenizer
from opengrok_jax.tokenizer import path_of as tokenizer_path

MASKED, FREQUENCIES, CORPUS = "masked.parquet", "frequencies.parquet", "corpus.json"
RUNNERS = ("local", "ray")
BLOCKS_PER_SUM = 16  # whose logits a worker adds up before it answers


def run(
    *,
    examples_file: Path,
    out: Path,
    logprobs_file: Path | None = None,
    tokenizer: str = "",
    pipeline: str = "",
    preset: str = "",
    alpha: float = 2.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    delta: float = 1.0,
    bias: float = 0.0,
    target_keep_rate: float | None = 0.85,
    scope: str = "prompt+response",
    pos_tags: Sequence[str] = syntax.POS_TAGS,
    relations: Sequence[str] = syntax.RELATIONS,
    max_tokens: int = 512,
    shard_examples: int = 10_000,
    runner: str = "local",
    workers: int = 0,
    ray_address: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Masks every example of a file; the same arguments give the same bytes.

    Stopped at any moment, the same call goes on where it was.

    Args:
      examples_file: .jsonl of `records.Example`.
      out: folder for masked.parquet, frequencies.parquet, corpus.json, tokenizer/, soft/, cache/.
      logprobs_file: .jsonl of `records.Logprobs`; None or an empty file: no soft/ is made.
      tokenizer: folder, tokenizer.json or name on the hub of a Phi-3 tokenizer; "" is the small
        one we ship.
      pipeline: name or folder of a spaCy pipeline; "" is the small one we ship.
      preset: a key of `keep.PRESETS`. It sets all six numbers that follow, whatever they say;
        "" leaves them as given.
      alpha, beta, gamma, delta: weights of tfidf, pos, dep and random.
      bias: added to the weighted sum; must be 0 with a target, which finds the bias itself.
      target_keep_rate: mean keep_prob of the tokens that may be hidden, over all examples; None
        uses `bias` as it is.
      scope: "prompt+response", or "prompt", which leaves every response token visible.
      pos_tags: universal parts of speech that score 1.
      relations: dependency relations (Universal Dependencies) whose two ends score 1.
      max_tokens: longer examples are skipped, not cut; their ids are in corpus.json.
      shard_examples: examples of a part of masked.parquet.
      runner: "local", or "ray" for the machines of a Ray cluster that share `out` (extra "ray").
      workers: how many processes; 0 = all cores of this machine, or of the cluster.
      ray_address: of a running cluster; "" = Ray on this machine. For runner "ray".
      seed: of the factor `random` and of the draw.

    Returns:
      What corpus.json holds: `draw.summary`, `skipped` as in `Corpus`, `texts` that were
      annotated, `soft_targets` as `soft_targets.build` tells if there are any, and the provenance
      that is also in masked.parquet (the arguments; `bias` as calibrated).

    Raises:
      ConfigError: a wrong value, before any work; a pipeline that cannot be used.
      DataError: no example, or none that fits into max_tokens; a line that is none.
      StorageError: the disk refused.
      UserError: a worker was killed.
    """
    given = Weights(
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        delta=delta,
        bias=bias,
        target_keep_rate=target_keep_rate,
    )
    weights = keep.choose(preset, given)
    keep.check_scope(scope)
    syntax.check_pos_tags(pos_tags)
    if max_tokens < 1:
        raise ConfigError(f"max_tokens must be at least 1, got {max_tokens}")
    if shard_examples < 1:
        raise ConfigError(f"shard_examples must be at least 1, got {shard_examples}")
    if runner not in RUNNERS:
        raise ConfigError(f"runner {runner!r} is unknown; choose one of {', '.join(RUNNERS)}")
    if ray_address and runner != "ray":
        raise ConfigError(f"ray_address is {ray_address!r}, which only runner 'ray' reads")
    workers_module.check_count(workers)

    chat = load_tokenizer(tokenizer)
    source = Source(
        examples_file=examples_file,
        tokenizer=tokenizer,
        pipeline=pipeline,
        annotator=words.identity(pipeline),
        pos_tags=tuple(pos_tags),
        relations=tuple(relations),
        max_tokens=max_tokens,
        digests=_digests(examples_file, tokenizer),
    )
    factors = corpora.finished(out / "cache", source)
    label = factors.pipeline if factors else _checked(source)
    total = sum(1 for _ in storage.read_lines(examples_file))
    if not total:
        raise DataError(f"{examples_file} holds no example; `opengrok curate` writes them")
    if preset:
        progress.say(f"mask: preset {preset!r} sets {_shown(weights)}")
    count = workers or (0 if runner == "ray" else workers_module.cores())
    begun = (
        ray_workers.cluster(ray_address, count)
        if runner == "ray"
        else workers_module.local(min(count, -(-total // encode.BLOCK)))
    )
    with begun as work:
        if factors is None:
            factors = corpora.build(work, out / "cache", source, total, label)
        else:
            progress.say("mask: the factors are those of an earlier build; only the mask is new")
        weights = calibrated(work, factors, weights, scope, seed)
        provenance = {
            "tokenizer": tokenizer,
            "tokenizer_sha256": tokenizer_files.hand_over(tokenizer, out / tokenizer_files.FOLDER),
            "vocab_size": chat.vocab_size,
            "pipeline": label,
            "pipeline_name": pipeline,
            "annotator": source.annotator,
            "examples_sha256": source.digests["examples"],
            "preset": preset,
            **dataclasses.asdict(weights),
            "scope": scope,
            "pos_tags": list(pos_tags),
            "relations": list(relations),
            "max_tokens": max_tokens,
            "seed": seed,
        }
        counts = _write(work, factors, out, weights, scope, seed, provenance, shard_examples)
    frequencies = factors.folder / FREQUENCIES
    with open(frequencies, "rb") as made, storage.replacing(out / FREQUENCIES) as file:
        shutil.copyfileobj(made, file)
    corpus = {
        **draw.summary(counts),
        "texts": factors.texts,
        "skipped": factors.skipped,
        **provenance,
    }
    if logprobs_file and logprobs_file.stat().st_size:
        corpus["soft_targets"] = _soft(logprobs_file, out, chat, examples_file)
    storage.write_json(out / CORPUS, corpus)
    return corpus


def _digests(examples_file: Path, tokenizer: str) -> dict[str, str]:
    if not examples_file.is_file():  # said when it is read
        return {"examples": "", "tokenizer": ""}
    return {
        "examples": storage.file_sha256(examples_file),
        "tokenizer": storage.file_sha256(tokenizer_path(tokenizer)),
    }


def _checked(source: Source) -> str:
    """Loads the annotator to see that it can do what is asked of it; answers its label."""
    nlp = syntax.load_pipeline(source.pipeline)
    syntax.check_relations(nlp, source.relations)
    return syntax.pipeline_label(nlp)


def calibrated(work: Work, corpus: Corpus, weights: Weights, scope: str, seed: int) -> Weights:
    """The weights with the bias that brings the target, if there is one and a token to hide."""
    if weights.target_keep_rate is None:
        return weights
    paths = [str(corpus.block(number)) for number in range(len(corpus.rows))]
    groups = [paths[at : at + BLOCKS_PER_SUM] for at in range(0, len(paths), BLOCKS_PER_SUM)]
    total = reduce(
        Sums.__add__, work(draw.sums, ((group, weights, scope, seed) for group in groups))
    )
    if not total.counts.any():
        return weights
    return dataclasses.replace(weights, bias=keep.calibrate(total, weights.target_keep_rate))


def _write(
    work: Work,
    corpus: Corpus,
    out: Path,
    weights: Weights,
    scope: str,
    seed: int,
    provenance: dict[str, Any],
    shard_examples: int,
) -> draw.Counts:
    """Draws and writes masked.parquet; answers what it keeps."""
    folder, told = out / MASKED, out / "cache" / "drawn"
    this = {"factors": corpus.folder.name, "provenance": provenance, "examples": shard_examples}
    print_ = storage.fingerprint(json.loads(json.dumps(this)), {})[:40]
    masked_file.begin(folder)
    storage.clear_partial(folder)
    parts = shares(corpus.rows, shard_examples)
    answers: dict[int, dict[str, Any]] = {}
    jobs = []
    for number, pieces in enumerate(parts):
        path = told / f"{print_}-{number:05d}.json"
        if path.exists():
            answer = storage.read_json(path)
            there = masked_file.part(folder, number)
            if there.is_file() and there.stat().st_size == answer["note"]["bytes"]:
                answers[number] = answer
                continue
        files = [(str(corpus.block(block)), low, high) for block, low, high in pieces]
        jobs.append((str(folder), number, files, weights, scope, seed, provenance, str(path)))
    total, done = sum(corpus.rows), sum(a["note"]["rows"] for a in answers.values())
    with progress.track("mask, draw", total=total, unit="examples", done=done) as advance:
        for number, answer in work(draw.write_part, jobs):
            answers[number] = answer
            advance(answer["note"]["rows"])
    in_order = [answers[number] for number in range(len(parts))]
    masked_file.drop_others(folder, len(parts))
    masked_file.finish(folder, [answer["note"] for answer in in_order], provenance)
    with storage.storing(told):
        shutil.rmtree(told)
    return reduce(draw.added, (answer["counts"] for answer in in_order))


def shares(rows: Sequence[int], size: int) -> list[list[tuple[int, int, int]]]:
    """Which examples of which block go into each part.

    >>> shares([5, 0, 3], 4)
    [[(0, 0, 4)], [(0, 4, 5), (2, 0, 3)]]

    Args:
      rows: examples of each block.
      size: of a part.

    Returns:
      For each part (block, low, high): the examples low to high - 1 of that block.
    """
    parts: list[list[tuple[int, int, int]]] = []
    room = 0
    for block, count in enumerate(rows):
        low = 0
        while low < count:
            if not room:
                parts.append([])
                room = size
            high = min(count, low + room)
            parts[-1].append((block, low, high))
            room -= high - low
            low = high
    return parts


def _soft(
    logprobs_file: Path, out: Path, chat: ChatTokenizer, examples_file: Path
) -> dict[str, Any]:
    soft = soft_targets.build(
        logprobs_file, out / "soft", chat, _with_responses(out / MASKED, examples_file)
    )
    progress.say(
        f"mask: {soft['aligned_share']:.1%} of the response tokens have a distribution of the "
        f"teacher's, holding {soft['mean_stored_mass']:.1%} of its mass"
    )
    return soft


def _with_responses(masked: Path, examples_file: Path) -> Iterator[tuple[MaskedExample, str]]:
    """The masked examples, which are some of the file's in its order, and what they answer."""
    rows = (records.from_json(Example, row) for row in storage.read_jsonl(examples_file))
    for example in masked_file.examples(masked):
        found = next(row for row in rows if row.id == example.id)
        yield example, syntax.well_formed(found.response)


def _shown(weights: Weights) -> str:
    return ", ".join(f"{name}={value}" for name, value in dataclasses.asdict(weights).items())
