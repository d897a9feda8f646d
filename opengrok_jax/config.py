"""Configs: one Python file is one experiment; `get_config(variant)` returns a ConfigDict.

--config configs/demo.py                     the experiment
--config configs/tweeteval.py:smoke          a variant of it, the same code in small
--config.training.learning_rate=1e-4         one value changed
"""

from __future__ import annotations

import ast
import difflib
import inspect
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from opengrok_jax.errors import ConfigError

PREFIX = "--config."


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config that `FILE[:variant]` names, with `--config.key=value` overrides.

    Raises:
      ConfigError: no such file, not a config, an unknown variant or key, a value of another type.
    """
    path, variant = Path(spec), ""
    if not path.exists() and ":" in spec:
        file, _, variant = spec.rpartition(":")
        path = Path(file)
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; --config wants FILE or FILE:variant")
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
    except Exception as error:
        raise ConfigError(f"{path}: cannot be run: {type(error).__name__}: {error}") from None
    if get_config is None:
        raise ConfigError(f"{path}: defines no get_config(variant); see configs/demo.py")
    try:
        config = get_config(variant)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    for override in overrides:
        _override(config, override)
    config.lock()
    return config


def _override(config: ConfigDict, override: str) -> None:
    """Applies one `--config.a.b=value`."""
    key, equals, text = override.removeprefix(PREFIX).partition("=")
    if not override.startswith(PREFIX) or not equals:
        raise ConfigError(f"{override!r} is not understood; expected {PREFIX}key=value")
    *path, last = key.split(".")
    node = config
    for name in path:
        node = node.get(name) if name in node else None
        if not isinstance(node, ConfigDict):
            raise ConfigError(f"{key}: the config has no section {name!r}{_nearest(key, config)}")
    if last not in node:
        raise ConfigError(f"{key}: the config has no such key{_nearest(key, config)}")
    before = node[last]
    if isinstance(before, ConfigDict):
        raise ConfigError(f"{key} is a section; set one of its keys: {', '.join(before)}")
    node[last] = _parse(key, text, before)


def _parse(key: str, text: str, before: Any) -> Any:
    """`text` as a value of the type of `before`."""
    if isinstance(before, str):
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(before, float) and type(value) is int:
        value = float(value)
    if isinstance(before, tuple) and isinstance(value, list):
        value = tuple(value)
    if before is not None and value is not None and type(value) is not type(before):
        raise ConfigError(
            f"{key} is {before!r}, so it wants a {type(before).__name__}; got {text!r}"
        )
    return value


def _nearest(key: str, config: ConfigDict) -> str:
    """ "; did you mean ...?", or nothing."""
    close = difflib.get_close_matches(key, leaves(config), n=1)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(config)}"


def leaves(config: ConfigDict, prefix: str = "") -> list[str]:
    """The dotted names of all values."""
    names = []
    for key, value in config.items():
        if isinstance(value, ConfigDict) and len(value):
            names += leaves(value, f"{prefix}{key}.")
        else:
            names.append(f"{prefix}{key}")
    return names


def check(section: str, values: dict[str, Any], run: Callable[..., Any], given: set[str]) -> None:
    """Holds a section against the keyword-only signature of its room's `run`.

    Args:
      section: name of the section, for the message.
      values: what the config says.
      run: the room's function.
      given: arguments that the pipeline fills in itself.

    Raises:
      ConfigError: a key that `run` does not take, or one that it needs and that is not there.
    """
    parameters = inspect.signature(run).parameters
    takes = set(parameters) - given
    if unknown := sorted(set(values) - takes):
        close = difflib.get_close_matches(unknown[0], takes, n=1)
        hint = f"did you mean {section}.{close[0]}?" if close else f"it takes {sorted(takes)}"
        raise ConfigError(f"{section}.{unknown[0]}: there is no such setting; {hint}")
    needs = {n for n in takes if parameters[n].default is inspect.Parameter.empty}
    if missing := sorted(needs - set(values)):
        raise ConfigError(f"the config lacks {section}.{missing[0]}, which has no default")
