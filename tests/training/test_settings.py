import dataclasses
import inspect

import pytest

from opengrok_jax.errors import ConfigError, DataError, RunFolderError
from opengrok_jax.model.config import LongRope, Phi3Config
from opengrok_jax.training import finetune
from opengrok_jax.training.settings import (
    FREE,
    check,
    check_rows,
    check_same,
    lora_options,
    model_config,
    tokenizer_vocab,
)


@pytest.fixture
def given(settings, tmp_path):
    """Every argument of `finetune.run`."""
    parameters = inspect.signature(finetune.run).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**defaults, **settings, "out": tmp_path / "out"}


def test_good_settings_pass(given):
    check(given)
    check(given | {"mesh": {"fsdp": -1}, "learning_rate": 1, "patience": 3})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rule", "hide", "one of none, multiply, exclude"),
        ("normalize", "mean", "one of token, example"),
        ("remat", "some", "one of none, full, dots"),
        ("attention", "flash", "one of auto, dense, blockwise, splash, cudnn"),
        ("dtype", "float16", "one of float32, bfloat16"),
        ("param_dtype", "int8", "one of float32, bfloat16"),
        ("moments_dtype", "float16", "one of float32, bfloat16"),
        ("schedule", "step", "one of cosine, linear, constant"),
        ("final_share", 1, "a number from 0 to below 1"),
        ("b1", 1.0, "a number from 0 to below 1"),
        ("b2", -0.1, "a number from 0 to below 1"),
        ("eps", 0, "a number above 0"),
        ("row_tokens", 1, "a whole number from 2"),
        ("rows_per_batch", 0, "a whole number from 1"),
        ("rows_per_batch", 4.0, "a whole number from 1"),
        ("microbatches", True, "a whole number from 1"),
        ("microbatches", 3, "a divisor of rows_per_batch 4"),
        ("max_steps", -1, "a whole number from 0"),
        ("eval_every", "4", "a whole number from 0"),
        ("patience", -1, "a whole number from 0"),
        ("save_every", None, "a whole number from 0"),
        ("seed", -3, "a whole number from 0"),
        ("epochs", 0.0, "a number above 0"),
        ("learning_rate", 0, "a number above 0"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("learning_rate", "1e-3", "a number above 0"),
        ("warmup_share", 1.0, "a number from 0 to below 1"),
        ("weight_decay", -0.1, "a number 0 or more"),
        ("clip_norm", 0.0, "a number above 0"),
        ("clip_norm", float("inf"), "a number above 0"),
        ("min_improvement", -1e-9, "a number 0 or more"),
        ("mesh", 8, "a size for each of data, fsdp, tensor"),
        ("mesh", {"model": 1}, "axes data, fsdp, tensor"),
        ("mesh", {"data": 0}, "a whole number, or -1"),
        ("init", "phi-3-mini", "'scratch', a folder of Hugging Face or of a student, or a name"),
        ("init", "", "'scratch', a folder of Hugging Face or of a student, or a name"),
    ],
)
def test_a_wrong_value_is_named(given, name, value, said):
    with pytest.raises(ConfigError, match=name) as caught:
        check(given | {name: value})
    assert said in str(caught.value)


def test_every_argument_is_looked_at(given):
    """None is wrong for all of them but those that are checked elsewhere."""
    for name in set(given) - {"masked_file", "out", "model", "lora", "distill"}:
        with pytest.raises((ConfigError, TypeError)):
            check(given | {name: None})


def test_settings_of_adamw_that_do_not_fit_together_are_refused(given):
    check(given | {"schedule": "linear", "final_share": 0.1, "b2": 0.999})
    check(given | {"schedule": "constant", "moments_dtype": "bfloat16", "b2": 0.99})
    with pytest.raises(ConfigError, match=r"final_share is 0\.1; expected 0 with schedule 'const"):
        check(given | {"schedule": "constant", "final_share": 0.1})
    for name in ("b1", "b2"):
        with pytest.raises(ConfigError, match=rf"{name} is 0\.999; expected below 0\.99609"):
            check(given | {"moments_dtype": "bfloat16", name: 0.999})


def test_patience_needs_evaluations(given):
    with pytest.raises(ConfigError, match="patience is 2; expected 0 with eval_every 0"):
        check(given | {"eval_every": 0, "patience": 2})


def test_a_name_on_the_hub_is_not_asked_for_yet(given):
    check(given | {"init": "me/model@v1"})


FOUR = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def test_adapters_are_asked_for_by_rank():
    for nothing in (None, {}, {"rank": 0, "alpha": 32}, {"rank": 0, "alpha": 1.0, "targets": FOUR}):
        assert lora_options(nothing, "/a/folder") is None
        assert lora_options(nothing, "scratch") is None
    given = {"rank": 16, "alpha": 32}
    assert lora_options(given, "/a/folder") == given | {"targets": FOUR}
    some = ("down_proj", "qkv_proj")
    found = lora_options(given | {"targets": some}, "/a/folder")
    assert found == given | {"targets": ["qkv_proj", "down_proj"]}, "their order plays no part"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": 8}, "lora has no r; it has rank, alpha, targets"),
        ({"rank": -1}, "lora.rank is -1; expected a whole number"),
        ({"rank": 2.0}, r"lora.rank is 2\.0"),
        ({"rank": True}, "lora.rank is True"),
        ({"alpha": 0}, "lora.alpha is 0; expected a number above 0"),
        ({"alpha": None}, "lora.alpha is None"),
        ({"alpha": float("nan")}, "lora.alpha is nan"),
        ({"targets": ()}, "lora.targets is .*; expected some of qkv_proj, o_proj"),
        ({"targets": "qkv_proj"}, "lora.targets is 'qkv_proj'"),
        ({"targets": ("q_proj",)}, "lora.targets"),
        ({"targets": ("o_proj", "o_proj")}, "each once"),
    ],
)
def test_wrong_adapters_are_named(change, said):
    with pytest.raises(ConfigError, match=said):
        lora_options({"rank": 8, "alpha": 16} | change, "/a/folder")


def test_adapters_on_random_weights_are_refused():
    with pytest.raises(ConfigError, match="give a Hugging Face folder as init, or set"):
        lora_options({"rank": 8, "alpha": 16}, "scratch")
    with pytest.raises(ConfigError, match="lora is 8"):
        lora_options(8, "/a/folder")


def test_rows_are_shared_out_evenly():
    check_rows(16, 2, 8)
    with pytest.raises(ConfigError, match=r"rows_per_batch is 12; expected a multiple of .* = 16"):
        check_rows(12, 2, 8)


class TestModelConfig:
    def config(self, model, init=None, row_tokens=48, vocab=61):
        return model_config(init=init, model=model, row_tokens=row_tokens, tokenizer_vocab=vocab)

    def test_vocabulary_is_the_tokenizers_rounded_up(self, settings):
        assert self.config(settings["model"]).vocab_size == 64
        assert self.config(settings["model"], vocab=64).vocab_size == 64
        assert self.config(settings["model"] | {"vocab_size": 0}, vocab=65).vocab_size == 128
        assert self.config(settings["model"] | {"vocab_size": 70}).vocab_size == 70

    def test_the_tokenizers_ids_stand_where_the_model_says_none(self, settings):
        def config(vocab, **said):
            ids = {"bos_token_id": 1, "eos_token_id": (59, 60), "pad_token_id": 59}
            given = settings["model"] | said
            return model_config(
                init=None, model=given, row_tokens=48, tokenizer_vocab=vocab, ids=ids
            )

        found = config(61, pad_token_id=3)
        assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (1, (59, 60), 3)
        with pytest.raises(ConfigError, match="the data's tokenizer 61 ids"):
            config(61, vocab_size=50)

    def test_sizes_reach_the_config(self, settings):
        config = self.config(settings["model"] | {"rope_theta": 5000.0})
        assert (
            dataclasses.asdict(config).items()
            >= (settings["model"] | {"rope_theta": 5000.0}).items()
        )

    def test_long_rope_from_a_dict(self, settings):
        rope = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
        more = {"rope_scaling": rope, "original_max_position_embeddings": 32}
        assert self.config(settings["model"] | more).rope_scaling == LongRope(
            short_factor=(1.0,) * 4, long_factor=(2.0,) * 4
        )
        more["rope_scaling"] = rope | {"factors": 1}
        with pytest.raises(ConfigError, match="rope_scaling has no factors"):
            self.config(settings["model"] | more)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"layers": 2}, "model has no layers; it has "),
            ({"vocab_size": 60}, "the model has 60 token rows, the data's tokenizer 61 ids"),
            ({"hidden_size": 30}, "does not divide"),
            ({"hidden_size": "32"}, "model: "),
            ({"max_position_embeddings": 47}, "row_tokens is 48"),
        ],
    )
    def test_wrong_sizes_are_refused(self, settings, changes, said):
        with pytest.raises(ConfigError, match=said):
            self.config(settings["model"] | changes)

    def test_a_checkpoint_brings_its_own(self, tmp_path):
        from opengrok_jax.model import hf_config

        config = Phi3Config.tiny(61)
        (tmp_path / "config.json").write_text(hf_config.write(config, "float32"))
        assert self.config({"hidden_size": 8}, init=tmp_path) == config
        with pytest.raises(ConfigError, match="61 token rows, the data's tokenizer 62"):
            self.config({}, init=tmp_path, vocab=62)


@pytest.mark.parametrize("provenance", [{}, {"vocab_size": "61"}, {"vocab_size": 0}])
def test_a_file_that_hides_its_vocabulary_is_refused(provenance, tmp_path):
    with pytest.raises(DataError, match="says vocab_size"):
        tokenizer_vocab(provenance, tmp_path)


def test_another_run_is_refused_and_free_settings_are_free(tmp_path):
    before = {"seed": 1, "learning_rate": 0.1, **dict.fromkeys(FREE, 1)}
    check_same(before, before | dict.fromkeys(FREE, 2), tmp_path)
    with pytest.raises(RunFolderError, match=r"seed was 1, now 2\. Give another folder"):
        check_same(before, before | {"seed": 2}, tmp_path)
