"""The pipeline: what still has to be done, in the order of `stages`, and doing it.

A stage is done when its manifest stands in its folder and was made of the same settings and the
same inputs; doing it again is then no work. A stage that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from opengrok_jax import config as config_module
from opengrok_jax import processes, storage
from opengrok_jax.errors import ConfigError, RunFolderError
from opengrok_jax.progress import duration, say
from opengrok_jax.stages import STAGES, Stage, stage_of


def run(config: ConfigDict, *, only: str = "", redo: str = "", dry_run: bool = False) -> bool:
    """Brings the run folder up to date; answers whether there was anything to do.

    Args:
      config: as `config.load` returns it.
      only: one verb; the stages before it must be done. "" does all that is left. Started once
        per process, see `processes`, "finetune" is done by all together; nothing else is.
      redo: a verb whose results, and those of all later stages, are thrown away first.
      dry_run: says what would be done, and does nothing.

    Raises:
      UserError: see `errors`; whatever was finished before stands.
    """
    if only != "finetune":
        processes.refuse(only or "run")
    folder, sections = parts(config)
    wanted = [stage_of(only)] if only else list(STAGES)
    settled = storage.settled(folder, config.to_dict())
    if not settled:
        _check(wanted, sections)
    if dry_run:
        return _tell(folder, sections, wanted)
    with processes.joined(), contextlib.ExitStack() as held:

        def begin() -> None:
            held.enter_context(storage.locked(folder))
            _claim(folder, config, redo)

        processes.on_first(begin)
        worked = False
        for stage in wanted:
            worked |= _do(folder, stage, sections)
    if not worked:
        say(f"nothing to do: {folder} is complete for this config (`--redo STAGE` does it again)")
    return worked


def parts(config: ConfigDict) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The run folder and the sections of a config.

    Raises:
      ConfigError: a section is missing or unknown.
    """
    names = [stage.section for stage in STAGES]
    plain: dict[str, Any] = config.to_dict()
    if missing := [n for n in ["run_dir", *names] if n not in plain]:
        raise ConfigError(f"the config lacks {missing[0]}; it needs run_dir, {', '.join(names)}")
    if unknown := sorted(set(plain) - {"run_dir", *names}):
        raise ConfigError(f"the config has {unknown[0]}, which no stage reads; {', '.join(names)}")
    return Path(plain["run_dir"]), {name: plain[name] for name in names}


def finished(config: ConfigDict, verb: str) -> Path:
    """The run folder, in which the stage is done for this very config.

    Raises:
      ConfigError: the config is not understood.
      RunFolderError: the stage is not done, or what it was made of has changed since.
    """
    folder, sections = parts(config)
    stage = stage_of(verb)
    manifest = storage.read_manifest(folder / stage.folder)
    if manifest is None or manifest["fingerprint"] != _print_of(folder, stage, sections):
        raise RunFolderError(
            f"{verb} is not finished in {folder} for this config and what it reads: run `opengrok "
            f"{verb}` first, or `opengrok run` for all of it"
        )
    return folder


def room(stage: Stage) -> Callable[..., dict[str, Any]]:
    """A stage's `run`; imports its room, so only stages with work to do are asked for it."""
    return importlib.import_module(stage.module).run


def _check(stages: list[Stage], sections: dict[str, dict[str, Any]]) -> None:
    for stage in stages:
        given = {"out", *stage.reads, *stage.watches, *stage.borrows}
        config_module.check(stage.section, sections[stage.section], room(stage), given)


def _claim(folder: Path, config: ConfigDict, redo: str) -> None:
    """Ties the folder to the config; with `redo`, forgets what follows from there."""
    again = STAGES[STAGES.index(stage_of(redo)) :] if redo else ()
    untouched = [s for s in STAGES if not _begun(folder, s)]
    # A folder may be moved: everything in it is found from where it is now.
    may_change = {"run_dir", *(stage.section for stage in (*again, *untouched))}
    may_change |= {f"{stage.section}.{key}" for stage in STAGES for key in stage.steering}
    # Half of a collection binds nobody: what it has lies in its journal by question and address.
    may_change |= {
        s.section for s in STAGES if s.keep and storage.read_manifest(folder / s.folder) is None
    }
    redo_from = {stage.section: _redo_hint(stage) for stage in STAGES}
    storage.claim(folder, config.to_dict(), may_change=may_change, redo=redo_from)
    for stage in reversed(again):
        storage.discard(folder / stage.folder, stage.keep)


def _redo_hint(stage: Stage) -> str:
    """What to type to do a stage again, and what that costs."""
    kept = f", {', '.join(stage.keep)} left as it is" if stage.keep else ""
    return f"--redo {stage.verb}: it and all later stages are made again{kept}"


def _begun(folder: Path, stage: Stage) -> bool:
    """Whether the stage left anything in its folder."""
    here = folder / stage.folder
    return here.exists() and any(here.iterdir())


def _print_of(folder: Path, stage: Stage, sections: dict[str, dict[str, Any]]) -> str:
    """What the stage's manifest must say for its results to be those of this config."""
    before = {path.split("/")[0] for path in stage.reads.values()}
    inputs = {}
    for name in sorted(before):
        manifest = storage.read_manifest(folder / name)
        if manifest is None:
            verb = next(s.verb for s in STAGES if s.folder == name)
            raise RunFolderError(
                f"{stage.verb} needs the results of {verb}, which is not finished in {folder}: "
                f"run `opengrok {verb}` first, or `opengrok run` for all of it"
            )
        inputs[name] = manifest["fingerprint"]
    for path in stage.watches.values():
        if (folder / path).exists():
            inputs[path] = storage.file_sha256(folder / path)
    section = {k: v for k, v in sections[stage.section].items() if k not in stage.steering}
    return storage.fingerprint(section, inputs)


def _do(folder: Path, stage: Stage, sections: dict[str, dict[str, Any]]) -> bool:
    """Does one stage unless it is done; answers whether it worked."""
    here = folder / stage.folder
    expected = _print_of(folder, stage, sections)
    manifest = storage.read_manifest(here)
    if manifest is not None and manifest["fingerprint"] == expected:
        say(f"{stage.verb}: done before")
        return False
    if manifest is not None:  # made of inputs that are no longer there
        processes.on_first(lambda: storage.discard(here, stage.keep))
    say(f"{stage.verb}: {stage.about}")
    started = time.monotonic()
    paths = stage.reads | stage.watches
    inputs = {argument: folder / path for argument, path in paths.items()}
    borrowed = {name: sections[name] for name in stage.borrows}
    counts = room(stage)(out=here, **inputs, **borrowed, **sections[stage.section])
    took = time.monotonic() - started
    if not processes.first():
        return True
    storage.write_manifest(here, print_=expected, outputs=stage.writes, counts=counts)
    storage.append_line(
        folder / "log.jsonl",
        {
            "stage": stage.verb,
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(took, 1),
        },
    )
    say(f"{stage.verb}: {duration(took)}, wrote {here}")
    return True


def _tell(folder: Path, sections: dict[str, dict[str, Any]], wanted: list[Stage]) -> bool:
    """Says what `run` would do."""
    todo = []
    for row in status(folder):
        if row["stage"] in {s.verb for s in wanted}:
            say(f"{row['stage']}: {'done' if row['done'] else 'would ' + row['about']}")
            todo += [] if row["done"] else [row["stage"]]
    if "collect" in todo:
        _tell_collect(folder, sections["teacher"])
    return bool(todo)


def _tell_collect(folder: Path, teacher: dict[str, Any]) -> None:
    """Says who would be asked and what that may take; needs no network."""
    from opengrok_jax.teacher.estimate import outlook

    say(
        f"collect would ask: teacher.kind {teacher.get('kind', '')!r} "
        f"{teacher.get('model', '')}".rstrip()
    )
    prompts = folder / "prompts" / "prompts.jsonl"
    if teacher.get("kind") != "api":
        return
    if prompts.exists():
        say(f"collect: {outlook(prompts, teacher)}")
    else:
        say("collect: `opengrok plan-prompts` first says how many prompts, and this what they cost")


def status(folder: Path) -> list[dict[str, Any]]:
    """For each stage: verb, whether it is done, its counts, seconds of its last run (or None)."""
    seconds: dict[str, float] = {}
    if (folder / "log.jsonl").exists():
        seconds = {r["stage"]: r["seconds"] for r in storage.read_jsonl(folder / "log.jsonl")}
    rows = []
    for stage in STAGES:
        manifest = storage.read_manifest(folder / stage.folder)
        rows.append(
            {
                "stage": stage.verb,
                "about": stage.about,
                "done": manifest is not None,
                "begun": _begun(folder, stage),
                "counts": json.loads(json.dumps(manifest["counts"])) if manifest else {},
                "seconds": seconds.get(stage.verb),
            }
        )
    return rows
