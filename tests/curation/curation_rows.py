"""Small prompts and answers for the tests of this room."""

from __future__ import annotations

from opengrok_jax.records import Cell, Message, Prompt, Response, prompt_id


def prompt(text: str = "What is the mood?", intent: str = "trend_summary", **more) -> Prompt:
    messages = (Message(role="user", content=text),)
    return Prompt(
        id=prompt_id(messages), messages=messages, cell=Cell(intent=intent), template="t", **more
    )


def response(text: str, to: Prompt | None = None, **more) -> Response:
    fields = {
        "prompt_id": (to or prompt()).id,
        "request_key": "k",
        "text": text,
        "finish_reason": "stop",
        "model_asked": "m",
        "model_served": "m-1",
        "source": "recorded",
        "endpoint": "http://recorded.invalid/v1",
        "rights": "ours",
    }
    return Response(**{**fields, **more})
