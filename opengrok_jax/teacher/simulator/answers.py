"""The simulated teacher's words: an answer made of the question, the same for the same seed.

No model: rules with chance, so that a run needs no network and its answers still depend on how one
asks. What it does is meant to be like what chat models do with such questions:

    the question                               the answer
    ------------------------------------------ --------------------------------------------------
    names little (no posts, no names)          one of a few stock answers, with chance; they recur
    quotes posts or names an event             sentences around words of the posts or the event
    asks for many things at once               some are forgotten; a long chain is cut at the limit
    "at most N words", bullets, a question ... obeyed five times in six
    offers labels ("anger, joy or sadness")    one of them, led by a few cue words, else by chance
    asks to have been there, to be somebody    now and then it declines, being a machine
    asks to rewrite without a tone or format   now and then the post comes back as it was
    anything                                   one in fifty is empty, off the point or too short

Each teacher (seed) has its moods: of the sentences in which demands are put, one in twelve makes
it decline two times in five, and one in six it does not heed. Which ones follows from a hash of
seed and sentence, so nobody can know but by asking. Nothing here looks at how answers are judged.

It understands little English; its answers are no data to learn a language from.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from opengrok_jax.records import Message, canonical_json

LIMIT_WORDS = 130  # where an answer to too long a chain of demands is cut
CUT_FROM = 8.0  # demands at which half of the answers run into the limit
DECLINES, IGNORED = 1 / 12, 1 / 4  # shares of sentences: the second includes the first
OBEYS, SLIPS = 5 / 6, 1 / 50

_STOCK = (
    "People have mixed feelings about this. Some are happy, others are not, and many are waiting"
    " to see what happens next.",
    "There is a lot of discussion online at the moment. Opinions differ widely, and the topic keeps"
    " drawing attention.",
    "It is a popular subject right now. Users share jokes, complaints and personal stories about"
    " it every day.",
    "The overall mood is mixed. While some users are excited, a good number of them remain"
    " sceptical.",
    "Many people are talking about this. The conversation covers both the positive and the"
    " negative sides of it.",
)
_REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "I'm sorry, I cannot write that for you.",
    "As an AI, I have no experience of my own to speak from here.",
    "I'm unable to provide that, as it may not be appropriate.",
)
_SLIPS = ("", "Sure!", "Ok.", "Here is a pasta recipe: boil water, add salt, wait nine minutes.")
_OPENINGS = (
    "Mostly it is about {a}.", "The loudest point is {a}.", "It began with {a}.",
    "Nobody agrees on {a}.", "What stands out is {a}.", "Start with {a}, since everyone does.",
    "{a} comes first in every thread.", "You can feel it in {a}.", "All eyes are on {a}.",
    "If one thing travels, it is {a}.", "Take {a} as the short version.", "At heart lies {a}.",
)  # fmt: skip
_MIDDLES = (
    "Others bring up {b}, which changes the picture.", "Then there is {b}, told with a shrug.",
    "A few hold {b} against it.", "{b} is what keeps it going.", "Some would rather hear of {b}.",
    "The quieter voices mention {b} and leave it there.", "Against that stands {b}.",
    "One person puts {b} in the middle of it all.", "For every cheer there is {b}.",
    "It would read differently without {b}.", "Fewer people notice {b}, though they should.",
    "Somebody always answers with {b}.", "{b} gets the laughs.", "Read {b} twice before you reply.",
)  # fmt: skip
_CLOSINGS = (
    "In the end it comes down to {c}.", "What is left open is {c}.", "And so far {c} wins.",
    "Expect more on {c} tomorrow.", "I would keep an eye on {c}.", "That is why {c} matters here.",
    "Without {c} it would be over by now.", "And {c} is hardly ever mentioned.",
    "Hard to say what {c} will bring.", "By evening {c} will be all that people recall.",
)  # fmt: skip
_CONTRAST = ("Two accounts clash: {a} on one side, {b} on the other.",
             "Both cannot hold, {a} and {b}; the first is nearer to the source.",
             "They part ways over {a}; only {b} is common ground.")  # fmt: skip
_STEPS = ("First, look at {a}. Second, set {b} beside it. So the likelier reading is {c}.",
          "Step one is {a}. Step two is {b}. From both follows {c}.")  # fmt: skip
_IRONY = ("Taken at its word it praises {a}; meant is the opposite, as {b} shows.",
          "It could be a joke about {a} or meant in earnest, since {b} fits both.")  # fmt: skip
_VOICES = {
    "casual": ("Honestly,", "lol"), "formal": ("To summarise,", "Further reports are awaited."),
    "sarcastic": ("Oh wonderful,", "What could go wrong."), "enthusiastic": ("Wow,", "I love it!"),
    "deadpan": ("Well.", "Anyway."), "empathetic": ("I feel for them:", "Be kind."),
    "indignant": ("This is absurd:", "Enough."), "explanatory": ("In short,", "That is all of it."),
}  # fmt: skip
_CUES = {
    "positive": "love great happy wow best win won finally 😍 🎉",
    "negative": "hate worst sorry broken late refund dead 😤 😭",
    "joy": "love happy wow best 😍 🎉 won",
    "anger": "hate worst ridiculous 😤 angry",
    "sadness": "miss sad cry cried 😭 lost gone",
    "optimism": "hope soon tomorrow better will next",
}

_QUOTED = re.compile(r"^(?:\d+\.\s*(?:\[[^\]]*\])?|Post:|>)\s*(?P<text>.+)$")
_SENTENCE = re.compile(r"(?<=[.!?:])\s+")
_ENDS = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[#@]?\w+(?:['’&-]\w+)*")
_NAME = re.compile(r"(?<=[\w,'’] )[A-Z][\w'’&+]*|\b\d[\d.,%]*")
_OPTIONS = re.compile(r"((?:\w+, )+\w+,? (?:or|and) \w+)")
_CHOICE = re.compile(r"one word|label|strongest|start with|answer with", re.I)
_LONG = 6  # letters of a word that carries something
_BEING = re.compile(
    r"\byou (?:were there|are (?:an? |the )?\w+)|\b(?:as|like) (?:someone|somebody|an? \w+) who\b|"
    r"\bfirst person\b", re.I,
)  # fmt: skip
_REWRITE = re.compile(r"^(?:rewrite|rework|cut|write this post out|rephrase)\b", re.I)
_MOST_WORDS = re.compile(r"at most (\w+) words", re.I)
_BULLETS = re.compile(r"\b(two|three|four|five|\d) (?:\w+ )?bullet", re.I)
_NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "ten": 10, "twelve": 12, "fifteen": 15,
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a simulated teacher says; `finish_reason` as in `records.Response`."""

    text: str
    finish_reason: str = "stop"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the teacher makes of the words it is asked.

    Attributes:
      demands: the sentences outside the posts, in order.
      posts: the quoted posts.
      spans: pieces of two to four words to talk about, out of the posts, else out of the demands.
      names: names and numbers in demands and posts: how much there is to go by.
    """

    demands: tuple[str, ...]
    posts: tuple[str, ...]
    spans: tuple[str, ...]
    names: int


def answer(messages: Sequence[Message], *, seed: int) -> Answered:
    """The answer to the last user turn; a system turn counts as further demands."""
    asked = canonical_json([[m.role, m.content] for m in messages])
    chance = random.Random(hashlib.sha256(f"{seed}:{asked}".encode()).digest())
    system = " ".join(m.content for m in messages[:-1] if m.role == "system")
    question = understand(messages[-1].content, system)
    if chance.random() < SLIPS:
        return Answered(text=chance.choice(_SLIPS))
    if _declines(question, seed, chance):
        return Answered(text=chance.choice(_REFUSALS))
    heeded = [d for d in question.demands if mood(seed, d) >= IGNORED]
    # With every demand more it becomes likelier that one is forgotten.
    if len(heeded) > 4:
        heeded = [d for d in heeded if chance.random() < 4.5 / len(heeded)]
    wanted = " ".join(heeded)
    if label := _label(question, wanted, chance):
        return Answered(text=label)
    rewriting = bool(_REWRITE.match(question.demands[0])) if question.demands else False
    plain = not (_MOST_WORDS.search(wanted) or any(v in wanted.lower() for v in _VOICES))
    if rewriting and plain and question.posts and chance.random() < 0.4:
        return Answered(text=question.posts[0])
    if chance.random() < 1 / (1 + question.names / 2):
        return Answered(text=chance.choice(_STOCK))
    over = 1 / (1 + math.exp(CUT_FROM - len(question.demands)))
    if chance.random() < over:
        words = " ".join(_prose(question, "", chance) for _ in range(12)).split()
        return Answered(text=" ".join(words[:LIMIT_WORDS]), finish_reason="length")
    return Answered(text=_formed(_prose(question, wanted, chance), wanted, question, chance))


def mood(seed: int, sentence: str) -> float:
    """In [0,1): below `DECLINES` the sentence may be declined, below `IGNORED` it is not heeded.

    Names, numbers and case are left out, so that one wording is met by one mood.
    """
    bare = " ".join(_WORD.findall(_NAME.sub("", sentence).lower()))
    digest = hashlib.sha256(f"mood:{seed}:{bare}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def understand(text: str, system: str = "") -> Question:
    """Tells demands from quoted posts.

    A numbered line, a line after "Post:" or ">" is a post; without any, so is the second paragraph.
    """
    posts, rest = [], []
    for line in text.splitlines():
        match = _QUOTED.match(line.strip())
        (posts if match else rest).append(match["text"] if match else line)
    if not posts:
        paragraphs = [p for p in re.split(r"\n\s*\n", text) if p.strip()]
        if len(paragraphs) > 1:
            posts, rest = [paragraphs[1]], [paragraphs[0], *paragraphs[2:]]
    demands = [s.strip() for s in _SENTENCE.split(" ".join([system, *rest])) if s.strip()]
    spans = [span for post in posts for span in _spans(post)]
    if not spans:
        spans = [span for demand in demands for span in _spans(_after_about(demand))]
    named = {n for part in (*demands, *posts) for n in _NAME.findall(part)}
    return Question(
        demands=tuple(demands),
        posts=tuple(posts),
        spans=tuple(dict.fromkeys(spans)) or ("it",),
        names=len(named),
    )


def _after_about(demand: str) -> str:
    """What a demand is about, where it says so."""
    for cue in (" about ", " around ", " over ", " for ", " on "):
        if cue in demand:
            return demand.split(cue, 1)[1]
    return demand


def _spans(text: str) -> list[str]:
    """Runs of two to four words that begin with or hold a word that carries something."""
    words = _WORD.findall(text)
    found = []
    for at, word in enumerate(words):
        if len(word) >= _LONG or word[0].isupper() or word[0].isdigit():
            length = 2 + (len(word) + at) % 3
            found.append(" ".join(words[at : at + length]))
    return found


def _declines(question: Question, seed: int, chance: random.Random) -> bool:
    if any(mood(seed, d) < DECLINES for d in question.demands) and chance.random() < 0.4:
        return True
    return bool(_BEING.search(" ".join(question.demands))) and chance.random() < 0.08


def _label(question: Question, wanted: str, chance: random.Random) -> str:
    """A label, where the demands offer some and ask for one; "" elsewhere."""
    asked = " ".join(question.demands)
    options = _OPTIONS.search(asked)
    if "type: name" in asked:
        names = dict.fromkeys(n for p in question.posts for n in _NAME.findall(p) if n[0].isalpha())
        kinds = ("person", "location", "group", "product", "work")
        return "\n".join(f"{chance.choice(kinds)}: {n}" for n in names) or "none"
    if not options or not _CHOICE.search(asked):
        return ""
    labels: list[str] = re.findall(r"\w+", re.sub(r"\b(?:or|and)\b", "", options.group(1)))
    said = " ".join(question.posts).lower()
    points = []
    for label in labels:
        cues: str = _CUES.get(label, label)
        points.append(sum(cue in said for cue in cues.split()) + chance.random())
    best = labels[points.index(max(points))]
    if "one word" in wanted.lower() or not wanted:
        return best
    return f"{best.capitalize()}. {_prose(question, wanted, chance)}"


def _prose(question: Question, wanted: str, chance: random.Random) -> str:
    """Sentences around three or four pieces of the question."""
    spans = list(question.spans)
    picked = chance.sample(spans, min(len(spans), 4))
    a, b, c, d = (picked * 4)[:4]
    frames = [chance.choice(_OPENINGS), chance.choice(_MIDDLES), chance.choice(_CLOSINGS)]
    for cue, special in (
        (r"disagree|conflict|contradict|clash|opposite|not agree", _CONTRAST),
        (r"\bsteps?\b|reason|work out|first.*then", _STEPS),
        (r"sarcas|ironic|irony|mean what", _IRONY),
    ):
        if re.search(cue, wanted, re.I):
            frames[1] = chance.choice(special)
    if chance.random() < 0.4:
        frames.insert(2, chance.choice(_MIDDLES).replace("{b}", "{d}"))
    text = " ".join(f.format(a=a, b=b, c=c, d=d) for f in frames)
    for voice, (before, after) in _VOICES.items():
        if voice in wanted.lower():
            text = f"{before} {text} {after}"
    if who := re.search(r"\bas (an? [a-z]+(?: [a-z]+)?)\b", wanted):
        text = f"Speaking as {who[1]}, I would say this. {text}"
    return text[0].upper() + text[1:]


def _formed(text: str, wanted: str, question: Question, chance: random.Random) -> str:
    """The text in the form that the demands ask for, each of them with chance `OBEYS`."""

    def obeyed(pattern: str | re.Pattern[str]) -> re.Match[str] | None:
        match = re.search(pattern, wanted, re.I if isinstance(pattern, str) else 0)
        return match if match and chance.random() < OBEYS else None

    sentences = _ENDS.split(text)
    if obeyed(r"\bone sentence\b|single sentence"):
        text = "; ".join(s.rstrip(".!?") for s in sentences[:2]) + "."
    if bullets := obeyed(_BULLETS):
        word = bullets[1].lower()
        count = _NUMBERS.get(word) or int(word)
        more = _prose(question, wanted, chance)
        lines = (sentences + _ENDS.split(more))[:count]
        text = "\n".join(f"- {line}" for line in lines)
    if limit := obeyed(_MOST_WORDS):
        word = limit[1].lower()
        most = _NUMBERS.get(word, int(word) if word.isdigit() else 40)
        text = " ".join(text.split(" ")[:most])
    if obeyed(r"hashtag"):
        word = max(_WORD.findall(question.spans[0]), key=len).lstrip("#@").replace("'", "")
        text = f"{text} #{word}"
    if obeyed(r"(?:end|close|finish) (?:on|with) an? (?:open )?question"):
        text = f"{text} Or is it about {chance.choice(question.spans)}?"
    return text
