"""Prompts answered by the simulated teacher without a wire, for tests of the refinement."""

from collections.abc import Iterable

from opengrok_jax.prompts import plan
from opengrok_jax.prompts.genome import Repertoire
from opengrok_jax.records import Prompt, Response
from opengrok_jax.teacher import simulated


def planned(count: int, seed: int = 0) -> list[Prompt]:
    return plan.plan(Repertoire.load().axes, count, seed)


def response(prompt: Prompt, seed: int = 0) -> Response:
    answered = simulated.answer(prompt.messages, seed=seed)
    words = sum(len(m.content.split()) for m in prompt.messages)
    return Response(
        prompt_id=prompt.id,
        request_key=f"key-{prompt.id}",
        text=answered.text,
        finish_reason=answered.finish_reason,
        model_asked="m",
        model_served="m",
        source="api",
        endpoint="http://127.0.0.1/v1",
        rights="own",
        prompt_tokens=words,
        completion_tokens=1 + len(answered.text.split()),
    )


def answers(prompts: Iterable[Prompt], seed: int = 0) -> dict[str, Response]:
    return {prompt.id: response(prompt, seed) for prompt in prompts}
