import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.sampling import Sampling, sample

DRAWS = 20_000


def frequencies(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """How often each token came in DRAWS independent rows."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    rows = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (DRAWS, len(logits)))
    drawn = jax.jit(sample)(rows, keys, temperature, top_p)
    return np.bincount(np.asarray(drawn), minlength=len(logits)) / DRAWS


def test_the_drawing() -> None:
    """Of 0.1 0.5 0.15 0.25 the second and fourth stay at 0.7, in the ratio 2 to 1."""
    found = frequencies(np.log([0.1, 0.5, 0.15, 0.25]), 1.0, 0.7)
    assert found[[0, 2]].tolist() == [0, 0]
    np.testing.assert_allclose(found[[1, 3]], [2 / 3, 1 / 3], atol=0.02)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.6, 0.8), (1.0, 0.35)])
def test_frequencies_are_those_of_the_warpers_of_transformers(
    temperature: float, top_p: float
) -> None:
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers").generation.logits_process
    logits = np.random.default_rng(2).normal(0, 2, 11).astype(np.float32)
    scores = warpers.TemperatureLogitsWarper(temperature)(None, torch.tensor(logits)[None])
    scores = warpers.TopPLogitsWarper(top_p)(None, scores)
    expected = torch.softmax(scores, -1)[0].numpy()
    found = frequencies(logits, temperature, top_p)
    assert (found[expected == 0] == 0).all()
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_most_likely_token_always_stays() -> None:
    assert frequencies(np.array([0.0, 1.0, 0.9]), 1.0, 1e-6).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": -0.1}, "temperature=-0.1: expected 0 or a positive"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p=0.0: expected a number above 0"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p=1.1"),
        ({"temperature": 1.0, "seed": -1}, "seed=-1"),
        ({"top_p": 0.9}, "changes nothing at temperature 0"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Sampling(**wrong)  # pyright: ignore[reportArgumentType]
