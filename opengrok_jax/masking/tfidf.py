"""TF-IDF of every word, scaled to [0,1] within its document, over a corpus larger than memory.

A document is one message or one response; its words are those of the annotator, in lower case.
A word said n times in a document and found in d of D documents weighs

    (1 + ln n) * (1 + ln((1 + D) / (1 + d)))

(scikit-learn's `sublinear_tf` and `smooth_idf`), divided by the weight of the document's top word:
the top word of every document scores 1, whatever its length, and no word scores 0. Counts enter
by their logarithm because with plain counts "the" tops every answer of a hundred words. A prompt
used a thousand times counts as a thousand documents, which is what makes its words common.

Two passes: `count` finds d within a block of documents, `merge` adds up sorted blocks without
holding them, `Frequencies` is the result on disk; `scores` then needs one block and the d of its
own words. Nothing is approximated: the scores are those of one `TfidfVectorizer` over everything.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import storage
from opengrok_jax.errors import DataError, needs_extra

ROWS_PER_GROUP = 65_536  # words of the frequencies that are in memory together


def count(documents: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray, Any]:
    """How many documents of a block hold each word.

        documents  b a b | a c | (none)
        words      a b c
        found in   2 1 1

    Args:
      documents: the words of each document, in order; a document may have none.

    Returns:
      The distinct words, sorted; int64, in how many documents each is; and the sparse [D, V]
      matrix of how often.
    """
    with needs_extra("mask"):
        from scipy.sparse import csr_matrix
        from sklearn.feature_extraction.text import CountVectorizer
    if not any(documents):  # scikit-learn refuses an empty vocabulary
        nothing = csr_matrix((len(documents), 0), dtype=np.int64)
        return [], np.zeros(0, np.int64), nothing
    options: dict[str, Any] = {"analyzer": _as_is, "dtype": np.int64}
    vectorizer: Any = CountVectorizer(**options)
    counts = vectorizer.fit_transform(documents).tocsr()
    counts.sort_indices()
    words = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    return words, np.bincount(counts.indices, minlength=len(words)).astype(np.int64), counts


def scores(
    documents: Sequence[Sequence[str]], found_in: np.ndarray, total: int, counted: Any
) -> np.ndarray:
    """The score of every word of every document of a block.

        documents  a b b . | a c . |  (none)
        tf x idf   weights of the first document: a 1.29, b 2.87, . 1.29
        scores     .45 1 1 .45 | .76 1 .76 |

    Args:
      documents: as in `count`.
      found_in: int64 [V], in how many documents of the whole corpus each word of the block is.
      total: D, documents of the whole corpus.
      counted: what `count` returned for the documents.

    Returns:
      float32 in (0,1], a score per word, the documents one after the other.
    """
    with needs_extra("mask"):
        from sklearn.feature_extraction.text import TfidfTransformer
    words, _, counts = counted
    if not words:
        return np.zeros(0, np.float32)
    options: dict[str, Any] = {"norm": None, "smooth_idf": True, "sublinear_tf": True}
    transformer: Any = TfidfTransformer(**options)
    transformer.idf_ = np.log((1.0 + total) / (1.0 + found_in.astype(np.float64))) + 1.0
    weights = transformer.transform(counts.astype(np.float64)).tocsr()
    weights.sort_indices()
    per_document = np.diff(weights.indptr)
    top = np.zeros(len(documents))
    some = np.flatnonzero(per_document)
    top[some] = np.maximum.reduceat(weights.data, weights.indptr[some])
    share = (weights.data / np.repeat(top, per_document)).astype(np.float32)
    # (document, column) as one number: sorted, as rows and columns are.
    known = np.repeat(np.arange(len(documents)), per_document) * len(words) + weights.indices
    column = {word: at for at, word in enumerate(words)}
    said = np.fromiter((column[word] for text in documents for word in text), np.int64)
    rows = np.repeat(np.arange(len(documents)), [len(text) for text in documents])
    return share[np.searchsorted(known, rows * len(words) + said)]


def _as_is(words: Sequence[str]) -> Sequence[str]:
    return words


# ---- counts on disk -----------------------------------------------------------------------------


def save_counts(path: Path, words: Sequence[str], found_in: np.ndarray | Sequence[int]) -> None:
    """Writes sorted words with their counts, one JSON list a line, atomically."""
    with storage.replacing(path) as file:
        for word, number in zip(words, found_in, strict=True):
            file.write(f"{json.dumps([word, int(number)])}\n".encode())


def _read_counts(path: Path) -> Iterator[tuple[str, int]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            word, number = json.loads(line)
            yield word, number


def merge(paths: Iterable[Path]) -> Iterator[tuple[str, int]]:
    """The words of sorted files in order, each once with the sum of its counts.

        a 2, c 1 | a 1, b 4      a 3, b 4, c 1

    A line of each file is in memory.
    """
    merged = heapq.merge(*map(_read_counts, paths))
    for word, same in itertools.groupby(merged, key=lambda row: row[0]):
        yield word, sum(number for _, number in same)


class Frequencies:
    """In how many documents each word of a corpus is: a Parquet file, sorted by word.

    Attributes:
      total: D, how many documents there are.
    """

    def __init__(self, path: Path):
        """Opens what `write_frequencies` wrote; DataError if it is missing or of another layout."""
        with needs_extra("mask"):
            import pyarrow as pa
            import pyarrow.parquet as pq
        if not path.is_file():
            raise DataError(f"{path}: no such file; `opengrok mask` writes it")
        try:
            metadata = pq.read_schema(path).metadata or {}
            self.total = int(metadata[b"documents"])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise DataError(f"{path}: not the document frequencies of a mask: {error}") from None
        self._path = path

    def of(self, words: Sequence[str]) -> np.ndarray:
        """The counts of some distinct words, 0 for a word that the corpus lacks; int64 [V]."""
        with needs_extra("mask"):
            import pyarrow as pa
            import pyarrow.compute as pc
            import pyarrow.parquet as pq
        wanted = pa.array(words, pa.string())
        result = np.zeros(len(words), np.int64)
        with pq.ParquetFile(self._path) as opened:
            for group in range(opened.num_row_groups):
                table = opened.read_row_group(group).combine_chunks()
                lookup = pc.index_in(table.column("word"), value_set=wanted)  # type: ignore
                at = lookup.to_numpy(zero_copy_only=False) if len(table) else np.zeros(0)
                there = ~np.isnan(at.astype(np.float64))
                numbers = table.column("found_in").to_numpy()
                result[at[there].astype(np.int64)] = numbers[there]
        return result


def write_frequencies(path: Path, rows: Iterable[tuple[str, int]], total: int) -> int:
    """Writes sorted words and counts atomically, a row group at a time; answers their number."""
    with needs_extra("mask"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    schema = pa.schema(
        [("word", pa.string()), ("found_in", pa.int64())], metadata={"documents": str(total)}
    )
    written = 0
    rows = iter(rows)
    with (
        storage.replacing(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while some := list(itertools.islice(rows, ROWS_PER_GROUP)):
            words, numbers = zip(*some, strict=True)
            columns = [pa.array(words, pa.string()), pa.array(numbers, pa.int64())]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            written += len(some)
    return written
