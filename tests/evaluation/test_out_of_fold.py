import json

import pytest

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation import out_of_fold
from opengrok_jax.records import Message, prompt_id
from opengrok_jax.teacher.answers import recorded


@pytest.fixture
def file(tmp_path):
    rows = [
        {
            "text": f"{('you idiot', 'lovely day')[n % 2]} {n}",
            "label": ("offensive", "not_offensive")[n % 2],
        }
        for n in range(60)
    ]
    rows += [{"text": "both", "label": label} for label in ("offensive", "not_offensive")]
    path = tmp_path / "tweeteval" / "offensive.train.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path.parent / "offensive.test.jsonl.gz").write_bytes(b"")  # the task looks for its own
    return path


def test_every_post_is_answered_by_a_stranger(file, tmp_path, monkeypatch):
    seen = []
    real = out_of_fold.tfidf_regression

    def watched(task, rows, items):
        seen.append(({post for post, _ in rows}, {item.text for item in items}))
        return real(task, rows, items)

    monkeypatch.setattr(out_of_fold, "tfidf_regression", watched)
    told = out_of_fold.run(
        task="tweeteval-offensive", posts_file=file, out=tmp_path / "out", name="o", folds=3
    )
    assert told == {"posts": 60, "left_out": 1, "agreement": 1.0}
    assert len(seen) == 3
    assert all(not learnt & asked for learnt, asked in seen)
    assert set().union(*(asked for _, asked in seen)) == set().union(
        *(learnt for learnt, _ in seen)
    )
    posts = list(storage.read_jsonl(tmp_path / "out" / "o.posts.jsonl"))
    assert {row["label"] for row in posts} == {"offensive", "not offensive"}
    book = recorded(tmp_path / "out" / "o.jsonl")
    from opengrok_jax.evaluation.tasks import tweeteval_offensive

    ask = tweeteval_offensive.TASK.instruction
    for row in posts:
        name = prompt_id((Message(role="user", content=ask.replace("{post}", row["text"])),))
        assert book[name].response == row["label"]


def test_a_count_takes_a_fixed_sample(file, tmp_path):
    given = {"task": "tweeteval-offensive", "posts_file": file, "out": tmp_path, "folds": 2}
    assert out_of_fold.run(**given, name="a", count=20)["posts"] == 20
    out_of_fold.run(**given, name="b", count=30)
    few, more = (list(storage.read_jsonl(tmp_path / f"{n}.posts.jsonl")) for n in "ab")
    assert few == more[:20]


def test_what_cannot_be_is_refused(file, tmp_path):
    given = {"posts_file": file, "out": tmp_path, "name": "x"}
    with pytest.raises(ConfigError, match="folds is 1"):
        out_of_fold.run(task="tweeteval-offensive", folds=1, **given)
    with pytest.raises(ConfigError, match="of kind 'entities'"):
        out_of_fold.run(task="entities", **given)
    file.write_text('{"text": "a", "label": "rude"}\n')
    with pytest.raises(DataError, match="row 1: label 'rude'"):
        out_of_fold.run(task="tweeteval-offensive", **given)


def test_the_posts_may_be_asked_about_in_other_words(file, tmp_path):
    given = {"task": "tweeteval-offensive", "posts_file": file, "out": tmp_path, "folds": 2}
    out_of_fold.run(**given, name="a", count=20, instruction="{post}")
    book = recorded(tmp_path / "a.jsonl")
    for row in storage.read_jsonl(tmp_path / "a.posts.jsonl"):
        assert prompt_id((Message(role="user", content=row["text"]),)) in book
    with pytest.raises(ConfigError, match=r"must hold \{post\}"):
        out_of_fold.run(**given, name="b", instruction="What is it?")
