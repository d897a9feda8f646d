"""Models by their name on the Hugging Face hub: downloaded once, then read from its cache.

Only safetensors, JSON, tokenizers, licences and notes are fetched, never pickles or code.
The library reads HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE from the environment.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import (
    CheckpointError,
    ConfigError,
    StorageError,
    UserError,
    needs_extra,
)
from opengrok_jax.progress import say

# Besides the weights, what a published folder holds for tokenizing, generating and licensing.
CARRIED_SUFFIXES = (".json", ".jinja", ".md", ".model", ".txt")
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
BESIDE = [*(f"*{suffix}" for suffix in CARRIED_SUFFIXES), *LICENCES]
WEIGHTS = "*.safetensors"
# Other forms of the same weights: in folders of their own, in one piece, and the lists of pickles.
UNWANTED = ["*/*", "consolidated*", "*.bin.index.json"]

_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)


def is_name(given: str | Path) -> bool:
    """Whether the hub would be asked: `owner/model` or `owner/model@revision`, and no such path.

    >>> [is_name(n) for n in ("microsoft/phi-4", "me/model@v1", "./runs/x", "a/b/c", "model")]
    [True, True, False, False, False]
    """
    if isinstance(given, Path) or given.startswith((".", "/", "~")) or Path(given).exists():
        return False
    return _NAME.fullmatch(given) is not None


def folder_of(given: str | Path, *, weights: bool = True) -> Path:
    """The folder of a model: the path itself, or for a name on the hub the copy in its cache.

    `weights` False leaves them where they are: for the tokenizer and the like.

    A path that exists wins over a name; a `Path`, or what begins with `.`, `/` or `~`, is never
    asked of the hub.

    Raises:
      CheckpointError: no such model or revision there, it is gated, or the hub does not answer.
      ConfigError: a name that no model can have.
      StorageError: the disk is too small, or refused.
      MissingExtra: huggingface_hub is not installed.
    """
    if not is_name(given):
        return Path(given).expanduser()
    found = _NAME.fullmatch(str(given))
    assert found is not None
    return _download(found["name"], found["revision"], [*BESIDE, *([WEIGHTS] if weights else [])])


def _download(name: str, revision: str | None, wanted: list[str]) -> Path:
    with needs_extra("hub"):
        from huggingface_hub import constants, errors, snapshot_download, utils

    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    cache = Path(constants.HF_HUB_CACHE)
    chosen: Any = {
        "revision": revision,
        "allow_patterns": wanted,
        "ignore_patterns": UNWANTED,
        "library_name": "opengrok-jax",
    }
    try:
        with contextlib.suppress(errors.DryRunError):  # no answer: perhaps all is in the cache
            _announce(name, snapshot_download(name, dry_run=True, **chosen), cache)
        return Path(snapshot_download(name, **chosen))
    except errors.HFValidationError as error:
        raise ConfigError(f"{name} cannot be a name on the hub: {error}") from None
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{name} is gated: accept its terms on its page of the hub, and set HF_TOKEN to a "
            "token of that account"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"{name} is neither a folder here nor a model on the hub; mind the spelling, or, if "
            "it is a private one, set HF_TOKEN to a token that may read it"
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{name} is on the hub, but has no revision {revision}") from None
    except UserError:
        raise
    except Exception as error:  # of whatever HTTP library, each with its own tree
        if isinstance(error, OSError) and error.errno is not None:
            with storage.storing(cache):
                raise
        if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
            error = error.__cause__
        refused = isinstance(error, errors.HfHubHTTPError) and error.response.status_code < 500
        raise CheckpointError(
            f"{name} is no folder here, and could not be had from the hub: {_told(error)}; "
            + ("see whether HF_TOKEN is right and may read it" if refused else "try again later")
            + ", or give a folder"
        ) from None


def _announce(name: str, planned: list[Any], cache: Path) -> None:
    """Says how much will come; raises StorageError if the disk has no room for it."""
    needed = sum(file.file_size or 0 for file in planned if file.will_download)
    if not needed:
        return
    there = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise StorageError(
            f"{name} needs {needed:,} bytes in {cache}, and the disk has {free:,} left; free some "
            "space or set HF_HOME to another disk"
        )
    say(f"downloading {name}: {needed:,} bytes to {cache}")


def _told(error: BaseException) -> str:
    """What went wrong, in a line; a library's text may quote the header with the token."""
    line = (str(error).strip().splitlines() or [""])[0][:200]
    kind = type(error).__name__
    return kind if "Bearer" in line or not line else f"{kind}: {line}"
