import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation.answers import parse_entities, parse_label, read_answer
from opengrok_jax.evaluation.tasks import (
    BUNDLED,
    PUBLISHED,
    Item,
    Task,
    known,
    load_items,
    make_task,
)
from opengrok_jax.evaluation.tasks.tweeteval_stance import TARGETS

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
    assert {name: make_task(name, {}).metric for name in BUNDLED} == {
        "sentiment": "macro_recall",
        "emotion": "macro_f1",
        "topic": "macro_f1",
        "entities": "entity_f1",
    }


def test_a_post_with_braces_is_quoted_as_it_is() -> None:
    task = make_task("sentiment", {})
    item = Item(id="1", text="{post} {x} 100%", gold="neutral")
    assert task.ask(item).endswith("Post: {post} {x} 100%")


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
        ({"metric": "entity_f1"}, "unknown for kind 'label'"),
        ({"types": ["person"]}, "without labels and with types"),
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
        ConfigError,
        match=r"sentiment, emotion, topic, entities, tweeteval-emoji.*lacks file, instr",
    ):
        make_task("irony", {})
    with pytest.raises(ConfigError, match="letters, digits"):
        make_task("../x", {**OWN, "file": "x"})
    with pytest.raises(DataError, match="no such file"):
        make_task("emotion", {"file": str(tmp_path / "gone.jsonl")})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "x", "label": 2}, "2 is none of"),
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
    assert names.file is not None
    names.file.write_text(json.dumps({"text": "x", "entities": entities}))
    with pytest.raises(DataError, match="row 1"):
        load_items(names)


def test_entities_are_distinct_and_typed(names: Task) -> None:
    twice = [{"text": "Ada", "type": "person"}, {"text": " Ada ", "type": "person"}]
    assert names.file is not None
    names.file.write_text(json.dumps({"text": "Ada and Ada", "entities": twice}))
    assert load_items(names)[0].gold == (("person", "Ada"),)


# ---- published tasks ----------------------------------------------------------------------------

ROWS = {
    "tweeteval-emoji": {"text": "x", "label": 2},
    "tweeteval-emotion": {"text": "x", "label": "joy"},
    "tweeteval-hate": {"text": "x", "label": "not_hate"},
    "tweeteval-irony": {"text": "x", "label": 1},
    "tweeteval-offensive": {"text": "x", "label": "offensive"},
    "tweeteval-sentiment": {"text": "x", "label": "neutral"},
    "tweeteval-stance": {"text": "x", "label": "favor", "target": "hillary"},
    "tweettopic": {"text": "x", "labels": ["sports", "music"]},
    "xtopic-en": {"text": "x", "labels": ["sports"]},
    "xtopic-es": {"text": "x", "labels": ["sports"]},
    "xtopic-el": {"text": "x", "labels": ["sports"]},
    "xtopic-ja": {"text": "x", "labels": ["sports"]},
    "wnut17": {"tokens": ["Ada", "L"], "tags": ["B-person", "I-person"]},
    "btc": {"tokens": ["Ada", "L"], "tags": ["B-PER", "I-PER"]},
    "tweetsumm": {"turns": ["hi", "there"], "summaries": ["they greet"]},
    "umsab": {"text": "x", "label": "negative", "language": "hindi"},
    "sttm-tweet": {"text": "x", "label": "17"},
}


def test_every_published_task_reads_the_layout(tmp_path: Path) -> None:
    assert set(ROWS) == set(PUBLISHED)
    assert not set(PUBLISHED) & set(BUNDLED)
    for name, row in ROWS.items():
        task = known(name)
        assert task is not None
        file = tmp_path / task.local
        file.parent.mkdir(exist_ok=True)
        body = (json.dumps(row) + "\n") * 2
        file.write_bytes(gzip.compress(body.encode()) if file.suffix == ".gz" else body.encode())
        item, _ = load_items(make_task(name, {}, str(tmp_path)))
        assert item.text in task.ask(item)
        assert "{" not in task.ask(item), name
        if task.kind == "label":
            assert all(word in task.instruction for word in task.spelled), name
            assert item.gold in task.labels


def test_what_the_rows_become(tmp_path: Path) -> None:
    def item_of(name: str, row: dict) -> Item:
        file = tmp_path / "row.jsonl"
        file.write_text(json.dumps(row))
        return load_items(make_task(name, {"file": str(file)}))[0]

    assert item_of("tweeteval-emoji", ROWS["tweeteval-emoji"]).gold == "😂"
    assert item_of("tweeteval-emoji", {"text": "x", "label": "_red_heart_"}).gold == "❤"
    assert item_of("tweeteval-emoji", {"text": "x", "label": "❤️"}).gold == "❤"
    assert item_of("tweeteval-hate", {"text": "x", "label": "not hateful"}).gold == "not_hate"
    stance = item_of("tweeteval-stance", ROWS["tweeteval-stance"])
    assert (stance.group, stance.gold) == ("hillary", "favor")
    asked = make_task("tweeteval-stance", {"file": str(tmp_path / "row.jsonl")}).ask(stance)
    assert "in favor of Hillary Clinton" in asked
    nameless = item_of("tweeteval-stance", {"text": "x", "label": "none"})
    assert nameless.group == ""
    assert item_of("tweettopic", ROWS["tweettopic"]).gold == ("music", "sports")  # the task's order
    ner = item_of("wnut17", ROWS["wnut17"])
    assert (ner.text, ner.tokens, ner.gold) == ("Ada L", ("Ada", "L"), ("B-person", "I-person"))
    assert item_of("tweetsumm", ROWS["tweetsumm"]).text == "hi\nthere"
    assert item_of("umsab", ROWS["umsab"]).group == "hindi"
    assert item_of("sttm-tweet", {"text": "x", "label": 17}).gold == "17"


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("wnut17", {"tokens": ["a"], "tags": ["B-beast"]}, "tag 'B-beast' is unknown"),
        ("wnut17", {"tokens": ["a", "b"], "tags": ["O"]}, "1 tags for 2 tokens"),
        ("wnut17", {"tokens": ["a b"], "tags": ["O"]}, "holds a space"),
        ("wnut17", {"tokens": "ab", "tags": ["O"]}, 'list of strings under "tokens"'),
        ("tweettopic", {"text": "x", "labels": "sports"}, 'a list under "labels"'),
        ("tweettopic", {"text": "x", "labels": ["sport"]}, "'sport' is none of"),
        ("tweetsumm", {"turns": ["x"], "summaries": []}, "at least one summary"),
        ("tweetsumm", {"summaries": ["x"]}, 'a string under "text"'),
        ("sttm-tweet", {"text": "x"}, 'a cluster under "label"'),
        ("tweeteval-emotion", {"text": "x", "label": 4}, "4 is none of"),
        ("tweeteval-emotion", {"text": "x", "label": True}, "True is none of"),
    ],
)
def test_wrong_published_rows(tmp_path: Path, name: str, row: dict, said: str) -> None:
    file = tmp_path / "row.jsonl"
    file.write_text(json.dumps(row))
    with pytest.raises(DataError, match=said):
        load_items(make_task(name, {"file": str(file)}))


@pytest.mark.parametrize(
    ("name", "rows", "per_label"),
    [
        ("tweeteval-emotion", 1421, 4),
        ("tweeteval-offensive", 860, 2),
        ("tweeteval-sentiment", 12284, 3),
        ("xtopic-en", 800, 19),
        ("wnut17", 1287, 0),
        ("tweetsumm", 110, 0),
    ],
)
def test_the_real_files(shared_data: Path, name: str, rows: int, per_label: int) -> None:
    items = load_items(make_task(name, {}, str(shared_data)))
    assert len(items) == rows
    golds = [i.gold for i in items]
    if per_label:
        each = {label for g in golds for label in ([g] if isinstance(g, str) else g)}
        assert len(each) == per_label


def test_a_data_folder_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"emotion\.test\.jsonl\.gz: no such file"):
        make_task("tweeteval-emotion", {}, str(tmp_path))
    with pytest.raises(ConfigError, match=r"on no hub that we know of; give evaluation\.data"):
        make_task("tweetsumm", {})


# ---- the hub ------------------------------------------------------------------------------------


@pytest.fixture
def on_the_hub(tmp_path: Path) -> Callable[..., str]:
    """A set in the form that the hub publishes: parquet, typed columns, a card with its parts."""
    datasets = pytest.importorskip("datasets", reason="extra 'tasks'")

    def publish(parts: dict[str, list[dict]], split: str, features: dict) -> str:
        folder = tmp_path / "set"
        lines = ["---", "configs:"]
        for part, rows in parts.items():
            table = datasets.Dataset.from_list(rows, features=datasets.Features(features))
            table.to_parquet(folder / part / f"{split}.parquet")
            lines += [f"- config_name: {part}", "  data_files:"]
            lines += [f"  - split: {split}", f"    path: {part}/{split}.parquet"]
        (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
        return str(folder)

    return publish


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_tasks_from_the_hub(on_the_hub: Callable[..., str], monkeypatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="extra 'tasks'")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    text = datasets.Value("string")

    def items_of(name: str, parts: dict[str, list[dict]], split: str, features: dict) -> list[Item]:
        task = make_task(name, {})
        assert task.file is None
        assert task.hub is not None
        assert task.hub.split == split
        path = on_the_hub(parts, split, features)
        return list(load_items(replace(task, hub=replace(task.hub, path=path, revision=""))))

    label = datasets.ClassLabel(names=["none", "against", "favor"])
    parts = {f"stance_{t}": [{"text": f"on {t}", "label": 2}] for t in TARGETS}
    found = items_of("tweeteval-stance", parts, "test", {"text": text, "label": label})
    assert [(i.text, i.gold, i.group) for i in found][:2] == [
        ("on abortion", "favor", "abortion"),
        ("on atheism", "favor", "atheism"),
    ]
    assert found[0].fields == {"target_in_words": "the legalization of abortion"}

    names = [f"{b}-{t}" for t in ("corporation", "creative-work") for b in "BI"]
    names = ["O", *names, "B-group", "I-group", "B-location", "I-location", "B-person"]
    tags = datasets.List(datasets.ClassLabel(names=[*names, "I-person", "B-product", "I-product"]))
    rows = [{"id": "0", "tokens": ["Ada", "L"], "ner_tags": [9, 10]}]
    features = {"id": text, "tokens": datasets.List(text), "ner_tags": tags}
    (only,) = items_of("wnut17", {"wnut_17": rows}, "test", features)
    assert only.gold == ("B-person", "I-person")

    rows = [{"text": "x", "label_name": ["sports"], "id": "9", "label": [0, 1]}]
    features = {
        "text": text, "label_name": datasets.List(text), "id": text,
        "label": datasets.List(datasets.Value("int32")),
    }  # fmt: skip
    (only,) = items_of("tweettopic", {"default": rows}, "test_2021", features)
    assert (only.id, only.gold) == ("9", ("sports",))


@pytest.mark.filterwarnings("ignore")
def test_a_hub_that_does_not_answer_is_one_line() -> None:
    pytest.importorskip("datasets", reason="extra 'tasks'")
    task = make_task("tweeteval-emotion", {})
    with pytest.raises(
        DataError, match=r"cardiffnlp/tweet_eval \(emotion, test\).*evaluation\.data"
    ):
        load_items(task)


# ---- a task of one's own ------------------------------------------------------------------------


def test_the_template_is_a_task(tmp_path: Path, repository: Path) -> None:
    template = (repository / "opengrok_jax/evaluation/tasks/template.py").read_text()
    assert len(template.splitlines()) <= 30
    (tmp_path / "claims.py").write_text(template)
    file = tmp_path / "claims.jsonl"
    file.write_text('{"tweet_text": "5G kills birds", "class_label": "Yes"}\n')
    task = make_task("mine", {"module": str(tmp_path / "claims.py"), "file": str(file)})
    (item,) = load_items(task)
    assert (task.name, item.text, item.gold) == ("mine", "5G kills birds", "yes")
    assert task.ask(item).endswith("Post: 5G kills birds")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("x = 1", "has no TASK"),
        ("TASK = 'x'", "has no TASK"),
        ("1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
    ],
)
def test_a_module_that_is_none(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(body)
    with pytest.raises(ConfigError, match=said):
        make_task("mine", {"module": str(tmp_path / "mine.py")})
    with pytest.raises(DataError, match="no such file"):
        make_task("mine", {"module": str(tmp_path / "gone.py")})


def test_a_label_is_read_by_its_word_and_kept_by_its_name() -> None:
    task = known("tweeteval-irony")
    assert task is not None
    item = Item(id="1", text="x", gold="irony")
    assert read_answer(task, item, "Not ironic.") == "non_irony"
    assert read_answer(task, item, "irony") is None
