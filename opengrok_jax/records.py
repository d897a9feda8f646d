"""What the rooms hand to each other, in the order in which it comes to be.

    Prompt          prompts/  -> teacher/      what is asked, and from which cell of the axes
    Response        teacher/  -> curation/     what came back, verbatim
    Logprobs        teacher/  -> masking/      how likely each of its tokens was, where it told
    Verdict         curation/                  keep, or the reason why not; scores and findings
    Decision        curation/                  what a person said of it
    Example         curation/ -> masking/      a prompt with an answer worth learning
    MaskedExample   masking/  -> training/     the same as tokens, with the factors of its mask
    Score           evaluation/ -> report      one number with its interval

On disk each is one JSON object a line (`MaskedExample`: one Arrow row), fields as below.
`to_json` and `from_json` convert; unknown or missing fields are a `DataError`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from opengrok_jax.errors import DataError

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "valid"]
Choice = Literal["accept", "reject", "edit", "skip", "undo"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A point on the axes of the plan; "" where an axis does not apply."""

    intent: str
    topic: str = ""
    event: str = ""
    platform: str = ""
    style: str = ""
    hardness: str = ""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A question to the teacher.

    Attributes:
      id: `prompt_id(messages)`, 16 hex digits: the same words have the same id in every run.
      messages: the chat, ending with a user turn.
      cell: where the prompt lies on the axes.
      template: name of the template that wrote it.
      posts: the posts quoted in it, verbatim.
      label: the gold label, for prompts made of labelled posts; "" elsewhere.
      techniques: names of the demands put on the template, in order.
    """

    id: str
    messages: tuple[Message, ...]
    cell: Cell
    template: str
    posts: tuple[str, ...] = ()
    label: str = ""
    techniques: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Response:
    """A teacher's answer to one prompt, verbatim but for reasoning in tags before it.

    Attributes:
      request_key: SHA-256 of the request body exactly as sent.
      finish_reason: "stop" where the teacher ended by itself, "length" where it was cut.
      model_asked, model_served: what was named in the request and in the answer.
      source: what kind of teacher this was: "recorded", "labelled" or "api".
      endpoint: base address of the endpoint, without credentials.
      rights: what the user declared about training on these answers.
      prompt_tokens, completion_tokens: as the endpoint counted them (0: not told).
      cost_ticks: what it cost, in units of 1e-10 USD; -1 where neither endpoint nor price told.
      received_at: when an endpoint's reply was there, in Unix seconds (0.0: not noted).
      temperature, max_tokens: as asked for (-1.0 and 0: not noted).
      fingerprint: the endpoint's own name for the system that served ("": not told).
      has_logprobs: whether usable log-probabilities came with it; they are `Logprobs` then.
    """

    prompt_id: str
    request_key: str
    text: str
    finish_reason: str
    model_asked: str
    model_served: str
    source: str
    endpoint: str
    rights: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_ticks: int = -1
    received_at: float = 0.0
    temperature: float = -1.0
    max_tokens: int = 0
    fingerprint: str = ""
    has_logprobs: bool = False


@dataclass(frozen=True, kw_only=True)
class Likely:
    """A token of the teacher's own vocabulary.

    Attributes:
      bytes: in hex, since a token may end inside a character.
      logprob: natural logarithm of its probability.
    """

    bytes: str
    logprob: float


@dataclass(frozen=True, kw_only=True)
class Logprobs:
    """What a teacher told of its own certainty.

    Attributes:
      prompt_id, text: as in `Response`.
      tokens: the tokens of the text, in order.
      top: for each of them the most likely ones at its place.
    """

    prompt_id: str
    text: str
    tokens: tuple[Likely, ...]
    top: tuple[tuple[Likely, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A fault, or the doubt of one, that a check found in an answer.

    Attributes:
      check: name of the check.
      reason: the fault, as a slug ("too_short").
      score: in the check's own unit, see its docstring; larger is worse.
      certain: True rejects the answer; False only asks a person to look at it.
      detail: the evidence, for the reader.
    """

    check: str
    reason: str
    score: float
    certain: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What curation says of one answer: a row of verdicts.jsonl, one for every answer, in order.

    Attributes:
      prompt_id: as in `Response`.
      body_sha: `body_sha(response)`; a decision on another text is stale.
      keep: whether the answer is among the kept ones, people's decisions applied.
      reason, check, detail: of the first certain finding; "" where it is kept. A person's
        rejection has the reason "human".
      decided_by: "human" where a person's decision was applied.
      flagged: rules reject it (a finding is certain) for faults that a person may overrule.
      uncertain: no rule rejects it, yet there is a finding.
      findings: all of them, in the order of the checks.
      scores: check -> score, for every check that looked at the answer.
      masked: kind -> number of personal data replaced in messages and response.
      rules: hash of the rules that judged; another one after any change of them.
      messages, posts, label, response: as the student would see them, personal data replaced, and
        before any edit.
      cell: as in `Prompt`.
    """

    prompt_id: str
    body_sha: str
    keep: bool
    reason: str = ""
    check: str = ""
    detail: str = ""
    decided_by: Literal["rules", "human"] = "rules"
    flagged: bool = False
    uncertain: bool = False
    findings: tuple[Finding, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)
    rules: str
    messages: tuple[Message, ...]
    posts: tuple[str, ...] = ()
    label: str = ""
    response: str
    cell: Cell


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a reviewer said of one answer; a line of review/decisions.jsonl, which only grows.

    Attributes:
      prompt_id: as in `Response`.
      body_sha: `body_sha` of the answer as it was shown; a decision on another text is stale.
      reviewer: the name the reviewer gave.
      decision: "edit" accepts the answer as `edited`; "skip" leaves it open; "undo" takes back
        this reviewer's decision on the same look.
      reason: why it was rejected, as a slug ("harmful"); "" elsewhere.
      note: the reviewer's own words on it.
      edited: the answer as it should be; "" unless edited.
      at: when, ISO 8601 in UTC.
      seconds: how long it was looked at.
      look: 2 where the same answer was shown again, to see whether the reviewer agrees.
    """

    prompt_id: str
    body_sha: str
    reviewer: str
    decision: Choice
    reason: str = ""
    note: str = ""
    edited: str = ""
    at: str
    seconds: float = 0.0
    look: int = 1


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an example comes from: with it every row can be traced and its rights shown.

    Attributes:
      request_key, endpoint, model_asked, fingerprint, temperature, max_tokens, cost_ticks,
        received_at, prompt_tokens, completion_tokens: as in `Response`.
      template, techniques: as in `Prompt`.
      rules: hash of the curation's rules.
      decided_by: "human" where a person accepted or edited it.
      reviewer: that person; "" elsewhere.
      original: the teacher's answer, personal data replaced, where a person edited it, else "".
      synthetic: whether a machine wrote the answer.
    """

    request_key: str = ""
    endpoint: str = ""
    model_asked: str = ""
    fingerprint: str = ""
    temperature: float = -1.0
    max_tokens: int = 0
    cost_ticks: int = -1
    received_at: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    template: str = ""
    techniques: tuple[str, ...] = ()
    rules: str = ""
    decided_by: Literal["rules", "human"] = "rules"
    reviewer: str = ""
    original: str = ""
    synthetic: bool = True


@dataclass(frozen=True, kw_only=True)
class Example:
    """A prompt and the answer the student shall learn.

    Attributes:
      id: the prompt's id.
      messages: the prompt, personal data replaced by typed placeholders.
      response: the answer, likewise.
      split: "valid" examples steer early stopping and are never trained on.
      posts, label, cell: as in `Prompt`.
      source, model_served, rights: as in `Response`.
      provenance: the rest of what is known of its making.
    """

    id: str
    messages: tuple[Message, ...]
    response: str
    split: Split
    cell: Cell
    posts: tuple[str, ...] = ()
    label: str = ""
    source: str
    model_served: str
    rights: str
    provenance: Provenance = Provenance()


@dataclass(frozen=True, kw_only=True)
class MaskedExample:
    """An example as tokens; every array has T entries, one per token.

    Attributes:
      id, split: as in `Example`.
      tokens: int32, ids of the tokenizer.
      roles: int8, 0 template and special tokens, 1 prompt, 2 response (see `tokenizer.ROLES`).
      tfidf, pos, dep, random: float32 in [0,1], the four factors.
      keep_prob: float32 in [0,1], P(token stays visible).
      key_mask: bool, True = may be attended to; drawn from keep_prob.
    """

    id: str
    split: Split
    tokens: np.ndarray = field(repr=False)
    roles: np.ndarray = field(repr=False)
    tfidf: np.ndarray = field(repr=False)
    pos: np.ndarray = field(repr=False)
    dep: np.ndarray = field(repr=False)
    random: np.ndarray = field(repr=False)
    keep_prob: np.ndarray = field(repr=False)
    key_mask: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of the evaluation.

    Attributes:
      task, metric: e.g. "sentiment", "macro_recall".
      predictor: "student (likelihood)", "majority", "tf-idf + logistic regression" ...
      value, low, high: the metric and its 95 % bootstrap interval, each in [0,1].
      rows: how many posts were scored.
      unparsable: share of answers that were no valid label, in [0,1].
    """

    task: str
    metric: str
    predictor: str
    value: float
    low: float
    high: float
    rows: int
    unparsable: float = 0.0


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that is hashed: keys sorted, no spaces, real characters."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def prompt_id(messages: tuple[Message, ...]) -> str:
    """First 16 hex digits of the SHA-256 of the canonical messages."""
    body = canonical_json([{"role": m.role, "content": m.content} for m in messages])
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def body_sha(text: str) -> str:
    """SHA-256 of an answer's text, in hex; a lone surrogate counts as its three bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


R = TypeVar("R")


def to_json(record: Any) -> dict[str, Any]:
    """A record as plain dicts, lists, strings and numbers."""
    return {name: _plain(getattr(record, name)) for name in _shape(type(record))[1]}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return dict(value) if isinstance(value, dict) else value


def from_json(kind: type[R], row: dict[str, Any]) -> R:
    """A record of `kind` from what `to_json` made, types checked field by field.

    Raises:
      DataError: a field is unknown, missing, or of another type.
    """
    if not isinstance(row, dict):
        raise DataError(f"a {kind.__name__} must be a JSON object, got {type(row).__name__}")
    readers, fields, needed = _shape(kind)
    if unknown := sorted(set(row) - set(fields)):
        raise DataError(
            f"a {kind.__name__} has no field {', '.join(unknown)}; it has {', '.join(fields)}"
        )
    if missing := [n for n in needed if n not in row]:
        raise DataError(f"a {kind.__name__} lacks {', '.join(missing)}")
    return kind(**{name: readers[name](value) for name, value in row.items()})


Reader = Callable[[Any], Any]


@functools.cache
def _shape(kind: type) -> tuple[dict[str, Reader], tuple[str, ...], tuple[str, ...]]:
    """What reads each field of a record, the fields' names, and which of them have no default."""
    fields = dataclasses.fields(typing.cast(Any, kind))
    needed = tuple(
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    hints = typing.get_type_hints(kind)
    names = tuple(f.name for f in fields)
    return {n: _reader(hints[n], f"{kind.__name__}.{n}") for n in names}, names, needed


def _reader(hint: Any, where: str) -> Reader:
    """What makes a value of type `hint` of a JSON value; raises a DataError that says `where`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return functools.partial(from_json, typing.cast(Any, hint))
    if origin is types.UnionType:
        return lambda value: value
    if origin is tuple:
        part = _reader(args[0], where)

        def read_list(value: Any) -> Any:
            if not isinstance(value, (list, tuple)):
                raise DataError(f"{where} must be a list, got {value!r}")
            return tuple([part(v) for v in value])

        return read_list
    if origin is dict:
        part = _reader(args[1], where)

        def read_dict(value: Any) -> Any:
            if not isinstance(value, dict):
                raise DataError(f"{where} must be an object, got {value!r}")
            return {key: part(v) for key, v in value.items()}

        return read_dict
    if origin is Literal:

        def read_choice(value: Any) -> Any:
            if value not in args:
                raise DataError(
                    f"{where} must be one of {', '.join(map(str, args))}, got {value!r}"
                )
            return value

        return read_choice

    def read_plain(value: Any) -> Any:
        if type(value) is hint:
            return value
        if hint is float and type(value) is int:
            return float(value)
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise DataError(f"{where} must be {hint.__name__}, got {value!r}")
        return value

    return read_plain
