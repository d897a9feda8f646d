import gzip
import json
from typing import Any

import pytest

from opengrok_jax import storage
from opengrok_jax.curation.contamination import SHIPPED, contamination, index, keys
from opengrok_jax.curation.looks import Settings
from opengrok_jax.errors import DataError
from tests.curation.curation_rows import prompt, response

POST = "Viewed a studio today where the shower is next to the oven, plus bills"


def look(said, asked="Sum up", posts=(), texts=(POST, "So very tired", "tired")) -> Any:
    found = frozenset(key for text in texts for key in keys(text))
    to = prompt(asked, posts=posts)
    return contamination(to, response(said, to), Settings(evaluation=found))


def test_keys_of_long_and_short_texts():
    assert keys("a b c d e f g h i") == {tuple("abcdefgh"), tuple("bcdefghi")}
    assert keys("A b, c!") == {tuple("abc")}
    assert keys("Good morning!") == frozenset()


def test_eight_words_in_common_anywhere():
    assert look("Fine.").score == 0
    assert look(f"He says: {POST}").certain
    assert look("Fine.", asked=f"Sum up: {POST.upper()}").reason == "contaminated"
    assert look("Fine.", posts=(POST[:60],)).certain
    seven = " ".join(POST.split()[:7])
    assert look(f"He {seven} or so").score == 0


def test_a_short_post_counts_as_a_whole_only():
    assert look("Fine.", posts=("so VERY tired!!",)).certain
    assert look("Fine.", posts=("I am so very tired",)).score == 0
    assert look("Fine.", posts=("tired",)).score == 0


def test_without_sets_there_is_nothing_to_say():
    assert contamination(prompt(), response("x"), Settings()) is None


def test_the_index_reads_what_the_tasks_read(tmp_path):
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    storage.write_jsonl(plain, [{"text": "a b c", "label": "x"}])
    with gzip.open(packed, "wt") as file:
        file.write(json.dumps({"tokens": ["d", "e", "f"], "tags": ["O", "O", "O"]}) + "\n")
    assert index([plain, packed]) == {tuple("abc"), tuple("def")}
    storage.write_jsonl(plain, [{"words": "a"}])
    with pytest.raises(DataError, match="row 1: has no"):
        index([plain])


def test_the_posts_that_ship_are_not_those_of_the_tasks(repository):
    found = index(sorted(SHIPPED.glob("*.jsonl")))
    assert len(found) > 1000
    bank = storage.read_jsonl(repository / "opengrok_jax/assets/posts.jsonl")
    assert [row["text"] for row in bank if keys(row["text"]) & found] == []
