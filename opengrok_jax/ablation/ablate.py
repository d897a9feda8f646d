"""The run of an ablation: prepare, train, analyse, show. The same call goes on where it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from opengrok_jax import pipeline, storage
from opengrok_jax.ablation import figures, grid, plan, prepare, results, tables, work
from opengrok_jax.progress import duration, say

RESULT, PAGE = "ablation.json", "ablation.md"


def run(
    *,
    config: ConfigDict,
    grid_config: ConfigDict,
    workdir: Path,
    jobs: int = 1,
    seeds: tuple[int, ...] = (),
    only_prepare: bool = False,
    dry_run: bool = False,
    called: tuple[str, str] = ("", ""),
) -> dict[str, Any]:
    """Writes ablation.json, ablation.md and figures/ to `workdir`; answers what the first holds.

    Args:
      config: the base config.
      grid_config: the grid, see `grid`.
      workdir: folder of everything; see the package's docstring.
      jobs: processes that train at the same time.
      seeds: in place of the grid's; () = the grid's.
      only_prepare: stops when data, masks and questions stand: the rest needs neither spaCy nor
        scikit-learn, and may be run on another machine on which the folder was put.
      dry_run: says what would be trained, and does nothing.
      called: names of the two configs, for the page.

    Raises:
      UserError: see `errors`; whatever was finished before stands.
    """
    _, sections = pipeline.parts(config)
    given = grid_config.to_dict()
    grid.check_keys(given)
    if seeds:
        given["seeds"] = seeds
    made = grid.read(sections, **given)
    planned = plan.trainings(sections, made)
    say(
        f"ablate: {len(made.cells())} cells, {len(made.sets)} set(s), {len(made.seeds)} seed(s): "
        f"{len(planned)} trainings, {len(plan.masks(planned))} masks"
    )
    if dry_run:
        _tell(made)
        return {}
    with storage.locked(workdir):
        begun = time.monotonic()
        told = _prepared(config, made, workdir, plan.digest([sections, given]))
        if only_prepare:
            say(f"prepared: {workdir}; the same command without --prepare trains")
            return {}
        todo = work.run(
            workdir,
            told["trainings"],
            engine=made.engine,
            predictor=made.predictor,
            jobs=jobs,
        )
        say(f"ablate: {todo} trainings took {duration(time.monotonic() - begun)}")
        found = results.analysed(workdir, made, told)
        previous = storage.read_json(workdir / RESULT) if (workdir / RESULT).exists() else {}
        page = {
            "config": called[0],
            "grid": called[1],
            # Analysed again, it was still made where and when it was trained.
            "made": previous.get("made") if not todo and previous else _made(workdir, jobs),
            "engine": made.engine,
            "predictor": made.predictor,
            "seeds": list(made.seeds),
            "bootstrap": made.bootstrap,
            **found,
            "notes": _notes(found, made),
        }
        for question in page["questions"]:
            path = workdir / question["figure"]
            storage.write_text(path, figures.picture(question))
        storage.write_text(workdir / PAGE, tables.markdown(page))
        storage.write_json(workdir / RESULT, page)
    for question in page["questions"]:
        say(f"{question['ask']} {question['answer']}")
    return page


def _prepared(config: ConfigDict, made: grid.Grid, workdir: Path, print_: str) -> dict[str, Any]:
    """plan.json of these very configs, which says that all is prepared; prepares it if need be."""
    path = workdir / prepare.PLAN
    told = storage.read_json(path) if path.exists() else {}
    if told.get("print") == print_:
        say("ablate: prepared before")
        return told
    begun = time.monotonic()
    told = prepare.run(config, made, workdir)
    spent = round(time.monotonic() - begun + told.get("seconds", 0.0), 1)
    told |= {"print": print_, "seconds": spent}
    storage.write_json(path, told)
    return told


def _tell(made: grid.Grid) -> None:
    for question in made.questions:
        say(f"{question.ask}")
        for name, cell in question.cells.items():
            mark = " (baseline)" if name == question.baseline else ""
            say(f"  {name}{mark}: cell {cell.id}")


def _made(workdir: Path, jobs: int) -> dict[str, Any]:
    """When, where and with what it was trained."""
    files = sorted((workdir / "cells").glob("*/*.json"))
    devices = {storage.read_json(file)["device"] for file in files}
    software = {}
    for name in ("jax", "flax", "optax", "numpy"):
        try:
            software[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            software[name] = ""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "hardware": f"{', '.join(sorted(devices))}, {os.cpu_count()} CPU cores",
        "software": {"python": platform.python_version(), **software},
        "jobs": jobs,
    }


def _notes(found: dict[str, Any], made: grid.Grid) -> list[str]:
    notes = []
    if len(made.seeds) == 1:
        notes.append("one seed: the intervals say nothing about another one")
    for cell in found["cells"]:
        same = [s["task"] for s in cell["scores"] if s["majority_share"] > 0.99]
        if same and cell["settings"]["data"] != "none":
            name = ", ".join(f"{q}: {n}" for q, n in cell["names"].items())
            notes.append(
                f"cell {cell['id']} ({name}) says the same of nearly every post of "
                f"{', '.join(same)}: it has learnt nothing there, and differences to it say little"
            )
    for floor in found["floors"]:
        of_task = [
            s["value"]
            for c in found["cells"]
            if c["settings"]["data"] != "none"
            for s in c["scores"]
            if (s["set"], s["task"]) == (floor["set"], floor["task"])
        ]
        below = sum(v <= floor["value"] for v in of_task)
        if below:
            notes.append(
                f"{floor['task']}: {below} of {len(of_task)} trained cells do not reach "
                f"{floor['predictor']} ({100 * floor['value']:.1f})"
            )
    return notes
