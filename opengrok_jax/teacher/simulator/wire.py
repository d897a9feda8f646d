"""The simulator's JSON: questions read, answers and lists written as endpoints write them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opengrok_jax.records import Message
from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.simulator import answers
from opengrok_jax.teacher.simulator.ledger import Bill

_PIECE = re.compile(r"\s*\S+|\s+$")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request as the simulator sees it.

    Attributes:
      key: SHA-256 of the body, in hex.
      number: the how-manieth request this is, from 1; `attempt`: the how-manieth of this key.
      headers: names in lower case.
    """

    key: str
    number: int
    attempt: int
    api: str
    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The chat."""
        turns = self.body["input" if self.api == "responses" else "messages"]
        return tuple(Message(role=t["role"], content=t["content"]) for t in turns)

    @property
    def max_tokens(self) -> int:
        """The most tokens of an answer."""
        name = "max_output_tokens" if self.api == "responses" else "max_tokens"
        return int(self.body.get(name) or 2**20)


@dataclass(frozen=True, kw_only=True)
class Made:
    """An answer with what it was counted as; `model` is the one named as having served."""

    text: str
    finish_reason: str
    model: str
    bill: Bill


def tokens(text: str) -> int:
    """How many tokens the simulator takes a text for."""
    return len(text.encode()) // 4 + 1


def made(question: Question, *, prices: Prices, seed: int, text: str | None = None) -> Made:
    """The simulated teacher's answer, cut at max_tokens; `text` takes its place."""
    messages = question.messages
    words, finish = text, "stop"
    if words is None:
        said = answers.answer(messages, seed=seed)
        words, finish = said.text, said.finish_reason
    if tokens(words) > question.max_tokens:
        cut = words.encode()[: 4 * question.max_tokens - 1]
        words, finish = cut.decode("utf-8", "ignore"), "length"
    prompt = sum(tokens(m.content) + 4 for m in messages)
    cached = prompt // 2 if question.attempt > 1 else 0
    count = tokens(words)
    bill = Bill(
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=count,
        ticks=prices.of(prompt, count, cached),
    )
    return Made(text=words, finish_reason=finish, model=str(question.body["model"]), bill=bill)


def encoded(
    question: Question, answer: Made, *, tells_cost: bool, tells_logprobs: bool, seed: int
) -> bytes:
    """The JSON of an answer, in the API of the question."""
    listed = _logprobs(question, answer.text, seed) if tells_logprobs else None
    write = _response if question.api == "responses" else _completion
    return json.dumps(write(question, answer, listed, tells_cost)).encode()


def _completion(question: Question, answer: Made, listed: Any, tells_cost: bool) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text, "refusal": None},
        "finish_reason": answer.finish_reason,
        "logprobs": None if listed is None else {"content": listed},
    }
    return {
        "id": f"chatcmpl-{question.key[:12]}-{question.attempt}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": answer.model,
        "choices": [choice],
        "usage": _usage(answer.bill, ("prompt_tokens", "completion_tokens"), tells_cost),
        "system_fingerprint": "fp_simulated",
    }


def _response(question: Question, answer: Made, listed: Any, tells_cost: bool) -> dict[str, Any]:
    part = {"type": "output_text", "text": answer.text, "annotations": []}
    cut = {"length": "max_output_tokens"}.get(answer.finish_reason, answer.finish_reason)
    stopped = answer.finish_reason == "stop"
    return {
        "id": f"resp_{question.key[:12]}_{question.attempt}",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": "completed" if stopped else "incomplete",
        "error": None,
        "incomplete_details": None if stopped else {"reason": cut},
        "model": answer.model,
        "output": [
            {
                "type": "message",
                "id": f"msg_{question.key[:12]}",
                "role": "assistant",
                "status": "completed",
                "content": [part if listed is None else part | {"logprobs": listed}],
            }
        ],
        "usage": _usage(answer.bill, ("input_tokens", "output_tokens"), tells_cost),
    }


def _usage(bill: Bill, names: tuple[str, str], tells_cost: bool) -> dict[str, Any]:
    sent, came = names
    told: dict[str, Any] = {
        sent: bill.prompt_tokens,
        came: bill.completion_tokens,
        "total_tokens": bill.prompt_tokens + bill.completion_tokens,
        f"{sent}_details": {"cached_tokens": bill.cached_tokens},
        f"{came}_details": {"reasoning_tokens": 0},
    }
    return told | ({"cost_in_usd_ticks": bill.ticks} if tells_cost else {})


def _logprobs(question: Question, text: str, seed: int) -> list[dict[str, Any]] | None:
    """Log-probabilities, where the question asks for them."""
    wish = question.body.get("logprobs") or "include" in question.body
    if not wish:
        return None
    others = int(question.body.get("top_logprobs") or 0)
    chance = random.Random(f"{seed}:{question.key}")
    listed = []
    for piece in _PIECE.findall(text):
        told = _entry(piece, -chance.random())
        top = [told] + [_entry(f" other{n}", -2.0 - n) for n in range(1, others)]
        listed.append(told | {"top_logprobs": top[:others]})
    return listed


def _entry(piece: str, logprob: float) -> dict[str, Any]:
    return {"token": piece, "logprob": logprob, "bytes": list(piece.encode())}


def models(names: Sequence[str]) -> dict[str, Any]:
    """GET /models."""
    listed = [{"id": n, "object": "model", "created": 1, "owned_by": "simulator"} for n in names]
    return {"object": "list", "data": listed}


def language_models(names: Sequence[str], prices: Prices) -> dict[str, Any]:
    """GET /language-models, xAI's list: its price of 1 is 1/10,000 USD for a million tokens."""
    unit = 10**6
    listed = [
        {
            "id": name,
            "aliases": [f"{name}-latest"],
            "prompt_text_token_price": prices.input // unit,
            "cached_prompt_text_token_price": prices.cached // unit,
            "completion_text_token_price": prices.output // unit,
        }
        for name in names
    ]
    return {"models": listed}
