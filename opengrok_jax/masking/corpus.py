"""The factors of a whole corpus, in bounded memory, on all cores, resumable.

cache/                        in the stage's folder; outlives `--redo`
  words/ab/<chunk>.npz        what the annotator said, under the hash of what it read
  factors/<key>/              everything that alpha..delta, bias, scope and seeds are not part of
    blocks/00000.npz ...      tokens, roles, tfidf, pos, dep of `encode.BLOCK` examples each
    frequencies.parquet       in how many documents each word is
    made.json                 written last: complete
    scratch/                  removed then

Five passes over blocks, each of which leaves a file or none: encode; number the distinct texts and
annotate them in chunks; count words; add the counts up; weigh. A block's file depends on the
corpus and the settings alone, so that it does not matter who made it, when, or in which order.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import DataError
from opengrok_jax.masking import arrays, distinct, encode, factors, tfidf, words
from opengrok_jax.masking.workers import Work
from opengrok_jax.progress import track
from opengrok_jax.tokenizer import load as load_tokenizer

MADE = "made.json"
MERGED_AT_ONCE = 64  # files of counts that are open together


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the factors are made of.

    Attributes:
      examples_file: .jsonl of `records.Example`.
      tokenizer, pipeline, pos_tags, relations, max_tokens: as in `build.run`.
      annotator: `words.identity` of the pipeline.
      digests: SHA-256 of the examples and of the tokenizer, by name.
    """

    examples_file: Path
    tokenizer: str
    pipeline: str
    annotator: str
    pos_tags: tuple[str, ...]
    relations: tuple[str, ...]
    max_tokens: int
    digests: dict[str, str] = field(default_factory=dict)

    def key(self) -> str:
        """Names the factors: a hash of all that they depend on."""
        body = {**asdict(self), "format": f"factors 1, {words.FORMAT}", "block": encode.BLOCK}
        del body["examples_file"], body["tokenizer"], body["pipeline"]
        return storage.fingerprint(json.loads(json.dumps(body)), {})[:40]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The factors of a corpus, on disk.

    Attributes:
      folder: cache/factors/<key>.
      rows: examples of each block that fit.
      skipped: {"id", "tokens"} of those that do not.
      documents: messages and responses of those that fit.
      pipeline: language, name and version of the annotator.
      texts: distinct texts that were annotated.
    """

    folder: Path
    rows: list[int]
    skipped: list[dict[str, Any]]
    documents: int
    pipeline: str
    texts: int

    def block(self, number: int) -> Path:
        """The file of one block, for `factors.load`."""
        return _block(self.folder, number)


def _block(folder: Path, number: int) -> Path:
    return folder / "blocks" / f"{number:05d}.npz"


def finished(cache: Path, source: Source) -> Corpus | None:
    """The factors if they are there already."""
    folder = cache / "factors" / source.key()
    if not (folder / MADE).is_file():
        return None
    return Corpus(folder=folder, **storage.read_json(folder / MADE))


def build(work: Work, cache: Path, source: Source, total: int, pipeline: str) -> Corpus:
    """Makes the factors of a corpus, or goes on making them.

    Args:
      work: who does it.
      cache: folder of what is kept.
      source: what they are made of.
      total: lines of the examples file, for the progress.
      pipeline: label of the annotator, for the record.

    Raises:
      DataError: a line is no example (with its number), or none of them fits.
      StorageError: the disk refused; the same call goes on.
    """
    folder = cache / "factors" / source.key()
    scratch, kept_words = folder / "scratch", cache / "words"
    blocks = -(-total // encode.BLOCK)
    _encode(work, source, scratch, total)
    keys, facts = _annotate(work, source, scratch, kept_words, total)
    if not sum(facts["rows"]):
        shortest = min(row["tokens"] for row in facts["skipped"])
        shutil.rmtree(folder)
        raise DataError(
            f"{source.examples_file}: all {len(facts['skipped'])} examples are longer than "
            f"max_tokens = {source.max_tokens}; the shortest has {shortest} tokens"
        )
    arrays.save(scratch / "keys.npz", arrays.pack(keys))
    names = [str(scratch), str(kept_words)]
    todo = [n for n in range(blocks) if not _counts(scratch, n).exists()]
    _each(work, "count words", count_block, [(*names, n) for n in todo], todo, facts, blocks)
    frequencies = folder / "frequencies.parquet"
    if not frequencies.exists():
        _merge(work, scratch, blocks, frequencies, facts["documents"])
    todo = [n for n in range(blocks) if not _block(folder, n).exists()]
    chosen = (source.pos_tags, source.relations)
    jobs = [(*names, str(folder), n, *chosen) for n in todo]
    _each(work, "weigh words", weigh_block, jobs, todo, facts, blocks)
    facts["pipeline"] = pipeline
    storage.write_json(folder / MADE, facts)
    with storage.storing(scratch):
        shutil.rmtree(scratch)
        _prune(cache, folder, set(keys))
    return Corpus(folder=folder, **facts)


def _each(
    work: Work,
    what: str,
    task: Any,
    jobs: Iterable[tuple[Any, ...]],
    todo: Sequence[int],
    facts: dict[str, Any],
    blocks: int,
) -> None:
    """Does a task for some blocks; it gives the number of its block."""
    rows = facts["rows"]
    done = sum(rows) - sum(rows[n] for n in todo)
    with track(f"mask, {what}", total=sum(rows), unit="examples", done=done) as advance:
        for number in work(task, jobs):
            advance(rows[number])


# ---- encode -------------------------------------------------------------------------------------


def _encoded(scratch: Path, number: int) -> Path:
    return scratch / "encoded" / f"{number:05d}.npz"


def _encode(work: Work, source: Source, scratch: Path, total: int) -> None:
    def jobs() -> Iterator[tuple[Any, ...]]:
        lines = storage.read_lines(source.examples_file)
        for number in itertools.count():
            some = list(itertools.islice(lines, encode.BLOCK))
            if not some:
                return
            path = _encoded(scratch, number)
            if path.exists():
                advance(len(some))
            else:
                given = (str(source.examples_file), some, source.tokenizer, source.max_tokens)
                yield (*given, str(path))

    with track("mask, encode", total=total, unit="examples") as advance:
        for count in work(encode_block, jobs()):
            advance(count)


@lru_cache(maxsize=1)
def _tokenizer(name: str) -> Any:
    return load_tokenizer(name)


def encode_block(
    examples_file: str,
    lines: list[tuple[int, bytes]],
    tokenizer: str,
    max_tokens: int,
    path: str,
) -> int:
    """In a worker: some lines of the examples file as a block; answers their number."""
    chats = encode.parse(Path(examples_file), lines)
    encode.save(Path(path), encode.encode(_tokenizer(tokenizer), chats, max_tokens))
    return len(lines)


# ---- annotate -----------------------------------------------------------------------------------


def _places(scratch: Path, number: int) -> Path:
    return scratch / "places" / f"{number:05d}.npz"


def _annotate(
    work: Work, source: Source, scratch: Path, kept_words: Path, total: int
) -> tuple[list[str], dict[str, Any]]:
    """Annotates every distinct text once; the keys of the chunks, and facts of the corpus."""
    keys: list[str] = []
    facts: dict[str, Any] = {"rows": [], "skipped": [], "documents": 0, "texts": 0}
    covered = 0  # examples whose texts all went into a chunk by now

    def chunk(texts: list[str], covers: int) -> tuple[Any, ...] | None:
        keys.append(words.chunk_key(source.annotator, texts))
        path = words.file_of(kept_words, keys[-1])
        if path.exists():
            advance(covers)
            return None
        return source.pipeline, texts, str(path), covers

    def jobs() -> Iterator[tuple[Any, ...]]:
        nonlocal covered
        waiting: list[str] = []
        read = 0
        with distinct.opened(scratch / "distinct.sqlite") as index:
            for number in range(-(-total // encode.BLOCK)):
                block = encode.load(_encoded(scratch, number))
                places, new = index.of(block.digests)
                arrays.save(_places(scratch, number), {"places": places})
                pieces = block.pieces() if new else []
                waiting += [pieces[at] for at in new]
                facts["rows"].append(len(block.ids))
                facts["documents"] += len(block.documents)
                facts["skipped"] += [
                    {"id": name, "tokens": int(tokens)}
                    for name, tokens in zip(block.skipped, block.skipped_tokens, strict=True)
                ]
                read += len(block.ids) + len(block.skipped)
                while len(waiting) >= words.CHUNK:
                    covers, covered = read - covered, read
                    job = chunk(waiting[: words.CHUNK], covers)
                    del waiting[: words.CHUNK]
                    if job:
                        yield job
            facts["texts"] = index.count
        if waiting and (job := chunk(waiting, read - covered)):
            yield job
        elif not waiting:
            advance(read - covered)

    with track("mask, annotate", total=total, unit="examples") as advance:
        for covers in work(annotate_chunk, jobs()):
            if covers:
                advance(covers)
    return keys, facts


@lru_cache(maxsize=1)
def _annotator(pipeline: str) -> words.Annotator:
    return words.Annotator(pipeline)


def annotate_chunk(pipeline: str, texts: list[str], path: str, covers: int) -> int:
    """In a worker: the words of a chunk; answers `covers`."""
    words.save(Path(path), _annotator(pipeline)(texts))
    return covers


# ---- count and weigh ----------------------------------------------------------------------------


def _counts(scratch: Path, number: int) -> Path:
    return scratch / "counts" / f"{number:05d}.jsonl"


def _read_block(scratch: Path, kept_words: Path, number: int) -> tuple[encode.Block, Any]:
    block = encode.load(_encoded(scratch, number))
    places = arrays.load(_places(scratch, number))["places"]
    keys = arrays.unpack(arrays.load(scratch / "keys.npz"))
    return block, factors.gather(places, keys, kept_words)


def count_block(scratch: str, kept_words: str, number: int) -> int:
    """In a worker: in how many documents of a block each word is; answers its number."""
    block, table = _read_block(Path(scratch), Path(kept_words), number)
    found, found_in, _ = tfidf.count(factors.word_texts(block, table))
    tfidf.save_counts(_counts(Path(scratch), number), found, found_in)
    return number


def _merge(work: Work, scratch: Path, blocks: int, out: Path, documents: int) -> None:
    """Adds the counts of all blocks up, a few files at a time."""
    paths = [_counts(scratch, number) for number in range(blocks)]
    level = 0
    while len(paths) > MERGED_AT_ONCE:
        groups = [paths[at : at + MERGED_AT_ONCE] for at in range(0, len(paths), MERGED_AT_ONCE)]
        level += 1
        made = [scratch / f"counts-{level}" / f"{n:05d}.jsonl" for n in range(len(groups))]
        jobs = [
            ([str(path) for path in group], str(result))
            for group, result in zip(groups, made, strict=True)
            if not result.exists()
        ]
        for _ in work(merge_counts, jobs):
            pass
        paths = made
    tfidf.write_frequencies(out, tfidf.merge(paths), documents)


def merge_counts(paths: list[str], result: str) -> None:
    """In a worker: several files of counts as one."""
    merged = tfidf.merge(map(Path, paths))
    with storage.replacing(Path(result)) as file:
        for row in merged:
            file.write(f"{json.dumps(row)}\n".encode())


def weigh_block(
    scratch: str,
    kept_words: str,
    folder: str,
    number: int,
    pos_tags: tuple[str, ...],
    relations: tuple[str, ...],
) -> int:
    """In a worker: the factors of a block; answers its number."""
    block, table = _read_block(Path(scratch), Path(kept_words), number)
    frequencies = tfidf.Frequencies(Path(folder) / "frequencies.parquet")
    made = factors.score(block, table, frequencies, pos_tags=pos_tags, relations=relations)
    factors.save(_block(Path(folder), number), made)
    return number


def _prune(cache: Path, folder: Path, keys: set[str]) -> None:
    """Removes what this corpus does not need of what was kept for others."""
    for other in (cache / "factors").iterdir():
        if other != folder:
            shutil.rmtree(other)
    for path in (cache / "words").glob("*/*.npz"):
        if path.stem not in keys:
            path.unlink()
