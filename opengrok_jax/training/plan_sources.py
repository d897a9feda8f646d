"""What a plan is for: the student, its adapters, and what it learns from, as far as sizes go.

Unlike `sources.read_sources` it needs no weights and no data: sizes may be told by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx
from jax.sharding import AbstractMesh

from opengrok_jax import hub, storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.masked_file import manifest
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config, published
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import parameter_shardings
from opengrok_jax.soft_file import SoftFile
from opengrok_jax.training import objective, settings, soft_targets
from opengrok_jax.training.objective import Objective


class Asked(NamedTuple):
    """What would train.

    Attributes:
      config: sizes of the student.
      lora: rank, alpha, targets; None = a full fine-tuning.
      aim: the objective.
      k: slots of the stored distributions; 0 = it reads none.
      teacher: sizes of the model beside the student; None = there is none.
      teacher_dtype: what its parameters are stored in.
    """

    config: Phi3Config
    lora: dict[str, Any] | None
    aim: Objective
    k: int
    teacher: Phi3Config | None
    teacher_dtype: str


def read(
    given: Mapping[str, Any], *, model: str, teacher: str, masked_file: Path | None, k: int
) -> Asked:
    """Takes a fine-tuning's settings apart, and refuses what the run itself would refuse.

    Args:
      given: the arguments of `finetune.run` but masked_file and out.
      model, teacher, masked_file, k: as in `plan.run`.

    Raises:
      ConfigError: a wrong setting, or sizes that contradict each other.
      DataError: a masked file or soft targets that cannot be read.
    """
    settings.check({**given, **({"init": settings.SCRATCH} if model else {})})
    lora = settings.lora_options(given["lora"], given["init"])
    aim = objective.read(given["distill"] or {})
    beside = teacher or given["teacher"]
    settings.check_sources(aim, teacher=beside, soft_targets=given["soft_targets"])
    config = _student(given, model, masked_file)
    of_teacher, stored = None, ""
    if teacher:
        of_teacher, stored = published(teacher), "bfloat16"  # as all of them are published
    elif beside:
        folder = hub.folder_of(beside, weights=False)
        of_teacher, stored = hf_config.read(folder), _stored_dtype(folder)
    if of_teacher:
        objective.check_teacher(config, of_teacher, aim)
    slots = _slots(given, masked_file, k) if aim.needs_soft_targets else 0
    return Asked(config, lora, aim, slots, of_teacher, stored)


def check_parameters(asked: Asked, sizes: Mapping[str, int]) -> None:
    """Raises ConfigError unless every parameter divides by its part of the mesh."""
    mesh: Any = AbstractMesh(tuple(sizes.values()), tuple(sizes))
    for config in filter(None, (asked.config, asked.teacher)):
        model = nnx.eval_shape(lambda config=config: Phi3(config, rngs=nnx.Rngs(0)))
        parameter_shardings(model, mesh)


def _student(given: Mapping[str, Any], model: str, masked_file: Path | None) -> Phi3Config:
    if model:
        config = published(model)
        if given["row_tokens"] > (longest := config.max_position_embeddings):
            raise ConfigError(
                f"row_tokens is {given['row_tokens']}; expected at most the model's "
                f"max_position_embeddings {longest}"
            )
        return config
    vocab = given["model"].get("vocab_size") or 0
    if masked_file:
        vocab = settings.tokenizer_vocab(manifest(masked_file)["provenance"], masked_file)
    if given["init"] == settings.SCRATCH and not vocab:
        raise ConfigError(
            "the size of the vocabulary comes from the data, which is not there yet: run "
            "`opengrok mask` first, or give --masked FILE or --model NAME"
        )
    scratch = given["init"] == settings.SCRATCH
    return settings.model_config(
        init=None if scratch else hub.folder_of(given["init"], weights=False),
        model=given["model"],
        row_tokens=given["row_tokens"],
        tokenizer_vocab=vocab,
    )


def _stored_dtype(folder: Path) -> str:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return raw.get("dtype") or raw.get("torch_dtype") or "float32"


def _slots(given: Mapping[str, Any], masked_file: Path | None, k: int) -> int:
    """As stored where they are stored already, else as told, else what soft-targets would store."""
    folder = given["soft_targets"] or (masked_file.parent / "soft" if masked_file else "")
    if folder and (Path(folder) / storage.MANIFEST).exists():
        return SoftFile(Path(folder)).k
    return k or soft_targets.K
