import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import random as jax_random
from scipy import stats

from opengrok_jax import chance

# Known answers of the authors' own tests (Random123, kat_vectors): counter, key, result.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_the_known_answers_of_its_authors(counter, key, result):
    words = [np.array([word], np.uint32) for word in (*key, *counter)]
    assert [int(word[0]) for word in chance.threefry(*words)] == list(result)


def test_it_is_jaxs_generator():
    words = np.random.default_rng(0).integers(0, 2**32, (4, 50), dtype=np.uint32)
    ours = chance.threefry(*words)
    for at in range(50):
        theirs = jax_random.threefry_2x32(jnp.array(words[:2, at]), jnp.array(words[2:, at]))
        assert [int(ours[0][at]), int(ours[1][at])] == [int(word) for word in theirs]


def test_numpy_and_a_device_give_the_same_bits():
    key = chance.keys(3, [f"id{n}" for n in range(40)], "draw")
    index = np.arange(40, dtype=np.uint32)
    epoch = np.full(40, 7, np.uint32)
    there = jax.jit(chance.uniform)(key, index, epoch)
    here = chance.uniform(key, index, epoch)
    np.testing.assert_array_equal(np.asarray(there), here)
    assert here.dtype == there.dtype == np.float32


def scalar(seed: int, name: str, purpose: str, index: int) -> float:
    """One number at a time, in Python's own integers."""
    body = json.dumps([seed, name, purpose], ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(body.encode()).hexdigest()
    word = 2**32 - 1
    k = [int(digest[:8], 16), int(digest[8:16], 16)]
    k.append(k[0] ^ k[1] ^ 0x1BD11BDA)
    x, y = (index + k[0]) & word, k[1]
    for n in range(20):
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[n % 8]
        x = (x + y) & word
        y = ((y << turn | y >> (32 - turn)) & word) ^ x
        if n % 4 == 3:
            step = n // 4 + 1
            x = (x + k[step % 3]) & word
            y = (y + k[(step + 1) % 3] + step) & word
    return (x >> 8) / 2**24


def test_the_key_is_the_hash_of_seed_id_and_purpose():
    got = chance.of_tokens(7, ["é1", "b", "c"], "draw", np.array([3, 0, 2]))
    expected = [scalar(7, "é1", "draw", t) for t in range(3)]
    expected += [scalar(7, "c", "draw", t) for t in range(2)]
    assert got.tolist() == expected


def test_uniform_is_uniform_and_its_streams_are_independent():
    count = 20_000
    names = ((0, "a", "random"), (0, "a", "draw"), (0, "b", "draw"), (1, "a", "draw"))
    lengths = np.array([count])
    streams = [chance.of_tokens(s, [i], p, lengths) for s, i, p in names]
    key = np.repeat(chance.keys(0, ["a"], "draw"), count, axis=0)
    index = np.arange(count, dtype=np.uint32)
    streams.append(chance.uniform(key, index, np.full(count, 1, np.uint32)))
    for stream in streams:
        assert stream.dtype == np.float32
        assert stream.min() >= 0.0
        assert stream.max() < 1.0
        assert stats.kstest(stream, "uniform").pvalue > 1e-3  # type: ignore[attr-defined]
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 4 / count**0.5


def test_half_an_emoji_in_an_id_is_an_id_like_others():
    assert chance.keys(0, ["\ud83d"], "draw").shape == (1, 2)
    assert chance.keys(0, [], "draw").shape == (0, 2)
