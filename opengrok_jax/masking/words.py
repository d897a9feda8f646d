"""The words of many texts as flat arrays, and the annotator that finds them, a chunk at a time.

A chunk is a list of distinct texts in a fixed order. What an annotator says of a text may depend,
in the last bits of its sums and so once in a long while in a label, on the texts that it is batched
with; so chunks are cut by content alone, annotated whole, and kept under the hash of all their
texts. Whoever annotates a chunk, whenever, the words are the same.

    texts     "the cat eats" | "hi !"
    counts    3 2
    starts    0 4 8 0 3
    ends      3 7 12 2 4
    upos      DET NOUN VERB INTJ PUNCT     as indices into `syntax.UPOS`
    relation  det nsubj root root punct    as indices into the chunk's own `names`
    heads     1 2 2 0 0                    as indices into the words of the text
"""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.masking import align, arrays, syntax

if TYPE_CHECKING:
    import spacy.language

CHUNK = 1024  # texts that are annotated together and kept in one file
FORMAT = "words 1"
NEW_WORDS = 50_000  # that a pipeline's vocabulary may learn; see `Annotator`


@dataclass(frozen=True, kw_only=True)
class WordTable:
    """The words of N texts, W in all; white space is no word.

    Attributes:
      counts: int32 [N], words of each text.
      starts, ends: uint16 [W], code points of the text.
      upos: uint8 [W], index into `syntax.UPOS`.
      relation: uint8 [W], index into `names`.
      heads: uint16 [W], the head of each word among the words of its text; itself at a root.
      names: the relations that occur, as `syntax.relation_name` spells them.
    """

    counts: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    upos: np.ndarray
    relation: np.ndarray
    heads: np.ndarray
    names: tuple[str, ...]


def identity(pipeline: str) -> str:
    """SHA-256 of all that the words of a text depend on beside the text; nothing is loaded.

    Files about the pipeline (its card, licence and notice) are no part of that.

    Args:
      pipeline: name or folder, as `syntax.load_pipeline` takes it.

    Raises:
      ConfigError: there is no such pipeline.
    """
    with needs_extra("mask"):
        version = importlib.metadata.version("spacy")
    digest = hashlib.sha256(f"{FORMAT} spacy {version} ".encode())
    folder = _folder(pipeline)
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".pyc", ".md"))
    for path in sorted(p for p in files if p.name not in ("LICENSE", "NOTICE")):
        body = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(body)} ".encode())
        digest.update(body)
    return digest.hexdigest()


def _folder(pipeline: str) -> Path:
    if not pipeline:
        return syntax.EMBEDDED
    if Path(pipeline).is_dir():
        return Path(pipeline)
    found = importlib.util.find_spec(pipeline) if pipeline.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        syntax.load_pipeline(pipeline)  # says what is wrong
        raise ConfigError(f"pipeline {pipeline!r} is no folder and no installed package")
    return Path(next(iter(found.submodule_search_locations)))


def chunk_key(annotator: str, texts: Iterable[str]) -> str:
    """The name under which the words of a chunk are kept.

    Args:
      annotator: its `identity`.
      texts: of the chunk, in order.
    """
    digest = hashlib.sha256(annotator.encode())
    for text in texts:
        body = text.encode()
        digest.update(len(body).to_bytes(8, "big"))
        digest.update(body)
    return digest.hexdigest()[:40]


def annotate(nlp: spacy.language.Language, texts: Sequence[str]) -> WordTable:
    """The words of the texts of one chunk.

    The texts go through the pipeline by length: batches of like lengths are less padded.
    """
    order = sorted(range(len(texts)), key=lambda at: (len(texts[at]), at))
    reader = _Reader(nlp)
    batches = []
    for first in range(0, len(order), syntax.BATCH):
        some = [texts[at] for at in order[first : first + syntax.BATCH]]
        batches.append(reader.read(nlp.pipe(some, batch_size=len(some))))
    by_length = [
        arrays.joined([batch[at] for batch in batches], kind) for at, kind in enumerate(_KINDS)
    ]
    place = np.argsort(np.array(order, np.int64))  # of each text among the sorted ones
    counts = by_length[0]
    begins = (np.cumsum(counts, dtype=np.int64) - counts)[place]
    source = align.ranges(begins, begins + counts[place])
    starts, ends, upos, relation, heads = (column[source] for column in by_length[1:])
    return WordTable(
        counts=counts[place],
        starts=starts,
        ends=ends,
        upos=upos,
        relation=relation,
        heads=heads,
        names=tuple(reader.names),
    )


_KINDS = (np.int32, np.uint16, np.uint16, np.uint8, np.uint8, np.uint16)


class Annotator:
    """A pipeline whose vocabulary is bounded, so that memory stays flat over millions of posts.

    Every new word stays in a vocabulary, about 600 bytes each, and spaCy takes none out. Its way of
    forgetting a batch's words (`memory_zone`) has the frequent ones made again for each batch, a
    tenth of the time; the pipeline loaded anew every 30,000 posts costs a hundredth.
    """

    def __init__(self, pipeline: str):
        """Loads it; raises what `syntax.load_pipeline` raises."""
        self._name = pipeline
        self._load()

    def _load(self) -> None:
        self._nlp: Any = None
        gc.collect()  # a pipeline is held by cycles: the old one goes before the new one comes
        self._nlp = syntax.load_pipeline(self._name)
        self._most = len(self._nlp.vocab) + NEW_WORDS

    def __call__(self, texts: Sequence[str]) -> WordTable:
        """`annotate` with this pipeline."""
        if len(self._nlp.vocab) > self._most:
            self._load()
        return annotate(self._nlp, texts)


class _Reader:
    """Copies words out of Docs.

    Attributes:
      names: the relations seen so far.
    """

    def __init__(self, nlp: spacy.language.Language):
        from spacy.symbols import IDS

        columns = ("IDX", "LENGTH", "POS", "DEP", "HEAD", "IS_SPACE", "TAG")
        self._wanted = [IDS[name] for name in columns]
        self._strings = nlp.vocab.strings
        # spaCy's number of a part of speech -> our index; what it does not know is X.
        self._upos = np.full(256, syntax.UPOS.index("X"), np.uint8)
        for index, name in enumerate(syntax.UPOS):
            self._upos[IDS[name]] = index
        self.names: list[str] = []
        self._by_name: dict[str, int] = {}
        self._by_hash: dict[int, int] = {}

    def read(self, docs: Iterable[Any]) -> tuple[np.ndarray, ...]:
        """counts of some Docs; starts, ends, upos, relation, heads of their words, in order."""
        # Into one buffer at once: many small arrays that live on among what the pipeline frees
        # slow it down by a tenth.
        body, lengths = bytearray(), []
        for doc in docs:
            body += doc.to_array(self._wanted).tobytes()
            lengths.append(len(doc))
        table = np.frombuffer(body, np.uint64).reshape(-1, len(self._wanted))
        doc_of = np.repeat(np.arange(len(lengths)), lengths)
        heads = np.arange(len(table)) + table[:, 4].astype(np.int64)
        kept = table[:, 5] == 0
        if not kept.all():
            place = np.cumsum(kept) - 1
            # A head that is white space is no word: its child stands for itself.
            heads = np.where(kept[heads], place[heads], place)[kept]
            table, doc_of = table[kept], doc_of[kept]
        counts = np.bincount(doc_of, minlength=len(lengths)).astype(np.int32)
        heads -= (np.cumsum(counts, dtype=np.int64) - counts)[doc_of]
        relation = self._relations(table[:, 3])
        upos = self._upos[table[:, 2]]
        for at in np.flatnonzero(table[:, 2] == 0).tolist():  # a pipeline of Penn tags alone
            tag, name = self._strings[int(table[at, 6])], self.names[relation[at]]
            found = syntax.part_of_speech("", tag, name)
            upos[at] = syntax.UPOS.index(found) if found else syntax.UPOS.index("X")
        starts = table[:, 0].astype(np.uint16)
        ends = (table[:, 0] + table[:, 1]).astype(np.uint16)
        return counts, starts, ends, upos, relation, heads.astype(np.uint16)

    def _relations(self, labels: np.ndarray) -> np.ndarray:
        """Indices into `names`, which grows in the order in which relations are first seen."""
        distinct, first, which = np.unique(labels, return_index=True, return_inverse=True)
        code = np.zeros(len(distinct), np.uint8)
        for at in np.argsort(first).tolist():
            code[at] = self._relation(int(distinct[at]))
        return code[which]

    def _relation(self, label: int) -> int:
        found = self._by_hash.get(label)
        if found is None:
            name = syntax.relation_name(self._strings[label])
            if name not in self._by_name:
                self._by_name[name] = len(self.names)
                self.names.append(name)
            found = self._by_hash[label] = self._by_name[name]
        return found


# ---- kept on disk -------------------------------------------------------------------------------

_COLUMNS = ("counts", "starts", "ends", "upos", "relation", "heads")


def file_of(folder: Path, key: str) -> Path:
    """Where the words of a chunk are kept."""
    return folder / key[:2] / f"{key}.npz"


def save(path: Path, table: WordTable) -> None:
    """Writes the words of a chunk atomically."""
    columns = {name: getattr(table, name) for name in _COLUMNS}
    arrays.save(path, columns | arrays.under("names", arrays.pack(table.names)))


def load(path: Path) -> WordTable:
    """What `save` wrote; DataError if it is missing or damaged."""
    stored = arrays.load(path)
    names = tuple(arrays.unpack(arrays.taken("names", stored)))
    return WordTable(names=names, **{name: stored[name] for name in _COLUMNS})
