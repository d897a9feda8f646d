"""The words of an exchange: a question as sent, a reply as received, and what it means."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from opengrok_jax.records import Likely


class Kind(enum.StrEnum):
    """What came of one request, and with it what happens next."""

    OK = "ok"  # an answer: kept
    RATE_LIMITED = "rate_limited"  # too fast: everybody waits, then again
    OVERLOADED = "overloaded"  # the endpoint has too much to do: the same
    TRANSIENT = "transient"  # a hiccup of server or network: again after a while
    UNANSWERABLE = "unanswerable"  # this prompt gets no answer (too long, no recording), others may
    BLOCKED = "blocked"  # the endpoint's content policy: never asked again
    OUT_OF_MONEY = "out_of_money"  # sending stops
    WRONG_MODEL = "wrong_model"  # another model answered than was asked for: sending stops
    RETIRED = "retired"  # the model or the address is no longer there: sending stops
    FATAL = "fatal"  # key, model, address or argument is wrong: sending stops


STOPPING = frozenset({Kind.OUT_OF_MONEY, Kind.WRONG_MODEL, Kind.RETIRED, Kind.FATAL})


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How every prompt of a plan is asked.

    Attributes:
      api: "chat" (POST /chat/completions) or "responses" (POST /responses).
      model: as the endpoint names it.
      temperature, max_tokens: as the endpoint understands them.
      top_logprobs: alternatives to tell of each token; 0 asks for none.
      extra_body: JSON of the endpoint's own fields, put into each body; null takes one out.
    """

    api: str
    model: str
    temperature: float
    max_tokens: int
    top_logprobs: int = 0
    extra_body: str = "{}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A question as it goes over the wire; `key` is the SHA-256 of `body`, in hex."""

    key: str
    prompt_id: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back, verbatim but for the API key, which is cut out wherever it is echoed.

    Attributes:
      status: HTTP status; 0 when no whole reply arrived.
      body: the reply's bytes.
      headers: those worth keeping, names in lower case.
      error: what went wrong on the way; "" when a whole reply arrived.
      received_at: Unix time, in seconds.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    received_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the endpoint counted; 0 where it told nothing.

    Attributes:
      prompt_tokens, completion_tokens: as told.
      cached_tokens: those of the prompt that were cheaper.
      billed_tokens: all tokens of the output; some endpoints count the reasoning apart.
      cost_ticks: the cost in units of 1e-10 USD, where the endpoint tells it; else -1.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    billed_tokens: int = 0
    cost_ticks: int = -1

    @property
    def told(self) -> bool:
        """Whether tokens were counted at all."""
        return self.prompt_tokens + self.billed_tokens > 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the teacher said.

    Attributes:
      text: without the reasoning that some write before it.
      model: the one that served; "" where not told.
      fingerprint: the endpoint's name for the system that served; "" where not told.
      reasoned: whether the text came after reasoning.
      logprobs_told: whether log-probabilities came, usable or not.
      tokens, top: as in `records.Logprobs`, empty where nothing usable came.
    """

    text: str
    finish_reason: str
    model: str
    usage: Usage = Usage()
    fingerprint: str = ""
    reasoned: bool = False
    logprobs_told: bool = False
    tokens: tuple[Likely, ...] = field(default=(), repr=False)
    top: tuple[tuple[Likely, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A reply, understood.

    Attributes:
      reason: the fault in a few words that are the same for the same fault ("HTTP 500").
      detail: the endpoint's own words.
      wait_sec: how long the endpoint asks to wait; None where it says nothing.
      answer: there if and only if kind is OK or WRONG_MODEL.
      usage: what a reply without an answer was counted as, where that was told.
    """

    kind: Kind
    reason: str = ""
    detail: str = ""
    wait_sec: float | None = None
    answer: Answer | None = None
    usage: Usage = Usage()
