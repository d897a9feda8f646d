import asyncio
import json

import pytest

from opengrok_jax import records, storage
from opengrok_jax.errors import DataError
from opengrok_jax.teacher import answers, wire
from opengrok_jax.teacher.answers import Book, Recording
from opengrok_jax.teacher.outcome import Answer, Kind
from tests.teacher.questions import ASKING, prompts


def row(prompt, response="fine", finish="stop"):
    messages = [records.to_json(m) for m in prompt.messages]
    return {"id": prompt.id, "messages": messages, "response": response, "finish_reason": finish}


def written(path, rows):
    storage.write_jsonl(path, rows)
    return path


def ask(recordings, prompt):
    body = wire.request(prompt, ASKING).body
    return asyncio.run(Book(recordings).post("/chat/completions", body))


def test_a_recorded_answer_comes_as_a_completion(tmp_path):
    known, unknown = prompts(2)
    book = answers.recorded(written(tmp_path / "r.jsonl", [row(known, "fine 😀", "length")]))
    reply = ask(book, known)
    assert json.loads(reply.body)["object"] == "chat.completion"
    assert wire.read(reply).answer == Answer(
        text="fine 😀", finish_reason="length", model="tiny-teacher"
    )
    refused = ask(book, unknown)
    assert refused.status == 404
    read = wire.read(refused)
    assert read.kind is Kind.UNANSWERABLE
    assert unknown.id in read.detail


def test_the_shipped_recordings_are_well_formed():
    book = answers.recorded(answers.SHIPPED)
    assert book
    assert all(recording.response.strip() for recording in book.values())


def test_gzipped_recordings(tmp_path):
    import gzip

    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row(prompts(1)[0])).encode()))
    assert answers.recorded(path) == {prompts(1)[0].id: Recording("fine")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "0000000000000000"}, "these messages have"),
        ({"finish_reason": "bored"}, "finish_reason"),
        ({"response": 3}, "response must be text"),
        ({"messages": "hi"}, "expected the fields"),
        ({"messages": [{"role": "user"}]}, "lacks content"),
        ({"extra": 1}, "expected the fields"),
    ],
)
def test_a_malformed_recording_is_told(tmp_path, change, message):
    path = written(tmp_path / "r.jsonl", [row(prompts(2)[1]), {**row(prompts(1)[0]), **change}])
    with pytest.raises(DataError, match=message):
        answers.recorded(path)


def test_two_recordings_of_one_prompt_are_refused(tmp_path):
    path = written(tmp_path / "r.jsonl", [row(prompts(1)[0]), row(prompts(1)[0], "bad")])
    with pytest.raises(DataError, match=r"record 2: .* recorded before"):
        answers.recorded(path)


def test_labels_are_answers():
    prompt = prompts(1, label="joy")[0]
    answer = wire.read(ask(answers.labelled([prompt]), prompt)).answer
    assert answer is not None
    assert answer.text == "joy"
    with pytest.raises(DataError, match=prompts(1)[0].id):
        answers.labelled(prompts(1))


def test_the_name_changes_with_the_answers():
    names = [
        answers.name("recorded", {"a": Recording("x")}),
        answers.name("recorded", {"a": Recording("y")}),
        answers.name("recorded", {"b": Recording("x")}),
        answers.name("recorded", {"a": Recording("x", "length")}),
        answers.name("labelled", {"a": Recording("x")}),
    ]
    assert len(set(names)) == 5
    two = {"a": Recording("x"), "b": Recording("y")}
    assert answers.name("r", two) == answers.name("r", dict(reversed(two.items())))
