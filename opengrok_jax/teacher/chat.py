"""The chat-completions API: POST /chat/completions."""

from __future__ import annotations

from typing import Any

from opengrok_jax.records import Prompt
from opengrok_jax.teacher import plain
from opengrok_jax.teacher.outcome import Answer, Asking, Kind, Outcome

PATH = "/chat/completions"


def body(prompt: Prompt, asking: Asking) -> dict[str, Any]:
    """What asks `prompt`."""
    made: dict[str, Any] = {
        "model": asking.model,
        "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "temperature": float(asking.temperature),
        "max_tokens": asking.max_tokens,
    }
    if asking.top_logprobs:
        made |= {"logprobs": True, "top_logprobs": asking.top_logprobs}
    return made


def read(told: dict[str, Any]) -> Outcome | None:
    """What a reply with "choices" means; None where it holds no answer."""
    try:
        choice = told["choices"][0]
        message = choice["message"]
        content, refusal = _content(message["content"]), plain.text(message.get("refusal"))
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
    said = plain.spoken(content)
    usage = plain.usage(told.get("usage"), "prompt_tokens", "completion_tokens")
    finish = plain.text(choice.get("finish_reason")) or "unknown"
    if finish == "content_filter":
        return Outcome(kind=Kind.BLOCKED, reason="content filter", detail=said[:300], usage=usage)
    listed = choice.get("logprobs")
    listed = listed.get("content") if isinstance(listed, dict) else None
    tokens, top = plain.logprobs(listed, said)
    answer = Answer(
        text=said or refusal,
        finish_reason=finish,
        model=plain.text(told.get("model")),
        usage=usage,
        fingerprint=plain.text(told.get("system_fingerprint")),
        reasoned=said != content,
        logprobs_told=isinstance(listed, list),
        tokens=tokens,
        top=top,
    )
    return Outcome(kind=Kind.OK, answer=answer)


def _content(told: Any) -> str:
    """Content as text: a string, nothing (null), or a list of parts."""
    if told is None:
        return ""
    if isinstance(told, list):
        return "".join(plain.text(part["text"]) for part in told if part.get("type") == "text")
    if not isinstance(told, str):
        raise TypeError(f"content is {type(told).__name__}")
    return plain.text(told)
