import pytest

from opengrok_jax import stages, storage
from opengrok_jax.errors import ConfigError


def test_every_stage_reads_what_an_earlier_one_writes():
    written: set[str] = set()
    for stage in stages.STAGES:
        for path in stage.reads.values():
            folder, _, name = path.partition("/")
            # A whole folder, a file that the manifest notes, or the student beside them.
            assert folder in written
            inside = f"{path}/{storage.MANIFEST}"
            assert not name or {path, inside} & written or name == "student"
        written |= {stage.folder} | {f"{stage.folder}/{name}" for name in stage.writes}
        earlier = {s.section for s in stages.STAGES[: stages.STAGES.index(stage)]}
        assert set(stage.borrows) <= earlier
    assert len({s.section for s in stages.STAGES}) == len(stages.STAGES)


def test_whatever_was_paid_for_outlives_redo():
    from opengrok_jax.teacher import journal_file

    assert set(stages.stage_of("collect").keep) >= set(journal_file.FILES)


def test_a_verb_that_is_none_is_told_all_others():
    with pytest.raises(
        ConfigError, match="no stage 'colect'; the stages are plan-prompts, collect"
    ):
        stages.stage_of("colect")
