"""What may be asked of a fine-tuning; what can be refused without work is refused here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from opengrok_jax import hub
from opengrok_jax.errors import ConfigError, DataError, RunFolderError
from opengrok_jax.model import hf_config
from opengrok_jax.model.attention import Implementation, Rule
from opengrok_jax.model.config import LongRope, Phi3Config
from opengrok_jax.model.lora import TARGETS
from opengrok_jax.model.phi3 import Remat
from opengrok_jax.model.sharding import MESH_AXES
from opengrok_jax.storage import differences
from opengrok_jax.training.batches import LossWeight, Normalize
from opengrok_jax.training.objective import Objective
from opengrok_jax.training.optimizer import KEPT_IN_BFLOAT16, Schedule

SCRATCH = "scratch"
DTYPES = ("float32", "bfloat16")
DRAWS = ("fixed", "per_epoch")
VOCAB_MULTIPLE = 64  # a vocabulary that divides over devices and fills vector registers

# They change where and how the same run is computed, not what is computed: a run that was stopped
# may go on with others.
FREE = ("attention", "mesh", "microbatches", "remat", "save_every", "tensorboard", "unroll")

_CHOICES = {
    "rule": get_args(Rule),
    "draw": DRAWS,
    "normalize": get_args(Normalize),
    "loss_weight": get_args(LossWeight),
    "schedule": get_args(Schedule),
    "attention": get_args(Implementation),
    "remat": get_args(Remat),
    "dtype": DTYPES,
    "param_dtype": DTYPES,
    "moments_dtype": DTYPES,
}
_WHOLE = {
    "row_tokens": 2,
    "rows_per_batch": 1,
    "microbatches": 1,
    "max_steps": 0,
    "eval_every": 0,
    "patience": 0,
    "save_every": 0,
    "seed": 0,
}
_NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "epochs": (lambda x: x > 0, "above 0"),
    "learning_rate": (lambda x: x > 0, "above 0"),
    "warmup_share": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "weight_decay": (lambda x: x >= 0, "0 or more"),
    "clip_norm": (lambda x: x > 0, "above 0"),
    "final_share": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "b1": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "b2": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "eps": (lambda x: x > 0, "above 0"),
    "min_improvement": (lambda x: x >= 0, "0 or more"),
}


def check(given: Mapping[str, Any]) -> None:
    """Looks at each argument of `finetune.run` and at how they fit together.

    Raises:
      ConfigError: names the argument, its value and what was expected.
    """
    for name, choices in _CHOICES.items():
        _require(given[name] in choices, name, given[name], f"one of {', '.join(choices)}")
    for name, least in _WHOLE.items():
        value = given[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        _require(whole and value >= least, name, value, f"a whole number from {least}")
    for name, (holds, expected) in _NUMBERS.items():
        value = given[name]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fine = number and math.isfinite(value) and holds(value)
        _require(fine, name, value, f"a number {expected}")
    for name in ("teacher", "soft_targets"):
        _require(isinstance(given[name], str), name, given[name], "a name, or ''")
    for name in ("tensorboard", "unroll"):
        _require(isinstance(given[name], bool), name, given[name], "True or False")
    if given["rule"] == "none":
        expected = "'fixed' with rule 'none', which reads no mask"
        _require(given["draw"] == "fixed", "draw", given["draw"], expected)
    rows, microbatches = given["rows_per_batch"], given["microbatches"]
    expected = f"a divisor of rows_per_batch {rows}"
    _require(rows % microbatches == 0, "microbatches", microbatches, expected)
    if given["schedule"] == "constant":
        expected = "0 with schedule 'constant', whose rate does not fall"
        _require(not given["final_share"], "final_share", given["final_share"], expected)
    if given["moments_dtype"] == "bfloat16":
        expected = (
            f"below {KEPT_IN_BFLOAT16} with moments_dtype 'bfloat16', in which a moment that keeps "
            "more of itself never decays"
        )
        for name in ("b1", "b2"):
            _require(given[name] < KEPT_IN_BFLOAT16, name, given[name], expected)
    if not given["eval_every"]:
        expected = "0 with eval_every 0: without evaluations nothing can be stopped early"
        _require(not given["patience"], "patience", given["patience"], expected)
    mesh = given["mesh"]
    _require(isinstance(mesh, Mapping), "mesh", mesh, f"a size for each of {', '.join(MESH_AXES)}")
    for axis, size in mesh.items():
        _require(axis in MESH_AXES, "mesh", axis, f"axes {', '.join(MESH_AXES)}")
        whole = isinstance(size, int) and not isinstance(size, bool)
        _require(whole and (size > 0 or size == -1), f"mesh.{axis}", size, "a whole number, or -1")
    init = given["init"]
    known = init == SCRATCH or (bool(init) and (hub.is_name(init) or hub.folder_of(init).is_dir()))
    expected = "'scratch', a folder of Hugging Face or of a student, or a name on the hub"
    _require(known, "init", init, expected)


def lora_options(lora: Any, init: str) -> dict[str, Any] | None:
    """The adapters asked for: rank, alpha, targets; None = a full fine-tuning.

    Args:
      lora, init: as in `finetune.run`.

    Raises:
      ConfigError: an unknown key, a wrong value, or adapters on random weights.
    """
    _require(lora is None or isinstance(lora, Mapping), "lora", lora, "rank, alpha and targets")
    if not lora:
        return None
    known = ("rank", "alpha", "targets")
    if unknown := sorted(set(lora) - set(known)):
        raise ConfigError(f"lora has no {', '.join(unknown)}; it has {', '.join(known)}")
    rank, alpha, targets = (
        lora.get(k, v) for k, v in zip(known, (None, None, TARGETS), strict=True)
    )
    whole = isinstance(rank, int) and not isinstance(rank, bool)
    _require(whole and rank >= 0, "lora.rank", rank, "a whole number, 0 = full fine-tuning")
    number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
    fine = number and math.isfinite(alpha) and alpha > 0
    _require(fine, "lora.alpha", alpha, "a number above 0, often twice the rank")
    several = isinstance(targets, (list, tuple)) and len(targets) > 0
    fine = several and all(targets.count(t) == 1 and t in TARGETS for t in targets)
    _require(fine, "lora.targets", targets, f"some of {', '.join(TARGETS)}, each once")
    if not rank:
        return None
    if init == SCRATCH:
        raise ConfigError(
            f"lora.rank is {rank} with init 'scratch': adapters beside random weights that stay "
            "random learn nothing useful; give a Hugging Face folder as init, or set lora.rank to 0"
        )
    return {"rank": rank, "alpha": alpha, "targets": [t for t in TARGETS if t in targets]}


def check_sources(objective: Objective, *, teacher: str, soft_targets: str) -> None:
    """Raises ConfigError for what the objective needs and lacks, and for what it would not read."""
    needed = "the folder or hub name of a model: distill compares with it"
    if objective.needs_teacher:
        _require(bool(teacher), "teacher", teacher, needed)
    else:
        _require(not teacher, "teacher", teacher, "'': no term of distill compares with a model")
    if not objective.needs_soft_targets:
        expected = "'': only distill.loss 'topk' reads them"
        _require(not soft_targets, "soft_targets", soft_targets, expected)


def check_rows(rows_per_batch: int, microbatches: int, groups: int) -> None:
    """Raises ConfigError unless the rows of a microbatch can be shared out to `groups` devices."""
    fits = rows_per_batch // microbatches % groups == 0
    expected = f"a multiple of microbatches x mesh.data x mesh.fsdp = {microbatches * groups}"
    _require(fits, "rows_per_batch", rows_per_batch, expected)


def model_config(
    *,
    init: Path | None,
    model: Mapping[str, Any],
    row_tokens: int,
    tokenizer_vocab: int,
    ids: Mapping[str, Any] | None = None,
) -> Phi3Config:
    """The student's sizes: from `model` for "scratch", else from the config.json of `init`.

    Args:
      init: the folder that gives sizes; None = "scratch".
      model, row_tokens: as in `finetune.run`.
      tokenizer_vocab: how many ids the tokenizer of the data can produce.
      ids: bos_token_id, eos_token_id and pad_token_id for "scratch", where `model` says none.

    Raises:
      ConfigError: unknown or contradicting sizes, a vocabulary smaller than the tokenizer's, or
        rows longer than the model's context.
    """
    config = _scratch(model, tokenizer_vocab, ids or {}) if init is None else hf_config.read(init)
    if config.vocab_size < tokenizer_vocab:
        raise ConfigError(
            f"the model has {config.vocab_size} token rows, the data's tokenizer {tokenizer_vocab} "
            "ids; build the mask with the model's own tokenizer, or set model.vocab_size to 0"
        )
    longest = config.max_position_embeddings
    expected = f"at most the model's max_position_embeddings {longest}"
    _require(row_tokens <= longest, "row_tokens", row_tokens, expected)
    return config


def _scratch(model: Mapping[str, Any], tokenizer_vocab: int, ids: Mapping[str, Any]) -> Phi3Config:
    known = {field.name for field in fields(Phi3Config)} - {"hf_text"}
    if unknown := sorted(set(model) - known):
        raise ConfigError(f"model has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    # Phi-3's own ids mean nothing in another tokenizer's vocabulary.
    sizes: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    sizes |= model
    if not sizes.get("vocab_size"):
        sizes["vocab_size"] = -(-tokenizer_vocab // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    if sizes["vocab_size"] >= tokenizer_vocab:  # else the caller says what is wrong
        sizes |= {name: i for name, i in ids.items() if name not in model}
    if isinstance(sizes.get("rope_scaling"), Mapping):
        rope: dict[str, Any] = dict(sizes["rope_scaling"])
        if unknown := sorted(set(rope) - {field.name for field in fields(LongRope)}):
            raise ConfigError(f"model.rope_scaling has no {', '.join(unknown)}")
        for name in {"short_factor", "long_factor"} & set(rope):
            rope[name] = tuple(rope[name])
        sizes["rope_scaling"] = LongRope(**rope)
    try:
        return Phi3Config(**sizes)
    except TypeError as error:
        raise ConfigError(f"model: {error}; sizes are numbers") from None


def tokenizer_vocab(provenance: Mapping[str, Any], where: Path) -> int:
    """How many ids the tokenizer of a masked file has; DataError if the file does not say."""
    size = provenance.get("vocab_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise DataError(
            f"{where} says vocab_size {size!r}; expected the tokenizer's number of ids, as "
            "`opengrok mask` writes it"
        )
    return size


def mask_seed(provenance: Mapping[str, Any], where: Path) -> int:
    """The seed that a masked file was drawn with; DataError if the file does not say."""
    seed = provenance.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise DataError(
            f"{where} says seed {seed!r}; draw 'per_epoch' goes on with the seed of the mask, as "
            "`opengrok mask` writes it"
        )
    return seed


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Raises RunFolderError if a run in `out` was begun with other settings than `FREE` ones."""
    was, wanted = ({k: v for k, v in side.items() if k not in FREE} for side in (before, now))
    if changed := differences(was, wanted):
        shown = "; ".join(changed[:4]) + (f"; and {len(changed) - 4} more" if changed[4:] else "")
        raise RunFolderError(
            f"the training in {out} was begun with other settings: {shown}. Give another folder, "
            f"or remove {out / 'checkpoints'} to begin anew"
        )


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}; expected {expected}")
