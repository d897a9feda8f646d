import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.errors import DataError
from opengrok_jax.records import (
    Cell,
    Decision,
    Example,
    Message,
    Prompt,
    Response,
    body_sha,
    canonical_json,
    from_json,
    prompt_id,
    to_json,
)

text = st.text(max_size=40)
cells = st.builds(Cell, intent=text, topic=text, event=text, platform=text, style=text)
messages = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=text),
    min_size=1,
    max_size=3,
).map(tuple)
prompts = st.builds(
    Prompt,
    id=text,
    messages=messages,
    cell=cells,
    template=text,
    posts=st.lists(text, max_size=3).map(tuple),
    label=text,
)


@given(prompts)
def test_a_record_survives_json(prompt):
    assert from_json(Prompt, json.loads(json.dumps(to_json(prompt)))) == prompt


def test_the_id_is_the_hash_of_the_words_alone():
    ids = prompt_id((Message(role="user", content="Hé\n"),))
    body = '[{"content":"Hé\\n","role":"user"}]'
    assert ids == hashlib.sha256(body.encode()).hexdigest()[:16]


def test_canonical_json_sorts_and_keeps_characters():
    assert canonical_json({"b": 1, "a": ["é"]}) == '{"a":["é"],"b":1}'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extra": 1}, "no field extra"),
        ({"text": 5}, "Response.text must be str"),
        ({"prompt_tokens": True}, "Response.prompt_tokens must be int"),
        ({"prompt_tokens": "7"}, "Response.prompt_tokens must be int"),
    ],
)
def test_a_wrong_field_is_named(change, said):
    fields = {f.name: "x" for f in dataclasses.fields(Response) if f.type == "str"}
    with pytest.raises(DataError, match=said):
        from_json(Response, fields | change)


def test_a_missing_field_is_named():
    with pytest.raises(DataError, match="a Message lacks content"):
        from_json(Message, {"role": "user"})


def test_a_wrong_split_is_named():
    row = to_json(
        Example(
            id="1",
            messages=(Message(role="user", content="q"),),
            response="a",
            split="train",
            cell=Cell(intent="i"),
            source="recorded",
            model_served="m",
            rights="r",
        )
    )
    with pytest.raises(DataError, match="one of train, valid, got 'test'"):
        from_json(Example, row | {"split": "test"})


def test_the_hash_of_a_body_takes_any_text():
    assert body_sha("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()
    assert body_sha("\ud800") == hashlib.sha256(b"\xed\xa0\x80").hexdigest()


def test_a_decision_of_another_kind_is_named():
    row = {"prompt_id": "1", "body_sha": "0", "reviewer": "a", "at": "2026-11-25T12:00:00Z"}
    assert from_json(Decision, row | {"decision": "skip"}).look == 1
    with pytest.raises(DataError, match="one of accept, reject, edit, skip, undo, got 'maybe'"):
        from_json(Decision, row | {"decision": "maybe"})
