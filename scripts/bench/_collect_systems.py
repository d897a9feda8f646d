"""The systems that collect.py compares: `collect` and its peers; every one runs in its own process.

A system gets the flags (requests, latency, concurrency, url, folder) and answers what it took. Of
the peers none keeps a journal. `bare` does not either: our connections with nothing behind them,
what a client of this kind can reach at most beside its server on the same cores.
"""

# pyright: reportMissingImports=false
# The peers are installed by whoever measures.
from __future__ import annotations

import argparse
import asyncio
import functools
import json
import re
import resource
import time
from pathlib import Path
from typing import Any

MODEL = "tiny-teacher"
WORDS = "Summarise in one line what people say about the rail strike in Aldermoor, part {}."


def peak_mb() -> float:
    """Most memory of this process; the kernel's other count begins with that of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found.group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spent(start: float, processor: float) -> dict[str, Any]:
    """Seconds, processor time and memory since the two moments."""
    return {
        "seconds": time.perf_counter() - start,
        "processor_sec": time.process_time() - processor,
        "peak_mb": peak_mb(),
    }


def write_prompts(path: Path, count: int) -> None:
    """Prompts that differ by a number."""
    from opengrok_jax import storage
    from opengrok_jax.records import Cell, Message, Prompt, prompt_id

    def rows():
        for number in range(count):
            messages = (Message(role="user", content=WORDS.format(number)),)
            cell = Cell(intent="trend_summary")
            yield Prompt(id=prompt_id(messages), messages=messages, cell=cell, template="bench")

    storage.write_jsonl(path, rows())


def ours(flags: argparse.Namespace) -> dict[str, Any]:
    """`collect`, from the moment the plan is in the journal to the last answer on the disk."""
    from opengrok_jax.teacher import asking, collect

    folder, told = Path(flags.folder), {}
    write_prompts(folder / "prompts.jsonl", flags.requests)
    ask = asking.ask

    async def timed(*arguments: Any, **named: Any) -> Any:
        start, processor = time.perf_counter(), time.process_time()
        stop = await ask(*arguments, **named)
        told.update(spent(start, processor))
        return stop

    asking.ask = timed
    start = time.perf_counter()
    counts = collect.run(
        prompts_file=folder / "prompts.jsonl",
        out=folder / "out",
        kind="api",
        base_url=flags.url,
        model=MODEL,
        rights="made up",
        concurrency=flags.concurrency,
    )
    assert counts["ok"] == flags.requests
    return told | {"with_plan_and_export_sec": time.perf_counter() - start}


def ours_httpx(flags: argparse.Namespace) -> dict[str, Any]:
    """The same with httpx's transport, a connection each, where ours has its own."""
    import httpx

    from opengrok_jax.teacher import transport

    context, one = httpx.create_ssl_context(), httpx.Limits(max_connections=1)
    made = functools.partial(httpx.AsyncHTTPTransport, verify=context, limits=one)
    transport.Local = made  # type: ignore[misc,assignment]
    return ours(flags)


def bare(flags: argparse.Namespace) -> dict[str, Any]:
    """Our client alone: no plan, no journal, no reading of replies."""
    from opengrok_jax.teacher.client import Client
    from opengrok_jax.teacher.secret import Secret

    def body(number: int) -> bytes:
        message = {"role": "user", "content": WORDS.format(number)}
        asked = {"model": MODEL, "messages": [message], "temperature": 0.7, "max_tokens": 512}
        return json.dumps(asked).encode()

    async def asked() -> dict[str, Any]:
        bodies, answers = iter([body(number) for number in range(flags.requests)]), 0
        async with Client(base_url=flags.url, key=Secret(""), timeout_sec=900.0) as client:

            async def work() -> None:
                nonlocal answers
                for question in bodies:
                    reply = await client.post("/chat/completions", question)
                    answers += reply.status == 200

            start, processor = time.perf_counter(), time.process_time()
            await asyncio.gather(*(work() for _ in range(flags.concurrency)))
            told = spent(start, processor)
        assert answers == flags.requests
        return told

    return asyncio.run(asked())


def openai(flags: argparse.Namespace) -> dict[str, Any]:
    """A plain loop over openai's AsyncOpenAI; the answers stay in memory."""
    from openai import AsyncOpenAI

    async def asked() -> dict[str, Any]:
        numbers, answers = iter(range(flags.requests)), []
        async with AsyncOpenAI(base_url=flags.url, api_key="EMPTY", max_retries=0) as client:

            async def work() -> None:
                for number in numbers:
                    message = {"role": "user", "content": WORDS.format(number)}
                    reply = await client.chat.completions.create(
                        model=MODEL,
                        messages=[message],  # type: ignore[list-item]
                        temperature=0.7,
                        max_tokens=512,
                    )
                    answers.append(reply.choices[0].message.content)

            start, processor = time.perf_counter(), time.process_time()
            await asyncio.gather(*(work() for _ in range(flags.concurrency)))
            told = spent(start, processor)
        assert len(answers) == flags.requests
        return told

    return asyncio.run(asked())


def distilabel(flags: argparse.Namespace) -> dict[str, Any]:
    """distilabel's OpenAILLM, batches of `concurrency` as its generation step gives them."""
    from distilabel.models import OpenAILLM

    llm = OpenAILLM(
        base_url=flags.url,
        model=MODEL,
        api_key="EMPTY",  # type: ignore[arg-type]
        max_retries=0,
        timeout=900,
    )
    llm.load()
    inputs = [[{"role": "user", "content": WORDS.format(n)}] for n in range(flags.requests)]
    start, processor, answers = time.perf_counter(), time.process_time(), 0
    for at in range(0, flags.requests, flags.concurrency):
        batch: Any = inputs[at : at + flags.concurrency]
        outputs = llm.generate_outputs(batch, temperature=0.7, max_new_tokens=512)
        answers += sum(bool(output["generations"]) for output in outputs)
    told = spent(start, processor)
    assert answers == flags.requests
    return told
