"""The API key: read from the environment, shown to nobody, cut out of whatever comes back."""

from __future__ import annotations

import json
import os
from urllib.parse import quote

from opengrok_jax.errors import ConfigError

MASK = "[api key]"


class Secret:
    """A string that shows itself only to whoever calls `reveal`."""

    def __init__(self, value: str) -> None:
        self._value = value
        # Local servers take any key, as "x" or "EMPTY": cutting that out would mangle answers.
        spelled = {value, json.dumps(value)[1:-1], value.replace("/", "\\/"), quote(value, safe="")}
        self._spellings = sorted(spelled, key=len, reverse=True) if len(value) >= 8 else []

    def __repr__(self) -> str:
        """Never the string."""
        return "Secret(***)"

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._value)

    def reveal(self) -> str:
        """The string itself."""
        return self._value

    def mask(self, text: str) -> str:
        """`text` without the secret, however JSON or an address would spell it."""
        for spelling in self._spellings:
            text = text.replace(spelling, MASK)
        return text

    def mask_bytes(self, raw: bytes) -> bytes:
        """`raw` without the secret."""
        for spelling in self._spellings:
            raw = raw.replace(spelling.encode(), MASK.encode())
        return raw


def secret_from(variable: str) -> Secret:
    """The key in an environment variable; an empty one for variable "".

    Raises:
      ConfigError: the variable is not set, or holds what no header can carry.
    """
    if not variable:
        return Secret("")
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(
            f"the environment variable {variable} is not set; it is to hold the teacher's API key: "
            f"export {variable}=..., or set api_key_env to the name of the one that does"
        )
    # Checked here, because a line break in a header would begin another one.
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ConfigError(
            f"the environment variable {variable} holds spaces or characters that no API key has; "
            "its value is not shown here"
        )
    return Secret(value)
