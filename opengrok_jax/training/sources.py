"""What a fine-tuning is made from: the examples, the model it begins with, the one beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from opengrok_jax import hub, storage, tokenizer_files
from opengrok_jax.masked_file import digest, read_masked
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.progress import say
from opengrok_jax.soft_file import SoftFile
from opengrok_jax.training import objective, settings
from opengrok_jax.training.batches import Packed
from opengrok_jax.training.objective import Objective
from opengrok_jax.training.splits import pack_splits, soft_share

# The settings that say how the data is packed.
PACKED = (
    *("row_tokens", "rows_per_batch", "microbatches", "epochs", "max_steps"),
    *("eval_every", "normalize", "loss_weight", "seed"),
)


class Sources(NamedTuple):
    """Read and held against each other; no weight has been read yet.

    Attributes:
      config: sizes of the student.
      init: folder of the weights it begins with; None = from scratch.
      train, valid: packed splits; no valid one without evaluations.
      beside: files of the tokenizer that go with the student, by name.
      teacher, teacher_config: folder and sizes of the model beside the student, if any.
      digests: what tells these data from others.
      figures: of the data, for the summary.
    """

    config: Phi3Config
    init: Path | None
    train: Packed
    valid: Packed | None
    beside: dict[str, bytes]
    teacher: Path | None
    teacher_config: Phi3Config | None
    digests: dict[str, str]
    figures: dict[str, Any]


def read_sources(given: Mapping[str, Any], aim: Objective) -> Sources:
    """Reads the data and the configs, and refuses what does not fit together.

    Args:
      given: the arguments of `finetune.run`, looked at by `settings.check`.
      aim: the objective.

    Raises:
      ConfigError: sizes or tokenizers that contradict each other.
      DataError: examples or soft targets that are missing or cannot be learnt from.
    """
    masked_file = Path(given["masked_file"])
    redraws = given["draw"] == "per_epoch"
    reads = redraws or given["loss_weight"] == "keep_prob"
    examples, provenance = read_masked(masked_file, ["keep_prob"] if reads else [])
    init = None if given["init"] == settings.SCRATCH else hub.folder_of(given["init"])
    tokenizer = tokenizer_files.handed_over(masked_file, provenance)
    config = settings.model_config(
        init=init,
        model=given["model"],
        row_tokens=given["row_tokens"],
        tokenizer_vocab=settings.tokenizer_vocab(provenance, masked_file),
        ids=tokenizer_files.ids(tokenizer) if tokenizer else None,
    )
    if init and given["model"]:
        say(f"sizes come from {init}/config.json; `model` is for init 'scratch' and not used")
    beside: dict[str, bytes] = {}
    if tokenizer:
        beside = tokenizer_files.of_student(tokenizer, init, config.max_position_embeddings)
    else:
        say(f"{masked_file} does not say which tokenizer made it: the student goes without one")
    teacher = hub.folder_of(given["teacher"]) if given["teacher"] else None
    teacher_config = hf_config.read(teacher) if teacher else None
    if teacher and teacher_config:
        if tokenizer:
            tokenizer_files.check_same(tokenizer, teacher)
        objective.check_teacher(config, teacher_config, aim)

    digests = {"data": digest(masked_file)}
    soft = None
    if aim.needs_soft_targets:
        folder = Path(given["soft_targets"] or masked_file.parent / "soft")
        soft = SoftFile(folder)
        digests["soft_digest"] = storage.file_sha256(folder / storage.MANIFEST)
    train, valid = pack_splits(
        examples,
        masked_file=masked_file,
        vocab_size=config.vocab_size,
        soft_file=soft,
        redraw_seed=settings.mask_seed(provenance, masked_file) if redraws else None,
        **{name: given[name] for name in PACKED},
    )
    figures = {
        "train_examples": len(train.examples),
        "valid_examples": len(examples) - len(train.examples),
        "rows": len(train.rows),
        "packing_efficiency": train.efficiency(),
        "loss_tokens_per_epoch": int(train.bearing().sum()),
    }
    if soft:
        figures["soft_share"] = soft_share(train, config.vocab_size)
    return Sources(config, init, train, valid, beside, teacher, teacher_config, digests, figures)
