"""The responses API: POST /responses."""

from __future__ import annotations

from typing import Any

from opengrok_jax.records import Prompt
from opengrok_jax.teacher import plain
from opengrok_jax.teacher.outcome import Answer, Asking, Kind, Outcome

PATH = "/responses"


def body(prompt: Prompt, asking: Asking) -> dict[str, Any]:
    """What asks `prompt`; the endpoint is told to keep nothing."""
    made: dict[str, Any] = {
        "model": asking.model,
        "input": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "temperature": float(asking.temperature),
        "max_output_tokens": asking.max_tokens,
        "store": False,
    }
    if asking.top_logprobs:
        wish = ["message.output_text.logprobs"]
        made |= {"include": wish, "top_logprobs": asking.top_logprobs}
    return made


def read(told: dict[str, Any]) -> Outcome | None:
    """What a reply with "output" means; None where it holds no answer."""
    usage = plain.usage(told.get("usage"), "input_tokens", "output_tokens")
    status = plain.text(told.get("status")) or "completed"
    why = plain.text(plain.section(told, "incomplete_details").get("reason"))
    try:
        parts = [
            part
            for item in told["output"]
            if item.get("type") == "message"
            for part in item["content"]
        ]
        content = "".join(plain.text(p["text"]) for p in parts if p["type"] == "output_text")
        refusal = "".join(plain.text(p["refusal"]) for p in parts if p["type"] == "refusal")
    except (TypeError, KeyError, AttributeError):
        return None
    said = plain.spoken(content)
    if why == "content_filter":
        return Outcome(kind=Kind.BLOCKED, reason="content filter", detail=said[:300], usage=usage)
    if status not in ("completed", "incomplete") or (status == "completed" and not parts):
        return None
    lists = [p.get("logprobs") for p in parts if p["type"] == "output_text"]
    told_any = any(isinstance(one, list) and one for one in lists)
    tokens, top = plain.logprobs([e for one in lists for e in one] if told_any else None, said)
    answer = Answer(
        text=said or refusal,
        finish_reason="stop" if status == "completed" else "length",
        model=plain.text(told.get("model")),
        usage=usage,
        fingerprint=plain.text(told.get("system_fingerprint")),
        reasoned=said != content,
        logprobs_told=told_any,
        tokens=tokens,
        top=top,
    )
    return Outcome(kind=Kind.OK, answer=answer)
