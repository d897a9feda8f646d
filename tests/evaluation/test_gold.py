import json
from pathlib import Path

import pytest

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation import gold
from opengrok_jax.evaluation.answers import read_answer
from opengrok_jax.evaluation.tasks import load_items, make_task
from opengrok_jax.prompts import from_posts


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_several_tasks_become_one_file_that_the_plan_reads(tmp_path: Path) -> None:
    moods = write(
        tmp_path / "moods.jsonl",
        {"text": "so glad", "label": "joy"},
        {"text": "so glad", "label": "joy"},  # once is enough
        {"text": "meh", "label": "joy"},
        {"text": "meh", "label": "anger"},  # two answers: neither is learnt
        {"text": "", "label": "anger"},
    )
    names = write(
        tmp_path / "names.jsonl", {"tokens": ["Ada", "met", "Bo"], "tags": ["B-person", "O", "O"]}
    )
    out = tmp_path / "gold.jsonl"
    files = {"tweeteval-emotion": moods, "wnut17": names}
    assert gold.run(files=files, out=out) == {
        "rows": {"tweeteval-emotion": 1, "wnut17": 1},
        "left_out": 3,
    }
    prompts = from_posts.plan(posts_file=str(out), task="", instruction="", count=0)
    assert {(p.cell.intent, p.posts[0], p.label) for p in prompts} == {
        ("tweeteval-emotion", "so glad", "joy"),
        ("wnut17", "Ada met Bo", "person: Ada"),
    }
    for prompt in prompts:  # asked as the evaluation asks
        task = make_task(prompt.cell.intent, {"file": files[prompt.cell.intent]})
        assert prompt.messages[0].content in [task.ask(item) for item in load_items(task)]


@pytest.mark.parametrize(
    "set_", ["ner/wnut17.train", "topic/xtopic-en.train", "summ/tweetsumm.train"]
)
def test_real_training_sets_read_as_their_gold(
    shared_data: Path, tmp_path: Path, set_: str
) -> None:
    name = set_.split("/")[1].split(".")[0]
    file = str(shared_data / f"{set_}.jsonl.gz")
    told = gold.run(files={name: file}, out=tmp_path / "gold.jsonl", count=200)
    task = make_task(name, {"file": file})
    items = {task.ask(item): item for item in load_items(task, 200)}
    rows = list(storage.read_jsonl(tmp_path / "gold.jsonl"))
    assert len(rows) == told["rows"][name] > 150
    same = 0
    for row in rows:
        item = items[row["question"]]
        read = read_answer(task, item, row["label"])
        same += read == (item.gold[0].strip() if task.kind == "summary" else item.gold)
    # A name that stands in a post twice, tagged once, comes back tagged twice: that is rare.
    assert same >= 0.97 * len(rows)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one task"):
        gold.run(files={}, out=tmp_path / "x")
    with pytest.raises(DataError, match="no such file"):
        gold.run(files={"umsab": "nowhere"}, out=tmp_path / "x")
    clusters = write(tmp_path / "c.jsonl", {"text": "a", "label": "5"})
    with pytest.raises(ConfigError, match="nobody can answer"):
        gold.run(files={"sttm-tweet": clusters}, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
