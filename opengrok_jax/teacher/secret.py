"""The API key: read from the environment, shown to nobody, cut out of whatever comes back."""

from __future__ import annotations

import os
import re

from opengrok_jax.errors import ConfigError

MASK = "[api key]"


class Secret:
    """A string that shows itself only to whoever calls `reveal`."""

    def __init__(self, value: str) -> None:
        self._value = value
        # Local servers take any key, as "x" or "EMPTY": cutting that out would mangle answers.
        self._cut = len(value) >= 8
        spelled = "".join(map(_spellings, value))
        self._text = re.compile(spelled)
        self._bytes = re.compile(spelled.encode())
        # Without one of these in a text, no other spelling than the plain one is.
        self._signs = ("\\u00", "%", *(["\\"] if set(value) & set('/\\"') else []))

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
        if not self._cut:
            return text
        text = text.replace(self._value, MASK)
        return self._text.sub(MASK, text) if any(s in text for s in self._signs) else text

    def mask_bytes(self, raw: bytes) -> bytes:
        """`raw` without the secret."""
        if not self._cut:
            return raw
        raw = raw.replace(self._value.encode(), MASK.encode())
        spelled = any(sign.encode() in raw for sign in self._signs)
        return self._bytes.sub(MASK.encode(), raw) if spelled else raw


def _spellings(char: str) -> str:
    """A pattern of all that JSON, within JSON too, and addresses write for a character."""
    point = f"{ord(char):02x}"
    return rf"(?:\\{{0,4}}{re.escape(char)}|\\{{1,4}}u(?i:00{point})|%(?i:{point}))"


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
