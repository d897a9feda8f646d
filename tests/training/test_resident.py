"""The resident trainer against `finetune.run`, of which it is the short form."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError, TrainingError
from opengrok_jax.masked_file import write_masked
from opengrok_jax.model.student import load_student
from opengrok_jax.training import finetune, resident
from tests.training.conftest import VOCAB

DEFAULTS = {
    name: one.default
    for name, one in inspect.signature(finetune.run).parameters.items()
    if one.default is not inspect.Parameter.empty
}


@pytest.fixture(scope="module")
def file(examples, tmp_path_factory):
    """The examples with probabilities to redraw from and to weigh by."""
    rng = np.random.default_rng(3)
    rows = []
    for example in examples:
        keep = rng.uniform(0.3, 1, len(example.tokens)).astype(np.float32)
        keep[0] = 1
        rows.append(dataclasses.replace(example, keep_prob=keep))
    path = tmp_path_factory.mktemp("resident") / "masked.parquet"
    write_masked(path, rows, {"tokenizer": "", "vocab_size": VOCAB, "seed": 5})
    return path


@pytest.fixture(scope="module")
def given(settings):
    changes = {"eval_every": 0, "patience": 0, "max_steps": 7, "epochs": 9.0}
    changes["microbatches"] = 1
    given = {**DEFAULTS, **settings, **changes}
    del given["masked_file"]
    return given


@pytest.fixture(scope="module")
def trainer():
    return resident.Trainer()


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "exclude", "seed": 3},
        {"rule": "multiply", "draw": "per_epoch", "loss_weight": "keep_prob"},
    ],
)
def test_it_is_what_finetune_computes(trainer, given, file, tmp_path, changes):
    wanted = given | changes
    finetune.run(masked_file=file, out=tmp_path, **wanted)
    expected, _ = load_student(tmp_path / "student")
    metrics = [m["train_loss"] for m in storage.read_jsonl(tmp_path / "metrics.jsonl")]
    found = trainer.train(wanted, masked_file=file)
    assert [step for step, _ in found.losses] == list(range(1, len(metrics) + 1))
    np.testing.assert_allclose([loss for _, loss in found.losses], metrics, atol=2e-4)
    from flax import nnx

    pairs = zip(
        jax.tree.leaves(nnx.state(found.model, nnx.Param)),
        jax.tree.leaves(nnx.state(expected, nnx.Param)),
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_seeds_and_masks_share_a_program(trainer, given, file):
    first = trainer.train(given | {"seed": 1}, masked_file=file)
    programs = len(trainer._programs)
    again = trainer.train(given | {"seed": 2}, masked_file=file)
    assert len(trainer._programs) == programs
    assert again.figures["seconds_compiling"] == 0
    assert again.losses != first.losses
    same = trainer.train(given | {"seed": 1}, masked_file=file)
    assert same.losses == first.losses
    assert same.figures["tokens"] == first.figures["tokens"] > 0


def test_the_untrained_one_is_its_first_weights(trainer, given, file):
    found = trainer.train(given, masked_file=file, untrained=True)
    assert found.losses == []
    assert found.figures["tokens"] == found.figures["steps"] == 0
    trained = trainer.train(given, masked_file=file)
    embedding = np.asarray(found.model.embed_tokens.weight[...])
    assert 0.1 < embedding.std() / given["model"].get("initializer_range", 0.02) < 10
    assert not np.allclose(embedding, trained.model.embed_tokens.weight[...])


def test_what_only_a_long_run_can_is_refused(trainer, given, file):
    for name, value in (("eval_every", 5), ("lora", {"rank": 2, "alpha": 4.0})):
        with pytest.raises(ConfigError, match=f"training.{name} is"):
            trainer.train(given | {name: value}, masked_file=file)
    with pytest.raises(ConfigError, match="rule is 'maybe'"):
        trainer.train(given | {"rule": "maybe"}, masked_file=file)


def test_a_loss_that_is_not_finite_names_its_step(trainer, given, file):
    with pytest.raises(TrainingError, match=r"step \d+ of seed"):
        trainer.train(given | {"learning_rate": 1e30, "clip_norm": 1e30}, masked_file=file)


def test_a_missing_file_is_named(trainer, given, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        trainer.train(given, masked_file=tmp_path / "none.parquet")
