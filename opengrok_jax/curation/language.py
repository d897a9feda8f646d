"""Language, by py3langid (extra `language`): a naive Bayes model of byte n-grams, in its wheel.

Off unless `curation.languages` names some. It is trained on running text: on posts shorter than
`LEAST_WORDS` it guesses, so those are not looked at; and dialect is not another language, so only
near-certainty rejects.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from opengrok_jax.curation.looks import Look, Reason, Settings, judged
from opengrok_jax.curation.shingles import words
from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.records import Prompt, Response

LEAST_WORDS = 8
DOUBT, LINE = 0.6, 0.95
# Placeholders, addresses, tags and names are in no language.
_NOISE = re.compile(r"https?://\S+|[@#]\w+|\[[A-Z]+\]")


def language(prompt: Prompt, response: Response, settings: Settings) -> Look | None:
    """Probability that the answer is in none of the wanted languages."""
    if not settings.languages:
        return None
    text = _NOISE.sub(" ", response.text)
    if len(words(text)) < LEAST_WORDS:
        return None
    ranked = dict(_identifier().rank(text))
    likeliest = next(iter(ranked))
    wanted = sum(ranked[code] for code in settings.languages)
    detail = f"{likeliest} with probability {ranked[likeliest]:.2f}"
    return judged(round(1.0 - wanted, 3), DOUBT, LINE, Reason.LANGUAGE, detail)


@functools.cache
def _identifier() -> Any:
    with needs_extra("language"):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check(codes: tuple[str, ...]) -> None:
    """Refuses codes that the model does not know.

    Raises:
      ConfigError: a code is unknown.
      MissingExtra: there are codes, and py3langid is not installed.
    """
    if codes and (unknown := sorted(set(codes) - set(_identifier().labels))):
        raise ConfigError(
            f"curation.languages names {', '.join(unknown)}; the model knows "
            f"{', '.join(sorted(_identifier().labels))}"
        )
