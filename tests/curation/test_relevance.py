import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import storage
from opengrok_jax.curation import relevance as relevance_module
from opengrok_jax.curation.looks import PROSE, Look, Settings
from opengrok_jax.curation.relevance import relevance, terms, weight
from opengrok_jax.records import Prompt
from tests.curation.curation_rows import prompt, response

ASKED = "Sum up.\n\n1. The Kestrel 9 ships without a charger, pay 40 for one!"
POSTS = ("The Kestrel 9 ships without a charger, pay 40 for one!", "my old Kestrel came with two")


def look(said, intent="trend_summary", asked=ASKED, posts=POSTS) -> Any:
    to = prompt(asked, intent=intent, posts=posts)
    return relevance(to, response(said, to), Settings())


def test_common_words_weigh_little_and_unknown_ones_most():
    assert weight("the") < 1 < weight("album") < weight("zzyzx") == pytest.approx(6.447, abs=0.1)


def test_words_are_stems_and_tags_are_words():
    assert terms("#FreeBuses chargers charger's Charger") == {"free", "buse", "charge"}
    assert terms("#Kestrel9 Kestrel9") == {"kestre", "9"}


def test_on_topic_and_off():
    assert look("Most are annoyed that a charger for the Kestrel costs extra.").score < 0.5
    off = look("The weather was lovely and the whole family went to see the sea.")
    assert (off.reason, off.certain, off.score) == ("off_topic", True, 1.0)
    assert "nothing" in off.detail


def test_labels_and_short_answers_are_not_hit():
    far = "The weather was lovely and the whole family went to see the sea."
    assert look(far, intent="sentiment") is None
    assert look(far, intent="a_task_of_the_user") is None
    assert look("Not good at all.") is None


def test_a_question_without_telling_words_has_no_wrong_answer():
    assert look("The weather was lovely and the whole family went.", "platform_post",
                "Write something funny.", ()) is None  # fmt: skip


@given(st.lists(st.sampled_from(["kestrel", "charger", "the", "of", "sea", "nine"]), min_size=9))
def test_more_of_the_question_is_never_worse(row):
    said = " ".join(row)
    assert look(f"{said} charger").score <= look(f"{said} of").score


def test_answers_exchanged_between_events(tmp_path):
    from opengrok_jax.prompts import plan

    shipped = Path(relevance_module.__file__).parents[1] / "assets" / "recorded.jsonl"
    recorded = {row["id"]: row for row in storage.read_jsonl(shipped)}
    plan.run(out=tmp_path, count=len(recorded))
    prompts = storage.read_records(tmp_path / "prompts.jsonl", Prompt)
    good = [p for p in prompts if p.cell.intent in PROSE and not recorded[p.id].get("flaw")]
    chance = random.Random(0)

    def looks(exchanged: bool) -> list[Look]:
        found = []
        for p in good:
            others = [q for q in good if q.cell.event != p.cell.event]
            source = chance.choice(others) if exchanged else p
            found.append(relevance(p, response(recorded[source.id]["response"], p), Settings()))
        return [x for x in found if x is not None]

    own, other = looks(False), looks(True)
    assert not any(x.certain for x in own)
    assert sum(x.reason is not None for x in own) <= 2
    assert sum(x.certain for x in other) / len(other) > 0.25
    assert sum(x.reason is not None for x in other) / len(other) > 0.45
