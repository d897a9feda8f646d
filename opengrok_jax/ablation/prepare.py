"""What all trainings need, made once: data, masks, test questions, floors.

This is the part that asks teachers and needs spaCy and scikit-learn. When plan.json stands, the
rest needs neither, and the folder may travel to another machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from opengrok_jax import pipeline, storage
from opengrok_jax.ablation import plan
from opengrok_jax.ablation.grid import Grid
from opengrok_jax.ablation.plan import ACQUIRED, Data, Mask
from opengrok_jax.errors import ConfigError, RunFolderError
from opengrok_jax.progress import say, track

PLAN, ASKED, MASKED = "plan.json", "asked.parquet", "masked.parquet"
_MASK_FILES = (MASKED, "frequencies.parquet", "corpus.json", "tokenizer", "soft")


def run(base: ConfigDict, grid: Grid, workdir: Path) -> dict[str, Any]:
    """Prepares all trainings; answers what plan.json holds. The same call goes on where it was.

    Raises:
      UserError: as the rooms that it calls.
    """
    folder, sections = pipeline.parts(base)
    planned = plan.trainings(sections, grid)
    masks = plan.masks(planned)
    asked = {name: write_tasks(workdir, name, sections, grid) for name in grid.sets}
    data: dict[str, Path] = {}
    for one in {mask.data.id: mask.data for mask in masks}.values():
        data[one.id] = acquire(one, base, folder, workdir)
    with track("ablate, masks", total=len(masks), unit="masks") as advance:
        for mask in masks:
            draw(mask, data[mask.data.id], workdir, asked[mask.data.set])
            advance(note=mask.id)
    for name in grid.sets:
        of_set = [t for t in planned if t.set == name and t.cell.data != "none"]
        kept = [data[t.mask.data.id] for t in of_set if t.mask.data.kind == "gold"]
        kept = kept or [data[t.mask.data.id] for t in of_set]
        if kept:
            write_floors(workdir, name, kept[0])
    made = {
        "trainings": [training.row() for training in planned],
        "masks": {mask.id: {"data": mask.data.id, "set": mask.data.set} for mask in masks},
        "data": [_acquisition(m.data, data[m.data.id]) for m in _by_data(masks)],
    }
    storage.write_json(workdir / PLAN, made)
    return json.loads(json.dumps(made))


def _by_data(masks: Sequence[Mask]) -> list[Mask]:
    return list({mask.data.id: mask for mask in masks}.values())


# ---- test questions -----------------------------------------------------------------------------


def write_tasks(workdir: Path, name: str, sections: Mapping[str, Any], grid: Grid) -> list[Any]:
    """Writes tasks/SET.json with every test post, and tasks/SET.prompts.jsonl; answers the pairs.

    Tasks whose kind the predictor cannot answer are left out, and said so.

    Raises:
      ConfigError: no task is left.
    """
    from opengrok_jax.evaluation import prompt_masks, tasks

    of_set = plan.overlaid(sections, grid.sets[name], f"grid.sets.{name}")["evaluation"]
    found = []
    for task, settings in of_set["tasks"].items():
        made = tasks.make_task(task, settings, of_set.get("data", ""))
        if made.kind != "label" and grid.predictor != "generation":
            say(
                f"ablate: task {task} is left out: its answers are {made.kind}, and grid.predictor "
                f"{grid.predictor!r} compares labels; 'generation' takes it in"
            )
            continue
        found.append((made, tasks.load_items(made, of_set.get("limit", 0))))
    if not found:
        raise ConfigError(
            f"grid.sets.{name}: evaluation.tasks holds no task that grid.predictor "
            f"{grid.predictor!r} can answer"
        )
    rows = [{"task": _task_row(task), "items": [asdict(i) for i in items]} for task, items in found]
    path = tasks_file(workdir, name)
    before = storage.read_json(path) if path.exists() else {}
    rows = json.loads(json.dumps(rows))
    if before.get("tasks") != rows:
        batch = of_set.get("batch_size", 32)
        new_tokens = of_set.get("max_new_tokens", 48)
        value = {"tasks": rows, "floors": [], "batch_size": batch, "max_new_tokens": new_tokens}
        storage.write_json(path, value)
        prompt_masks.write_prompts(path.with_suffix(".prompts.jsonl"), found)
    return found


def tasks_file(workdir: Path, name: str) -> Path:
    """The file of a set's test questions."""
    return workdir / "tasks" / f"{name}.json"


def _task_row(task: Any) -> dict[str, Any]:
    names = ("name", "instruction", "kind", "labels", "words", "types", "metric", "fields", "group")
    row = {name: getattr(task, name) for name in names}
    return row | {"fields": dict(task.fields)}


def write_floors(workdir: Path, name: str, data: Path) -> None:
    """Adds the floors' answers to tasks/SET.json; they learn from the same kept answers."""
    from opengrok_jax.ablation.cells import read_tasks
    from opengrok_jax.evaluation.floors import floors
    from opengrok_jax.records import Example

    path = tasks_file(workdir, name)
    value = storage.read_json(path)
    if value["floors"]:
        return
    examples = storage.read_records(data / "curation" / "kept.jsonl", Example)
    for task, items in read_tasks(value):
        for predictor, found, note in floors(task, examples, items, 0):
            row: dict[str, Any] = {"task": task.name, "predictor": predictor, "note": note}
            value["floors"].append(row | {"predicted": [p.predicted for p in found]})
    storage.write_json(path, value)


# ---- data and masks -----------------------------------------------------------------------------


def acquire(data: Data, base: ConfigDict, folder: Path, workdir: Path) -> Path:
    """A run folder in which this data is curated: the base's own if it is, else one of ours."""
    config = ConfigDict(base.to_dict())
    for name in ACQUIRED:
        config[name] = ConfigDict(dict(data.sections[name]))
    try:
        return pipeline.finished(config, "curate")
    except RunFolderError:
        pass
    config.run_dir = str(workdir / "data" / data.id)
    say(f"ablate: data {data.kind} of {data.set}: {config.run_dir}")
    for verb in ("plan-prompts", "collect", "refine", "curate"):
        pipeline.run(config, only=verb)
    return Path(config.run_dir)


def _acquisition(data: Data, folder: Path) -> dict[str, Any]:
    """What it took to get the data: answers, and the teacher's bill if there was one."""
    counts: dict[str, Any] = {}
    for stage in ("teacher", "curation"):
        manifest = storage.read_manifest(folder / stage)
        counts[stage] = json.loads(json.dumps(manifest["counts"])) if manifest else {}
    kept = sum(1 for _ in storage.read_lines(folder / "curation" / "kept.jsonl"))
    return {"data": data.kind, "set": data.set, "id": data.id, "answers": kept, "counts": counts}


def draw(mask: Mask, data: Path, workdir: Path, asked: Sequence[Any]) -> Path:
    """masks/HASH: the masked examples, and the masked test prompts where a cell needs them.

    The annotation is kept with the data, so that every further mask of the same data is drawn
    from the stored factors.
    """
    from opengrok_jax.masking import build, prompts

    out = workdir / "masks" / mask.id
    done = storage.read_json(out / "done.json") if (out / "done.json").exists() else None
    if done is None or (mask.probabilities and not done["probabilities"]):
        ours = workdir / "data" / mask.data.id / "annotated"
        logprobs = data / "refinement" / "logprobs.jsonl"
        build.run(
            examples_file=data / "curation" / "kept.jsonl",
            out=ours,
            logprobs_file=logprobs if logprobs.exists() else None,
            **mask.masking,
        )
        with storage.storing(out):
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            for name in _MASK_FILES:
                source = ours / name
                if source.is_dir():
                    shutil.copytree(source, out / name)
                elif source.exists():
                    shutil.copyfile(source, out / name)
        slim(out / MASKED, probabilities=mask.probabilities)
        rate = storage.read_json(out / "corpus.json")["keep_rate"]
        done = {"keep_rate": rate, "probabilities": mask.probabilities}
        storage.write_json(out / "done.json", done)
    if mask.asked and not (out / ASKED / storage.MANIFEST).exists():
        file = tasks_file(workdir, mask.data.set).with_suffix(".prompts.jsonl")
        prompts.run(masking=out, prompts_file=file, out=out / ASKED)
    return out


def slim(path: Path, *, probabilities: bool) -> None:
    """Leaves in a masked file what a training reads, so that the folder travels light.

    The factors (and keep_prob, unless it is read) become NaN, which takes no room. They can be
    looked at where they were annotated.
    """
    from opengrok_jax import masked_file

    rows, provenance = masked_file.read_masked(path, ["keep_prob"] if probabilities else [])
    masked_file.write_masked(path, rows, provenance)
