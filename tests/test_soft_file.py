import dataclasses

import numpy as np
import pytest

from opengrok_jax import soft_file
from opengrok_jax.errors import DataError
from opengrok_jax.records import MaskedExample
from opengrok_jax.soft_file import ABSENT, SoftFile, SoftRows

K = 3


def example(number: int, roles: list[int]) -> MaskedExample:
    factor = np.zeros(len(roles), np.float32)
    return MaskedExample(
        id=f"id{number}",
        split="train",
        tokens=np.arange(number, number + len(roles), dtype=np.int32),
        roles=np.array(roles, np.int8),
        tfidf=factor,
        pos=factor,
        dep=factor,
        random=factor,
        keep_prob=factor,
        key_mask=np.ones(len(roles), bool),
    )


EXAMPLES = [
    example(0, [0, 1, 0, 2, 2]),
    example(10, [0, 1, 2]),
    example(20, [0, 1, 0, 2, 2, 2]),
]


def soft_rows(of: MaskedExample) -> SoftRows:
    rng = np.random.default_rng(len(of.tokens))
    count = len(soft_file.response_positions(of))
    ids = rng.integers(0, 99, (count, K)).astype(np.int32)
    ids[-1, -1] = ABSENT
    logprobs = np.log(rng.dirichlet(np.ones(K + 1), count)[:, :K]).astype(np.float32)
    return SoftRows(
        id=of.id,
        fits=soft_file.checksum(of),
        ids=ids,
        logprobs=np.where(ids == ABSENT, 0, logprobs).astype(np.float32),
    )


@pytest.fixture
def folder(tmp_path):
    soft_file.write_part(tmp_path, 0, [soft_rows(EXAMPLES[0])], k=K)
    soft_file.write_part(tmp_path, 1, [soft_rows(EXAMPLES[1])], k=K)
    soft_file.finish(tmp_path, parts=2, k=K, facts={"teacher": "t"})
    return tmp_path


def test_what_is_written_is_read_to_the_bit(folder):
    opened = SoftFile(folder)
    assert (len(opened), opened.k, opened.facts) == (2, K, {"teacher": "t"})
    for one in EXAMPLES[:2]:
        found, expected = opened.rows(one), soft_rows(one)
        assert found is not None
        assert (found.id, found.fits) == (expected.id, expected.fits)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.logprobs, expected.logprobs)
        assert (found.ids.dtype, found.logprobs.dtype) == (np.int32, np.float32)
    assert opened.rows(EXAMPLES[2]) is None


def test_response_positions_are_the_drawing():
    assert soft_file.response_positions(EXAMPLES[0]).tolist() == [2, 3]


def test_other_tokens_or_roles_are_refused(folder):
    opened = SoftFile(folder)
    for name, value in (("tokens", 1), ("roles", 0)):
        changed = getattr(EXAMPLES[0], name).copy()
        changed[1] = value + 2
        with pytest.raises(DataError, match="example id0 were made for other tokens"):
            opened.rows(dataclasses.replace(EXAMPLES[0], **{name: changed}))


def test_rows_that_do_not_match_the_response_are_refused(tmp_path):
    whole = soft_rows(EXAMPLES[0])
    short = dataclasses.replace(whole, ids=whole.ids[:1], logprobs=whole.logprobs[:1])
    soft_file.write_part(tmp_path, 0, [short], k=K)
    soft_file.finish(tmp_path, parts=1, k=K, facts={})
    with pytest.raises(DataError, match="2 response tokens and 1 stored"):
        SoftFile(tmp_path).rows(EXAMPLES[0])
    wide = dataclasses.replace(whole, ids=whole.ids[:, :2])
    with pytest.raises(DataError, match=r"id0: expected int32 ids .* of 3 slots, got int32 .2, 2."):
        soft_file.write_part(tmp_path, 0, [wide], k=K)


def test_an_unfinished_or_broken_folder_is_one_line(folder):
    path = soft_file.part(folder, 1)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"part-00001\.arrow: not a readable Arrow file"):
        SoftFile(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"part-00001\.arrow"):
        SoftFile(folder)
    (folder / "manifest.json").write_text('{"parts": 1}')
    with pytest.raises(DataError, match="expected parts, k and facts"):
        SoftFile(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="no finished soft targets"):
        SoftFile(folder)


def test_coverage_counts_tokens_and_mass():
    ids = np.array([[4, ABSENT], [ABSENT, ABSENT]], np.int32)
    logprobs = np.array([[np.log(0.5), 0], [0, 0]], np.float32)
    row = SoftRows(id="x", fits=0, ids=ids, logprobs=logprobs)
    figures = soft_file.coverage([row])
    assert figures == {
        "response_tokens": 2,
        "aligned_share": 0.5,
        "mean_stored_mass": pytest.approx(0.5),
    }
    assert soft_file.coverage([])["aligned_share"] == 0
