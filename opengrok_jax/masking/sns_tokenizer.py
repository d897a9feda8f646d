"""spaCy tokenizer rules for social-media English, as plain configuration.

spaCy's stock English rules cut `#tag`, `!!!`, `$TSLA` and most emoji sequences into pieces.
The patterns here go in front of the stock ones. All of them are regular expressions and special
cases that spaCy itself serialises, so a pipeline saved with them loads with plain
`spacy.load`, without this package.

    "@ann: sooo good!!! 😂😂 #nyc https://t.co/x1"
     @ann | : | sooo | good | !!! | 😂😂 | #nyc | https://t.co/x1

Whatever the rules, spaCy keeps every character: joining the tokens with their trailing blanks
gives the text back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

from opengrok_jax.errors import needs_extra

if TYPE_CHECKING:
    import spacy.language
    import spacy.tokenizer

# -- emoji: one token is a whole sequence as a reader sees it (UTS #51), or a run of one sequence
_PICTOGRAPH = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf"
    "\u2934\u2935\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001f0ff\U0001f10d-\U0001f1e5"
    "\U0001f200-\U0001f3fa\U0001f400-\U0001faff]"
)
_MODIFIER = "[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*"
_SEQUENCE = f"{_PICTOGRAPH}{_MODIFIER}(?:\u200d{_PICTOGRAPH}{_MODIFIER})*"
_FLAG = "[\U0001f1e6-\U0001f1ff]{2}"
_KEYCAP = "[0-9#*]\ufe0f?\u20e3"
EMOJI = f"(?P<emoji>{_FLAG}|{_KEYCAP}|{_SEQUENCE})(?P=emoji)*"

# -- addresses and tags
_NOT_IN_URL = r"\s<>\"“”"
_URL_END = rf"[^{_NOT_IN_URL}.,;:!?'’)\]…*]"
_DOMAINS = "com|org|net|edu|gov|info|io|co|ly|me|tv|be|gl|fm|uk|us|ca|au|de|fr|jp"
URL = (
    rf"(?:(?:https?://|ftp://|www\.)[^{_NOT_IN_URL}]*{_URL_END}"
    rf"|(?:[A-Za-z0-9-]{{1,63}}\.){{1,6}}(?:{_DOMAINS})"
    rf"(?:/[^{_NOT_IN_URL}]*{_URL_END}|(?![\w@]|[.-]\w)))"
)
EMAIL = r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}(?!\w)"
MENTION = r"[@＠]\w+"
HASHTAG = r"[#＃]\w*[^\W\d_]\w*"  # a letter somewhere: `#1` is a number sign and a number
CASHTAG = r"\$[A-Za-z]{1,6}(?![\w$])"

# -- emoticons: eyes, nose and mouth in either order, hearts, arrows, faces between marks
_EYES, _NOSE = "[:;=]", "[-'o^~]?"
_MOUTH = r"(?:[)\](\[{}|/\\*>]+|[dDpPoO3sSxXcC]{1,3}|[0@$])"
EMOTICON = (
    rf"(?:(?<!\w){_EYES}{_NOSE}{_MOUTH}(?!\w)"
    rf"|(?<!\w)[)\](\[dD]{{1,3}}{_NOSE}{_EYES}(?!\w)"
    rf"|(?<!\w){_EYES}'[()\[\]]+"
    r"|(?<![\w/])[xX8]-?[D)(]+(?!\w)"
    r"|<+/?3+|(?<!\w)[-=~]+>+|<+[-=~]+(?!\w)"
    r"|\^[-_.oO]*\^|(?<!\w)>[_.]+<|-[_.]+-|(?<!\w)[oO0][_.]+[oO0](?!\w)|(?<!\w)[tT]_+[tT](?!\w)"
    r"|¯\\_\(ツ\)_/¯)"
)
PUNCTUATION_RUN = (
    r"(?:[!?]{2,}1*|\.{2,}|…+|-{2,}|—+|\*+|~+|_{2,}|,{2,}|/{2,}|\|+|={2,}|\${2,}"
    r"|>{2,}|<{2,}|\({2,}|\){2,}|'{2}|`{2})"
)

PUBLIC_REPLY = r"\.(?=[@＠]\w)"  # `.@ann`: the stop lets all read what is said to one

_FIRST_PREFIXES = (
    PUBLIC_REPLY,
    EMAIL,
    URL,
    MENTION,
    HASHTAG,
    CASHTAG,
    EMOTICON,
    EMOJI,
    PUNCTUATION_RUN,
)
_FIRST_SUFFIXES = (
    EMOTICON,
    r"(?<=[A-Za-z])[:;]-?[)(DdPp]+",  # a smiley typed without a blank: `thanks:)`
    EMOJI,
    rf"(?<=\S){PUNCTUATION_RUN}",
    rf"(?<=[^\s&]){HASHTAG}",  # not the inside of `&#x27;`
)
_FIRST_INFIXES = (
    r"(?<=[^\s/])https?://\S+",
    EMOJI,
    r"(?<=[\w.!?)…])[#＃][A-Za-z]\w+",
    PUNCTUATION_RUN,
)

# Chunks that the rules would cut in the wrong place; a bar marks the cuts that are wanted.
_CHUNKS = (
    "ima yall y'all y’all wan|na lem|me gim|me s/o w/ w/o b/c e-mail ft. ur RT "
    "&amp; &lt;3 &lt; &gt; i|'m i|’m"
)


def configure(nlp: spacy.language.Language) -> spacy.language.Language:
    """Puts the social-media rules in front of the stock rules of `nlp`'s tokenizer, in place.

    Args:
        nlp: an English pipeline whose tokenizer is spaCy's own `Tokenizer`.

    Returns:
        `nlp` itself, so that the function can serve as spaCy's `initialize.before_init` callback.
    """
    with needs_extra("mask"):
        from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex

    stock, tokenizer = nlp.Defaults, cast("spacy.tokenizer.Tokenizer", nlp.tokenizer)
    prefixes = [*_FIRST_PREFIXES, *(stock.prefixes or ())]
    suffixes = [*_FIRST_SUFFIXES, *(stock.suffixes or ())]
    infixes = [*_FIRST_INFIXES, *(stock.infixes or ())]
    tokenizer.prefix_search = compile_prefix_regex(prefixes).search
    tokenizer.suffix_search = compile_suffix_regex(suffixes).search
    tokenizer.infix_finditer = compile_infix_regex(infixes).finditer
    tokenizer.token_match = re.compile(f"^(?:{EMAIL}|{MENTION}|{HASHTAG}|{URL})$").match
    for chunk in _CHUNKS.split():
        for cased in dict.fromkeys((chunk, chunk[0].upper() + chunk[1:], chunk.upper())):
            pieces = cased.split("|")
            tokenizer.add_special_case("".join(pieces), [{"ORTH": piece} for piece in pieces])
    return nlp
