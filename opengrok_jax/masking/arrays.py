"""Named arrays in one file: what the steps of the build hand to each other on disk.

NumPy's own .npz, uncompressed and without pickles; texts are their UTF-8 bytes and the end of each.
A file is there whole or not at all, and the same arrays are the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import storage
from opengrok_jax.errors import DataError


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays atomically; raises StorageError where the disk refuses."""
    named: dict[str, Any] = dict(arrays)
    with storage.replacing(path) as file:
        np.savez(file, allow_pickle=False, **named)


def load(path: Path) -> dict[str, np.ndarray]:
    """What `save` wrote.

    Raises:
      DataError: it is missing or damaged.
    """
    try:
        # Opened here: of a damaged file np.load would leave its own open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise _damaged(path, error) from None
    except Exception as error:  # zipfile's own
        if type(error).__name__ != "BadZipFile":
            raise
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read ({error}); remove the folder `cache` of the mask and run the same "
        "command again"
    )


def pack(texts: Iterable[str]) -> dict[str, np.ndarray]:
    """Texts as arrays: `bytes` uint8, all of them, and `ends` int64, the end of each."""
    encoded = [text.encode() for text in texts]
    return {
        "bytes": np.frombuffer(b"".join(encoded), np.uint8),
        "ends": np.cumsum([len(one) for one in encoded], dtype=np.int64),
    }


def unpack(packed: Mapping[str, np.ndarray]) -> list[str]:
    """The texts that `pack` took."""
    whole, ends = packed["bytes"].tobytes(), packed["ends"].tolist()
    return [whole[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]


def under(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with names "name.key", to stand beside others in one file."""
    return {f"{name}.{key}": value for key, value in arrays.items()}


def taken(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `under` put under a name."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def joined(parts: Sequence[np.ndarray], kind: Any) -> np.ndarray:
    """One array out of several, of this dtype even if there is none."""
    return np.concatenate([np.zeros((0, *parts[0].shape[1:]) if parts else 0, kind), *parts])
