"""Does refinement pay? The loop on and off, at the same spend, by a simulated teacher.

python scripts/bench/refine.py [--seeds 6] [--planned 200] [--budget-share 2.0] [--json FILE]
                               [--jobs N]    seeds at the same time, by default one a core

Five ways to spend the same money (ticks of 1e-10 USD at 2 and 6 USD for a million tokens):

    report       the report's three kinds of prompt
    templates    the plan as it ships: 31 templates, all axes
    techniques   the same plan, two changes by operators drawn by chance to each prompt
    loop off     `--planned` prompts, then children by the same operators, intents in turn as in
                 the loop, operator and parent drawn by chance among all that was asked
    loop on      the same `--planned` prompts, then what `refine_loop` proposes

A seed is a teacher with moods of its own, a plan and a loop. What is accepted is decided by the
checks and near-duplicates of curation over all answers of an arm, never by the score that steers
the loop. Diversity is of the accepted answers in prose, cut to one
size for all arms of a seed. Intervals
are 95 % over the seeds (Student's t), differences are paired. The wire is left out: it changes
neither answers nor costs. Prints a table; --json writes every figure of every seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

INPUT, OUTPUT = 20_000, 60_000  # ticks a token: 2 and 6 USD for a million
SIMILARITY = 0.4
BATCH = 48
SAMPLE = 400  # answers of each arm that self-BLEU and Vendi look at
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
ARMS = ("report", "templates", "techniques", "loop off", "loop on")
FIGURES = {  # figure -> (digits, whether more is better)
    "asked": (0, True),
    "accepted": (0, True),
    "accepted prose": (0, True),
    "accept rate": (3, True),
    "microdollars per accepted": (1, False),
    "cells": (3, True),
    "near-duplicates": (3, False),
    "distinct-2": (3, True),
    "self-BLEU": (3, False),
    "Vendi": (1, True),
    "Vendi of prompts": (1, True),
}


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=6, choices=sorted(T95))
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--planned", type=int, default=200, help="prompts before the loop begins")
    parser.add_argument(
        "--budget-share", type=float, default=2.0, help="the loop's spend over that of the plan"
    )
    parser.add_argument("--json", type=Path, help="file for every figure of every seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="seeds at a time")
    flags = parser.parse_args()
    seeds = range(flags.first_seed, flags.first_seed + flags.seeds)
    given = [(seed, flags.planned, flags.budget_share) for seed in seeds]
    rows = []
    # A process of its own for each, so that a seed keeps nothing of another one.
    with multiprocessing.get_context("spawn").Pool(flags.jobs, maxtasksperchild=1) as pool:
        for row, spent in pool.imap(timed_seed, given):
            rows.append(row)
            print(f"seed {row['seed']}: done, {spent:.0f} s of CPU", file=sys.stderr)
    settings = vars(flags) | {"json": None, "jobs": None}
    result = {"settings": settings, "seeds": rows, "summary": summary(rows)}
    if flags.json:
        flags.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(rows))


def timed_seed(given: tuple[int, int, float]) -> tuple[dict[str, Any], float]:
    """`one_seed` and the processor time it took."""
    began = time.process_time()
    return one_seed(*given), time.process_time() - began


def one_seed(seed: int, planned: int, share: float) -> dict[str, Any]:
    """The figures of every arm for one teacher."""
    from opengrok_jax.prompts.genome import Repertoire

    repertoire = Repertoire.load()
    first = list(itertools.islice(plans(repertoire, seed), planned))
    begun = sum(cost(answer(p, seed)) for p in first)
    budget = int(begun * (1 + share))
    report = [t for t in repertoire.templates.values() if t.origin == "report"]
    prompts = {
        "report": within(plans(repertoire, seed, report), seed, budget),
        "templates": within(plans(repertoire, seed), seed, budget),
        "techniques": within(varied(repertoire, seed), seed, budget),
        "loop off": within(at_random(repertoire, first, seed), seed, budget),
        "loop on": within(refined(first, seed, int(begun * share)), seed, budget),
    }
    judged = {arm: Judged(rows, seed) for arm, rows in prompts.items()}
    words = min(j.words for j in judged.values())
    sample = min(SAMPLE, *(len(j.prose) for j in judged.values()))
    return {
        "seed": seed,
        "budget": budget,
        "arms": {arm: j.figures(repertoire, words, sample) for arm, j in judged.items()},
        "children": {arm: rate(judged[arm].keeps[planned:]) for arm in ("loop off", "loop on")},
        "reasons": {arm: dict(j.reasons.most_common()) for arm, j in judged.items()},
    }


# ---- arms -------------------------------------------------------------------------------------


def plans(repertoire: Any, seed: int, templates: Any = None) -> Iterator[Any]:
    """Planned prompts, as long as the axes give new ones."""
    from opengrok_jax.errors import ConfigError
    from opengrok_jax.prompts.plan import plan

    templates = list(templates or repertoire.templates.values())
    intents = tuple(dict.fromkeys(t.intent for t in templates))
    given, size = 0, 256
    while True:
        try:
            found = plan(repertoire.axes, size, seed, intents, templates)
        except ConfigError as error:  # used up: it says how many there were
            size = int(str(error).split("gave ")[1].split()[0])
            yield from plan(repertoire.axes, size, seed, intents, templates)[given:]
            return
        yield from found[given:]
        given, size = size, size * 2


def varied(repertoire: Any, seed: int) -> Iterator[Any]:
    """The plan, each prompt changed twice."""
    from opengrok_jax.prompts.plan import vary

    seen: set[str] = set()
    stream = plans(repertoire, seed)
    while some := list(itertools.islice(stream, 64)):
        for prompt in vary(some, repertoire, 2, seed):
            if prompt.id not in seen:
                seen.add(prompt.id)
                yield prompt


def at_random(repertoire: Any, first: list[Any], seed: int) -> Iterator[Any]:
    """The planned prompts, then children of whatever was asked by whatever operator."""
    from opengrok_jax.prompts.genome import of, render
    from opengrok_jax.prompts.mutate import OPERATORS, Means, mutate
    from opengrok_jax.prompts.plan import seeded

    yield from first
    seen = {p.id for p in first}
    genomes: dict[str, list[Any]] = defaultdict(list)
    for prompt in first:
        genomes[prompt.cell.intent].append(of(prompt, repertoire))
    chance = seeded(f"{seed}/off")
    while True:
        intent = min(genomes, key=lambda i: len(genomes[i]))
        means = Means(repertoire=repertoire, chance=chance, others=genomes[intent])
        child = mutate(chance.choice(list(OPERATORS)), chance.choice(genomes[intent]), means)
        if child is None:
            continue
        prompt = render(child, repertoire)
        if prompt.id not in seen:
            seen.add(prompt.id)
            genomes[intent].append(child)
            yield prompt


def refined(first: list[Any], seed: int, budget: int) -> Iterator[Any]:
    """The planned prompts, then the loop's."""
    from opengrok_jax.refine_loop import Loop

    loop = Loop(
        planned=first,
        answers=[answer(p, seed) for p in first],
        prompts={},
        elites=4,
        similarity=SIMILARITY,
        losses={},
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        loop.go(
            ask=lambda asked: {p.id: answer(p, seed) for p in asked},
            proposed_file=Path(folder) / "proposed.jsonl",
            rounds=10_000,
            batch=BATCH,
            budget=budget,
            stall=0.0,
            patience=1,
        )
    yield from (*first, *(row.prompt for row in loop.proposed))


_answers: dict[tuple[str, int], Any] = {}


def answer(prompt: Any, seed: int) -> Any:
    """The simulated teacher's answer, with what it costs; a token is four bytes."""
    from opengrok_jax.records import Response
    from opengrok_jax.teacher.simulator import answers as simulated

    if found := _answers.get((prompt.id, seed)):
        return found
    said = simulated.answer(prompt.messages, seed=seed)
    asked = sum(len(m.content.encode()) for m in prompt.messages)
    tokens_in, tokens_out = -(-asked // 4) + 8, -(-len(said.text.encode()) // 4) + 1
    _answers[prompt.id, seed] = Response(
        prompt_id=prompt.id,
        request_key="",
        text=said.text,
        finish_reason=said.finish_reason,
        model_asked="simulated",
        model_served="simulated",
        source="api",
        endpoint="",
        rights="simulated",
        prompt_tokens=tokens_in,
        completion_tokens=tokens_out,
        cost_ticks=INPUT * tokens_in + OUTPUT * tokens_out,
    )
    return _answers[prompt.id, seed]


def cost(response: Any) -> int:
    """Ticks."""
    return response.cost_ticks


def within(stream: Iterable[Any], seed: int, budget: int) -> list[Any]:
    """The first prompts of a stream that the budget pays for."""
    taken, left = [], budget
    for prompt in stream:
        left -= cost(answer(prompt, seed))
        if left < 0:
            break
        taken.append(prompt)
    return taken


# ---- figures ----------------------------------------------------------------------------------


class Judged:
    """The prompts of one arm, judged by curation."""

    def __init__(self, prompts: list[Any], seed: int) -> None:
        from opengrok_jax.curation.checks import judge
        from opengrok_jax.curation.duplicates import near_duplicates, sketch
        from opengrok_jax.curation.judging import masked
        from opengrok_jax.curation.looks import PROSE, Settings

        settings = Settings()
        self.prompts, self.responses = prompts, [answer(p, seed) for p in prompts]
        reasons = []
        for prompt, response in zip(prompts, self.responses, strict=True):
            shown, said, _ = masked(prompt, response, True)
            _, findings = judge(shown, said, settings)
            reasons.append(next((f.reason for f in findings if f.certain), ""))
        passed = [i for i, reason in enumerate(reasons) if not reason]
        intents = [prompts[i].cell.intent for i in passed]
        sketches = [sketch(prompts[i].cell.intent, self.responses[i].text) for i in passed]
        repeated = near_duplicates(intents, sketches, SIMILARITY)
        for index in repeated:
            reasons[passed[index]] = "near_duplicate"
        self.repeated, self.passed = len(repeated), len(passed)
        self.keeps = [not reason for reason in reasons]
        self.reasons = Counter(reason for reason in reasons if reason)
        self.accepted = [i for i, keep in enumerate(self.keeps) if keep]
        # One-word labels say the same on purpose: diversity is that of prose.
        self.prose = [i for i in self.accepted if prompts[i].cell.intent in PROSE]
        self.texts = [self.responses[i].text for i in self.prose]
        self.words = sum(len(text.split()) for text in self.texts)

    def figures(self, repertoire: Any, words: int, sample: int) -> dict[str, float]:
        """See `FIGURES`."""
        from opengrok_jax import diversity
        from opengrok_jax.prompts import archive

        every = dict.fromkeys(t.intent for t in repertoire.templates.values())
        cells = [archive.key(self.prompts[i].cell) for i in self.accepted]
        found = diversity.figures(self.texts, words=words, sample=sample)
        asked = [self.prompts[i].messages[-1].content for i in self.prose]
        spent = sum(map(cost, self.responses))
        return {
            "asked": len(self.prompts),
            "accepted": len(self.accepted),
            "accepted prose": len(self.prose),
            "accept rate": rate(self.keeps),
            "microdollars per accepted": spent / len(self.accepted) / 1e4,
            "cells": diversity.coverage(cells, archive.planned(repertoire, every)),
            "near-duplicates": self.repeated / self.passed,
            "distinct-2": found["distinct_2"],
            "self-BLEU": found["self_bleu"],
            "Vendi": found["vendi"],
            "Vendi of prompts": diversity.figures(asked, sample=sample)["vendi"],
        }


def rate(keeps: list[bool]) -> float:
    """Share of True."""
    return sum(keeps) / len(keeps) if keeps else math.nan


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval."""
    half = T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), half


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and half width for each arm, and of the paired differences to the loop."""

    def column(arm: str, figure: str) -> list[float]:
        return [row["arms"][arm][figure] for row in rows]

    def difference(arm: str, figure: str) -> tuple[float, float]:
        pairs = zip(column("loop on", figure), column(arm, figure), strict=True)
        return interval([on - other for on, other in pairs])

    return {
        figure: {
            "arms": {arm: interval(column(arm, figure)) for arm in ARMS},
            "loop on minus": {arm: difference(arm, figure) for arm in ARMS if arm != "loop on"},
        }
        for figure in FIGURES
    } | {
        "accept rate of the children": {
            arm: interval([row["children"][arm] for row in rows]) for arm in ("loop off", "loop on")
        }
    }


def shown(found: tuple[float, float], digits: int) -> str:
    """A mean with its interval."""
    return f"{found[0]:.{digits}f} ± {found[1]:.{digits}f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Two Markdown tables: the arms, and what the loop gains over each."""
    found = summary(rows)
    lines = [f"| | {' | '.join(ARMS)} |", "|---|" + "---|" * len(ARMS)]
    for figure, (digits, _) in FIGURES.items():
        cells = [shown(found[figure]["arms"][arm], digits) for arm in ARMS]
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    others = [arm for arm in ARMS if arm != "loop on"]
    lines += ["", f"| loop on minus | {' | '.join(others)} |", "|---|" + "---|" * len(others)]
    for figure, (digits, more) in FIGURES.items():
        cells = []
        for arm in others:
            mean, half = found[figure]["loop on minus"][arm]
            sign = 0 if abs(mean) <= half else 1 if (mean > 0) == more else -1
            mark = {0: "", 1: " better", -1: " worse"}[sign]
            cells.append(shown((mean, half), digits).replace("-", "−") + mark)
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    own = found["accept rate of the children"]
    told = ", ".join(f"{arm} {shown(own[arm], 3)}" for arm in ("loop off", "loop on"))
    return "\n".join([*lines, "", f"accept rate of the children alone: {told}"])


if __name__ == "__main__":
    main()
