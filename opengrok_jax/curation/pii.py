"""Personal data becomes typed placeholders; what has a checksum must pass it.

    mail r.tan@example.org       [EMAIL]        ring +44 20 7946 0188     [PHONE]
    4111 1111 1111 1111          [CARD]         DE89 3704 0044 0532 ...   [IBAN]
    from 203.0.113.7             [IP]           thanks @someone           [HANDLE]
    https://h.test/?token=abc    https://h.test/?token=[SECRET]

Masking what is masked changes nothing. Names and street addresses are not found: that takes a
model, and a rule would cut more than it saves.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator


class Kind(enum.StrEnum):
    """What was found; the placeholder is the name in brackets and capitals."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    IP = "ip"
    HANDLE = "handle"
    SECRET = "secret"

    @property
    def placeholder(self) -> str:
        """What stands in the masked text."""
        return f"[{self.upper()}]"


Span = tuple[int, int]


def mask(text: str, handles: bool = True) -> tuple[str, Counter[str]]:
    """The text with placeholders, and how many of each kind were put in.

    Args:
      handles: whether @names go, too.
    """
    found: Counter[str] = Counter()
    while True:
        before, digits = text, len(_DIGIT.findall(text))
        for kind, signs, spans in _FINDERS:
            if (kind is Kind.HANDLE and not handles) or not signs(text, digits):
                continue
            pieces, end = [], 0
            for start, stop in spans(text):
                pieces += [text[end:start], kind.placeholder]
                end = stop
                found[kind] += 1
            text = "".join(pieces) + text[end:]
        # A placeholder can set free what stood too close to be seen, so look until nothing is left.
        if text == before:
            return text, found


# ---- patterns ---------------------------------------------------------------------------------

_DOMAIN = r"(?:[\w-]+\.)+[^\W\d_]{2,}"
_EMAIL = re.compile(rf"(?<![\w@])[\w+%](?:[\w.+%'-]*[\w+%-])?@{_DOMAIN}")
_FEDIVERSE = re.compile(rf"(?<!\w)@\w(?:[\w.-]*\w)?@{_DOMAIN}")
# "@7pm" is a time, and what follows a masked user is a host.
_HANDLE = re.compile(r"(?<!\w)(?<!\[SECRET\])@(?!\d{1,4}(?:[ap]m)?(?!\w))\w(?:[\w.]*\w)?", re.I)
_SECRET_NAME = (
    r"(?:access_?|auth_?|refresh_?|id_?|reset_?|session_?)?token|auth|api_?key|key|secret|sig|"
    r"signature|passw(?:or)?d|pwd|pass|session(?:_?id)?|sid|jwt|otp|code|invite"
)
_QUERY_SECRET = re.compile(
    rf"(?<=[?&;#])(?P<name>{_SECRET_NAME})=(?!\[SECRET\](?:[&#\s]|$))(?P<value>[^&#\s]+)", re.I
)
# Any other parameter whose value is long and mixes letters and digits.
_QUERY_TOKEN = re.compile(
    r"(?<=[?&;])(?P<name>[\w.-]+)=(?=[\w-]*\d)(?=[\w-]*[A-Za-z])(?P<value>[\w-]{24,})(?=[&#\s]|$)"
)
_URL_USER = re.compile(r"(?<=://)(?!\[SECRET\]@)(?P<value>[^\s/@:]+:[^\s/@]+)(?=@)")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_DIGITS = re.compile(r"(?<![\w])\d(?:[ -]?\d)+(?!\w)")
_IBAN = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z\d])")
_PHONE = re.compile(
    r"(?<![\w.,#])(?:(?<!/)|(?=\+))(?:\+|\(\+?)?"
    r"\d(?:[ \u00a0./()\-\u2011\u2013]{0,3}\d){6,20}(?!\w)"
)
_CUE = re.compile(
    r"\b(?:call|calls|text|tel|telephone|phone|ph|ring|mobile|mob|cell|whatsapp|sms|fax|hotline)"
    r"\b[^\w\n]{0,3}(?:\w+[^\w\n]{1,3}){0,2}$",
    re.I,
)
_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?:\D|$)")
_NORTH_AMERICAN = re.compile(
    r"(?:1[-. ]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-. ])[2-9]\d{2}[-. ]\d{4}"
)

# Lengths of an IBAN by country (SWIFT's registry).
_IBAN_LENGTH = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "PT",
        26: "IS TR",
        27: "FR GR IT MC MR SM",
        28: "AL AZ CY DO GT HU LB PL",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT",
        32: "LC",
    }.items()
    for country in countries.split()
}
# (lowest and highest prefix, lengths) of the card networks: without them a tenth of all long
# numbers, post ids among them, would pass the checksum.
_CARDS = (
    ("4", "4", (13, 16, 19)), ("51", "55", (16,)), ("2221", "2720", (16,)),
    ("34", "34", (15,)), ("37", "37", (15,)), ("6011", "6011", (16, 19)),
    ("644", "659", (16, 19)), ("62", "62", (16, 17, 18, 19)), ("3528", "3589", (16, 19)),
    ("300", "305", (14, 16, 19)), ("36", "36", (14, 16, 19)), ("38", "39", (14, 16, 19)),
)  # fmt: skip


# ---- finders ----------------------------------------------------------------------------------


def _all(*patterns: re.Pattern[str]) -> Callable[[str], Iterator[Span]]:
    """Finds the group `value` of the patterns, or all of them where they have none."""

    def spans(text: str) -> Iterator[Span]:
        found = []
        for pattern in patterns:
            group = "value" if "value" in pattern.groupindex else 0
            found += [match.span(group) for match in pattern.finditer(text)]
        yield from _apart(found)

    return spans


def _apart(found: list[Span]) -> Iterator[Span]:
    """The spans from left to right, those that overlap an earlier one left out."""
    end = 0
    for start, stop in sorted(found):
        if start >= end:
            yield start, stop
            end = stop


def _addresses(text: str) -> Iterator[Span]:
    found = []
    for match in _IPV4.finditer(text):
        if all(int(part) < 256 for part in match.group().split(".")):
            found.append(match.span())
    for match in _IPV6.finditer(text):
        # "a::b" is an address by the letter of the rules and a piece of code by all experience.
        if len(match.group()) >= 6 and any(c.isdigit() for c in match.group()):
            try:
                ipaddress.IPv6Address(match.group())
            except ValueError:
                continue
            found.append(match.span())
    yield from _apart(found)


def _ibans(text: str) -> Iterator[Span]:
    end = 0
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTH.get(match.group()[:2].upper())
        if length is None or match.start() < end:
            continue
        taken, at = [], match.start()
        while at < len(text) and len(taken) < length:
            if text[at].isascii() and text[at].isalnum():
                taken.append(text[at].upper())
            elif text[at] not in " -" or text[at - 1] in " -":
                break
            at += 1
        follows = text[at : at + 1]
        whole = len(taken) == length and not (follows.isalnum() and follows.isascii())
        if whole and _mod97("".join(taken)) == 1:
            yield match.start(), at
            end = at


def _mod97(iban: str) -> int:
    """ISO 13616: the first four to the end, letters as 10 to 35, modulo 97; 1 is right."""
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97


def _cards(text: str) -> Iterator[Span]:
    for run in _DIGITS.finditer(text):
        groups = [m.span() for m in re.finditer(r"\d+", run.group())]
        first = 0
        while first < len(groups):
            for last in range(len(groups) - 1, first - 1, -1):
                start, stop = groups[first][0], groups[last][1]
                if is_card(re.sub(r"\D", "", run.group()[start:stop])):
                    yield run.start() + start, run.start() + stop
                    first = last
                    break
            first += 1


def is_card(digits: str) -> bool:
    """Whether digits have a card network's prefix and length and pass Luhn's checksum."""
    network = any(
        len(digits) in lengths and low <= digits[: len(low)] <= high
        for low, high, lengths in _CARDS
    )
    if not network:
        return False
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _phones(text: str) -> Iterator[Span]:
    for match in _PHONE.finditer(text):
        cued = bool(_CUE.search(text[max(0, match.start() - 40) : match.start()]))
        # Digits that only stand next to the number may have been taken in: give them back, group
        # by group, until what is left is a number.
        for group in reversed(list(re.finditer(r"\d+", match.group()))):
            number = match.group()[: group.end()]
            # A bracket belongs to the number only where its partner does.
            outside = number.startswith("(") and ")" not in number
            if _is_phone(number[outside:], cued):
                yield match.start() + outside, match.start() + group.end()
                break


def _is_phone(number: str, cued: bool) -> bool:
    """Whether digits with separators are a phone number; `cued`: a word like "call" is before."""
    count = sum(c.isdigit() for c in number)
    bare = number.lstrip("(")
    if bare.startswith(("+", "00")):
        return 8 <= count <= 15
    if _DATE.match(number):
        return False
    if bare.startswith("0"):
        return 9 <= count <= 12
    return bool(_NORTH_AMERICAN.fullmatch(number)) or (cued and 7 <= count <= 13)


# ---- in which order ---------------------------------------------------------------------------

_DIGIT = re.compile(r"\d")


def _at(text: str, digits: int) -> bool:
    return "@" in text


def _address(text: str, digits: int) -> bool:
    return "=" in text or "://" in text


def _dots(text: str, digits: int) -> bool:
    return (digits > 3 and text.count(".") > 2) or "::" in text or text.count(":") > 6


def _digits(least: int) -> Callable[[str, int], bool]:
    return lambda text, digits: digits >= least


# What is more specific first. The middle column is quick and spares most texts the third.
_FINDERS: tuple[tuple[Kind, Callable[[str, int], bool], Callable[[str], Iterator[Span]]], ...] = (
    (
        Kind.SECRET,
        lambda text, _: "=" in text or "://" in text,
        _all(_URL_USER, _QUERY_SECRET, _QUERY_TOKEN),
    ),
    (Kind.HANDLE, _at, _all(_FEDIVERSE)),
    (Kind.EMAIL, _at, _all(_EMAIL)),
    (Kind.IBAN, _digits(8), _ibans),
    (Kind.CARD, _digits(13), _cards),
    (Kind.IP, _dots, _addresses),
    (Kind.PHONE, _digits(7), _phones),
    (Kind.HANDLE, _at, _all(_HANDLE)),
)
