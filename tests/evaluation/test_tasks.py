import gzip
import hashlib
import json
from pathlib import Path

import pytest

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation.answers import parse_entities, parse_label
from opengrok_jax.evaluation.tasks import Item, Task, bundled, load_items, make_task

OWN = {"instruction": "Irony? {post}", "labels": ["yes", "no"], "metric": "f1:yes"}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl.gz"
    body = "".join(json.dumps({"text": f"post {i}", "label": "yes"}) + "\n" for i in range(9))
    path.write_bytes(gzip.compress(body.encode()))
    return path


@pytest.mark.parametrize("name", ["sentiment", "emotion", "topic", "entities"])
def test_bundled_tasks_load(name: str) -> None:
    task = make_task(name, {})
    items = load_items(task)
    assert len(items) >= 60
    if task.labels:
        assert {item.gold for item in items} == set(task.labels)
        assert all(parse_label(str(item.gold), task.labels) == item.gold for item in items)
        # The instruction offers exactly these labels.
        assert all(label in task.instruction for label in task.labels)
    else:
        assert all(f"{kind}" in task.instruction for kind in task.types)
        for item in items:
            assert isinstance(item.gold, tuple)
            answer = "\n".join(f"{kind}: {name}" for kind, name in item.gold) or "none"
            assert parse_entities(answer, task.types) == item.gold
            assert all(surface in item.text for _, surface in item.gold)
    assert len({item.text for item in items}) == len(items)


def test_metrics_of_the_bundled_tasks() -> None:
    assert {name: task.metric for name, task in bundled().items()} == {
        "sentiment": "macro_recall",
        "emotion": "macro_f1",
        "topic": "macro_f1",
        "entities": "entity_f1",
    }


def test_a_post_with_braces_is_quoted_as_it_is() -> None:
    task = make_task("sentiment", {})
    assert task.ask("{post} {x} 100%").endswith("Post: {post} {x} 100%")


def test_tweeteval_is_a_task(shared_data: Path) -> None:
    file = shared_data / "tweeteval" / "emotion.test.jsonl.gz"
    task = make_task("emotion", {"file": str(file)})
    items = load_items(task)
    assert len(items) == 1421
    assert {item.gold for item in items} == {"anger", "joy", "optimism", "sadness"}
    sentiment = make_task(
        "sentiment", {"file": str(shared_data / "tweeteval" / "sentiment.test.jsonl.gz")}
    )
    assert len(load_items(sentiment)) == 12284


def test_own_task_and_limit(rows: Path) -> None:
    task = make_task("irony", {**OWN, "file": str(rows)})
    assert (task.labels, task.file) == (("yes", "no"), rows)
    everything, some = load_items(task), load_items(task, limit=4)
    assert [item.text for item in everything] == [f"post {i}" for i in range(9)]
    assert everything[2].id == "irony-3"
    assert some == tuple(sorted(everything, key=_digest)[:4])
    assert some != everything[:4]


def _digest(item: Item) -> bytes:
    return hashlib.sha256(item.text.encode("utf-8")).digest()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lables": ["a"]}, "no setting lables"),
        ({"metric": "f2"}, "'f2' is unknown"),
        ({"metric": "f1:maybe"}, "needs one of the labels"),
        ({"metric": "accuracy:x"}, "unknown"),
        ({"metric": "entity_f1"}, "without labels"),
        ({"types": ["person"]}, "without types"),
        ({"instruction": "no slot"}, "{post}"),
        ({"labels": ["yes", "YES"]}, "differ in more than case"),
        ({"labels": ["yes", " "]}, "non-empty"),
        ({"labels": "yes"}, "list of words"),
        ({"labels": ["yes"]}, "at least two"),
    ],
)
def test_wrong_settings(rows: Path, settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_task("irony", {**OWN, "file": str(rows), **settings})


def test_unknown_name_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"sentiment, emotion, topic, entities.*lacks file, instr"
    ):
        make_task("irony", {})
    with pytest.raises(ConfigError, match="letters, digits"):
        make_task("../x", {**OWN, "file": "x"})
    with pytest.raises(DataError, match="no such file"):
        make_task("emotion", {"file": str(tmp_path / "gone.jsonl")})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x", "label": "perhaps"}, "'perhaps' is none of task 'irony'"),
        ({"text": "x"}, "None is none of"),
        ({"label": "yes"}, 'string under "text"'),
        ({"id": 3, "text": "x", "label": "yes"}, 'string under "text"'),
        ({"id": "one", "text": "x", "label": "yes"}, "came before"),
    ],
)
def test_wrong_rows(tmp_path: Path, row: dict, said: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        json.dumps({"id": "one", "text": "fine", "label": "no"}) + "\n" + json.dumps(row)
    )
    with pytest.raises(DataError, match=f"row 2.*{said}"):
        load_items(make_task("irony", {**OWN, "file": str(file)}))


def test_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n")
    with pytest.raises(DataError, match="holds no rows"):
        load_items(make_task("irony", {**OWN, "file": str(file)}))


@pytest.mark.parametrize(
    "entities", [None, [{"text": "Rex", "type": "animal"}], [{"type": "person"}], ["Ada"]]
)
def test_wrong_entities(names: Task, entities: object) -> None:
    names.file.write_text(json.dumps({"text": "x", "entities": entities}))
    with pytest.raises(DataError, match="row 1"):
        load_items(names)


def test_entities_are_distinct_and_typed(names: Task) -> None:
    twice = [{"text": "Ada", "type": "person"}, {"text": " Ada ", "type": "person"}]
    names.file.write_text(json.dumps({"text": "Ada and Ada", "entities": twice}))
    assert load_items(names)[0].gold == (("person", "Ada"),)
