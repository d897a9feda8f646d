"""Export: the kept answers as files for others, with what made them and what they may be used for.

    RUN/curation/kept.jsonl, ...  ->  OUT/  train.jsonl, valid.jsonl      a row a line
                                            train.parquet, valid.parquet  the same rows
                                            CARD.md                       the data card
                                            manifest.json                 sizes and hashes, last

A row has the chat with its answer in `messages`, and beside it all that is known of its making:
source, endpoint, models asked and served, parameters, cost, time, rights, `synthetic`; template and
techniques of its prompt, and of a prompt of the refinement the parent, the operator and the round
that it came from. What was not told is null. The same run exports the same bytes. Reviewers' names
are not exported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from opengrok_jax import __version__, records, rights, storage
from opengrok_jax.curation import card
from opengrok_jax.errors import DataError, needs_extra
from opengrok_jax.records import Cell, Example, Split
from opengrok_jax.rights import Source

MANIFEST, CARD = "manifest.json", "CARD.md"
MADE_BY = "opengrok export"
SPLITS: tuple[Split, ...] = ("train", "valid")
BATCH = 1024  # rows in a row group
TEXTS = (
    "id", "split", "label", "source", "endpoint", "model_asked", "model_served", "fingerprint",
    "rights", "received_at", "request_key", "template", "rules", "decided_by", "original",
    "parent", "operator",
    *(field.name for field in dataclasses.fields(Cell)),
)  # fmt: skip
NUMBERS = ("max_tokens", "cost_ticks", "prompt_tokens", "completion_tokens", "round")


def run(*, run_dir: Path, out: Path, title: str = "", licence: str = "") -> dict:
    """Writes the kept answers of a run, whose curation is finished, to `out`.

    Args:
      run_dir: the run folder.
      out: absent, empty, or an earlier export, which is replaced.
      title: of the card; "" takes the run folder's name.
      licence: under which you give the data away; "" says that none is stated.

    Returns:
      Counts: train, valid, sources.

    Raises:
      DataError: a source has no right to be trained on, a file is missing or malformed, or `out`
        holds something else.
      MissingExtra: pyarrow is not installed.
    """
    with needs_extra("acquire"):
        import pyarrow  # noqa: F401  before anything is written
    kept = run_dir / "curation" / "kept.jsonl"
    sources: Counter[Source] = Counter()
    for example in _examples(kept):
        sources[rights.source(example)] += 1
    for source in sorted(sources):
        if said := rights.objection(source):
            raise DataError(f"nothing was exported: {said}")
    _clear(out)
    counts = _write_rows(_examples(kept), _lineage(run_dir / "refinement" / "lineage.jsonl"), out)
    facts = card.gather(run_dir, sources)
    text = card.render(facts, title=title or run_dir.resolve().name, licence=licence)
    storage.write_text(out / CARD, text)
    files = [*(f"{s}.{e}" for s in SPLITS for e in ("jsonl", "parquet")), CARD]
    storage.write_json(
        out / MANIFEST,
        {
            "made_by": MADE_BY,
            "version": __version__,
            "licence": licence,
            "synthetic": any(s.kind != "labelled" for s in sources),
            "rows": dict(counts),
            "files": {
                name: {
                    "bytes": (out / name).stat().st_size,
                    "sha256": storage.file_sha256(out / name),
                }
                for name in files
            },
            "sources": [dataclasses.asdict(s) | {"rows": sources[s]} for s in sorted(sources)],
            "curation": facts.curation,
        },
    )
    return {**{split: counts[split] for split in SPLITS}, "sources": len(sources)}


def _examples(path: Path) -> Iterator[Example]:
    for number, row in enumerate(storage.read_jsonl(path), start=1):
        try:
            yield records.from_json(Example, row)
        except DataError as error:
            raise DataError(f"{path}, record {number}: {error}") from None


def _clear(out: Path) -> None:
    """Makes room in `out`: the manifest goes first, so that no half export looks whole."""
    there = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
    if there or out.is_file():
        earlier = storage.read_json(out / MANIFEST) if MANIFEST in there else {}
        if not isinstance(earlier, dict) or earlier.get("made_by") != MADE_BY:
            raise DataError(
                f"{out} exists and holds no earlier export; give another folder with --out"
            )
        with storage.storing(out):
            (out / MANIFEST).unlink()
            storage.clear_partial(out)


def _lineage(path: Path) -> dict[str, dict[str, Any]]:
    """Prompt id -> parent, operator, round; empty where nothing was refined."""
    if not path.exists():
        return {}
    names = ("parent", "operator", "round")
    return {row["child"]: {n: row[n] for n in names} for row in storage.read_jsonl(path)}


def row(example: Example, made_of: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An example as one flat row; `made_of` as `_lineage` has it of its prompt."""
    lineage = made_of or {}
    made = example.provenance
    answer = records.Message(role="assistant", content=example.response)
    when = datetime.fromtimestamp(made.received_at, UTC).isoformat(timespec="seconds")
    return {
        "id": example.id,
        "messages": [records.to_json(m) for m in (*example.messages, answer)],
        "split": example.split,
        "synthetic": made.synthetic,
        **records.to_json(example.cell),
        "posts": list(example.posts),
        "label": example.label,
        "source": example.source,
        "endpoint": rights.bare(made.endpoint),
        "model_asked": made.model_asked,
        "model_served": example.model_served,
        "fingerprint": made.fingerprint,
        "rights": example.rights,
        "temperature": made.temperature if made.temperature >= 0 else None,
        "max_tokens": made.max_tokens or None,
        "cost_ticks": made.cost_ticks if made.cost_ticks >= 0 else None,
        "prompt_tokens": made.prompt_tokens or None,
        "completion_tokens": made.completion_tokens or None,
        "received_at": when if made.received_at else None,
        **{n: getattr(made, n) for n in ("request_key", "template", "rules", "decided_by")},
        "original": made.original,
        "techniques": list(made.techniques),
        "parent": lineage.get("parent") or None,
        "operator": lineage.get("operator", "plan"),
        "round": lineage.get("round", 0),
    }


def _write_rows(
    examples: Iterator[Example], lineage: Mapping[str, Mapping[str, Any]], out: Path
) -> Counter[str]:
    import pyarrow as pa
    from pyarrow import parquet

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {
        "messages": pa.list_(message), "synthetic": pa.bool_(),
        **dict.fromkeys(("posts", "techniques"), pa.list_(pa.string())),
        "temperature": pa.float64(), **dict.fromkeys(NUMBERS, pa.int64()),
        **dict.fromkeys(TEXTS, pa.string()),
    }  # fmt: skip
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as files:
        lines: dict[str, IO[bytes]] = {}
        tables: dict[str, parquet.ParquetWriter] = {}
        waiting: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        order = list(row(_BLANK))
        schema = pa.schema([(name, kinds[name]) for name in order])
        for split in SPLITS:
            lines[split] = files.enter_context(storage.replacing(out / f"{split}.jsonl"))
            file = files.enter_context(storage.replacing(out / f"{split}.parquet"))
            tables[split] = files.enter_context(parquet.ParquetWriter(file, schema))

        def flush(split: str) -> None:
            if waiting[split]:
                tables[split].write_table(pa.Table.from_pylist(waiting[split], schema))
                waiting[split].clear()

        for example in examples:
            plain = row(example, lineage.get(example.id))
            split = example.split
            lines[split].write(json.dumps(plain, ensure_ascii=False).encode() + b"\n")
            waiting[split].append(plain)
            counts[split] += 1
            if len(waiting[split]) == BATCH:
                flush(split)
        for split in SPLITS:
            flush(split)
    return counts


_BLANK = Example(
    id="", messages=(), response="", split="train", cell=Cell(intent=""), source="",
    model_served="", rights="",
)  # fmt: skip
