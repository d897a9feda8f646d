"""A student to ask."""

import shutil

import pytest


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A random Hugging Face folder with the tokenizer beside it; it talks on and on."""
    nnx = pytest.importorskip("flax.nnx")
    from opengrok_jax import tokenizer as tokenizers
    from opengrok_jax.model.config import Phi3Config
    from opengrok_jax.model.phi3 import Phi3
    from opengrok_jax.model.weights import save_hf

    folder = tmp_path_factory.mktemp("generate") / "student"
    config = Phi3Config.tiny(
        tokenizers.load().vocab_size,
        num_hidden_layers=1,
        initializer_range=0.3,
        max_position_embeddings=4096,
    )
    save_hf(Phi3(config, rngs=nnx.Rngs(0)), config, folder)
    shutil.copy(tokenizers.EMBEDDED, folder / "tokenizer.json")
    return folder
