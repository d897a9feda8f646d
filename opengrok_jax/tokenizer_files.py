"""The files of a tokenizer on their way from the mask, which encoded with it, to the student.

masking/masked.parquet    says `tokenizer_sha256`
masking/tokenizer/        that tokenizer.json, and what its publisher put beside it
training/student/         the same, so that transformers, vLLM and `opengrok generate` find it

What a student is served with must be what it learnt with: the ids of tokenizer.json as it stands,
our template, an end at `<|end|>`. So tokenizer_config.json and generation_config.json of a trained
student say these three things, whatever was published said; all else is carried unchanged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.hub import LICENCES
from opengrok_jax.tokenizer import CHAT_TEMPLATE, ChatTokenizer, path_of

FOLDER = "tokenizer"
TOKENIZER, SETTINGS, GENERATION = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)
# Of the published class, transformers 5 builds another tokenizer than the file holds; of this one,
# versions 4 and 5 take the file as it stands.
SERVED = {"chat_template": CHAT_TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast"}
COMPANIONS = (SETTINGS, "special_tokens_map.json", "added_tokens.json", "tokenizer.model")


def hand_over(name: str, folder: Path) -> str:
    """Copies a tokenizer and its companions; what was in the folder before is gone.

    Args:
      name: as in `tokenizer.load`. A file of another name than tokenizer.json comes alone.
      folder: to fill.

    Returns:
      SHA-256 of the tokenizer.json.

    Raises:
      DataError: it cannot be read.
      StorageError: the disk refused.
    """
    path = path_of(name)
    files = _carried(path.parent) if path.name == TOKENIZER else {}
    files[TOKENIZER] = _bytes(path)
    with storage.storing(folder):
        shutil.rmtree(folder, ignore_errors=True)
    for file, content in files.items():
        storage.write_bytes(folder / file, content)
    return storage.file_sha256(folder / TOKENIZER)


def handed_over(masked_file: Path, provenance: Mapping[str, Any]) -> Path | None:
    """The folder that `hand_over` filled beside a masked file; None if the file speaks of none.

    Raises:
      DataError: it is not there, or holds another tokenizer than made the file.
    """
    expected = provenance.get("tokenizer_sha256")
    if expected is None:
        return None
    path = masked_file.parent / FOLDER / TOKENIZER
    if not path.is_file() or storage.file_sha256(path) != expected:
        what = "is not the tokenizer that" if path.is_file() else "is missing; it"
        raise DataError(
            f"{path} {what} made {masked_file}; move the two together, or run `opengrok mask` again"
        )
    return path.parent


def ids(tokenizer: Path) -> dict[str, Any]:
    """The ids that a model's config.json states, so that `generate` stops: of a handed-over folder.

    The end of a text and the end of a turn, since a student ends its answers with the latter.
    """
    chat = ChatTokenizer(tokenizer / TOKENIZER)
    return {
        "bos_token_id": chat.bos_id,
        "eos_token_id": (chat.eos_id, chat.end_id),
        "pad_token_id": chat.eos_id,
    }


def check_same(tokenizer: Path, model: Path) -> None:
    """Raises ConfigError if a model's folder holds another tokenizer.json than encoded the data."""
    theirs = model / TOKENIZER
    if theirs.is_file() and _bytes(theirs) != _bytes(tokenizer / TOKENIZER):
        raise ConfigError(
            f"the data were encoded with another tokenizer than {theirs}, so the ids mean "
            f"other words to these weights; run `opengrok mask` with masking.tokenizer={model}"
        )


def of_student(tokenizer: Path, init: Path | None, context: int) -> dict[str, bytes]:
    """What goes beside the weights of a student that was trained here, by file name.

    Args:
      tokenizer: the folder of the tokenizer that encoded its data.
      init: the folder its weights came from; its files win. None = from scratch.
      context: positions of the model, for a tokenizer_config.json of our own.

    Raises:
      ConfigError: `init` has another tokenizer.json.
      DataError: a file that cannot be read.
    """
    files = _carried(tokenizer)
    files[TOKENIZER] = _bytes(tokenizer / TOKENIZER)
    if init is not None:
        check_same(tokenizer, init)
        files |= _carried(init)
    chat = ChatTokenizer(tokenizer / TOKENIZER)
    files[SETTINGS] = _stating(SERVED, files.get(SETTINGS), _settings(chat, context), SETTINGS)
    stops = {"eos_token_id": _stops(files.get(GENERATION), chat)}
    files[GENERATION] = _stating(stops, files.get(GENERATION), ids(tokenizer), GENERATION)
    return files


def _settings(chat: ChatTokenizer, context: int) -> dict[str, Any]:
    """A tokenizer_config.json where none was published; nothing is put before or after a text."""
    eos = chat.token_text(chat.eos_id)
    named = {} if chat.bos_id is None else {"bos_token": chat.token_text(chat.bos_id)}
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        **named,
        "clean_up_tokenization_spaces": False,
        "eos_token": eos,
        "model_max_length": context,
        "pad_token": eos,
        "padding_side": "left",
    }


def _stops(text: bytes | None, chat: ChatTokenizer) -> list[int]:
    """Where to stop: the published ids, and what our training ends a text and a turn with."""
    stated = None if text is None else _parsed(text, GENERATION).get("eos_token_id")
    stops = stated if isinstance(stated, list) else [] if stated is None else [stated]
    return [*stops, *(i for i in (chat.eos_id, chat.end_id) if i not in stops)]


def _stating(must: dict[str, Any], text: bytes | None, fresh: dict[str, Any], name: str) -> bytes:
    """A JSON object (`fresh` where there is none) with some keys set; as it was if they were."""
    stated = fresh if text is None else _parsed(text, name)
    if text is not None and all(stated.get(key) == value for key, value in must.items()):
        return text
    # With this key, transformers may take the ids of config.json for those said here.
    stated.pop("_from_model_config", None)
    return (json.dumps(stated | must, indent=2, ensure_ascii=False) + "\n").encode()


def _parsed(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{name} beside the weights or the tokenizer: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{name} beside the weights or the tokenizer: expected a JSON object")
    return value


def _carried(folder: Path) -> dict[str, bytes]:
    licences = {f"{stem}{suffix}" for stem in LICENCES for suffix in ("", ".TXT", ".MD")}
    return {
        path.name: _bytes(path)
        for path in sorted(folder.iterdir())
        if path.is_file()
        and (path.name in (GENERATION, *COMPANIONS) or path.name.upper() in licences)
    }


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a file of a tokenizer") from None
