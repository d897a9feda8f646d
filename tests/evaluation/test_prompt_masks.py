"""Masks of test prompts: found by their tokens, read by the student, part of what an answer is of."""

import json
from typing import Any

import numpy as np
import pytest

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.evaluation import evaluate, tasks
from opengrok_jax.evaluation.predict import Student
from opengrok_jax.evaluation.prompt_masks import PromptMasks, write_prompts
from opengrok_jax.masked_file import write_masked
from opengrok_jax.model.student import save_student
from opengrok_jax.records import MaskedExample, Message


def masked(name, tokens, key_mask):
    zero = np.zeros(len(tokens), np.float32)
    return MaskedExample(
        id=name,
        split="valid",
        tokens=tokens,
        roles=np.zeros(len(tokens), np.int8),
        tfidf=zero,
        pos=zero,
        dep=zero,
        random=zero,
        keep_prob=zero,
        key_mask=key_mask,
    )


@pytest.fixture
def asked(mood, tokenizer):
    """The prompts of the task: (prompt, tokens, a mask that hides every third token)."""
    result = []
    for item in tasks.load_items(mood):
        prompt = mood.ask(item)
        ids = tokenizer.encode_chat((Message(role="user", content=prompt),)).tokens
        key_mask = np.arange(len(ids)) % 3 != 2
        result.append((prompt, ids, key_mask))
    return result


@pytest.fixture
def file(asked, tmp_path):
    rows = [masked(f"{at}", ids, mask) for at, (_, ids, mask) in enumerate(asked)]
    write_masked(tmp_path / "asked.parquet", rows, {"vocab_size": 1})
    return tmp_path / "asked.parquet"


def test_a_mask_is_found_by_its_tokens(asked, file):
    masks = PromptMasks(file)
    found = masks.of([ids for _, ids, _ in reversed(asked)])
    for one, (_, _, expected) in zip(found, reversed(asked), strict=True):
        np.testing.assert_array_equal(one, expected)
    with pytest.raises(DataError, match=r"no mask for 1 of 2 prompts.*mask-prompts --config"):
        masks.of([asked[0][1], asked[0][1][:-1]])


def test_of_two_rows_of_the_same_tokens_the_first_counts(tmp_path):
    tokens = np.arange(3, dtype=np.int32)
    first, second = np.array([True, False, True]), np.array([True, True, True])
    write_masked(tmp_path / "m", [masked("a", tokens, first), masked("b", tokens, second)], {})
    np.testing.assert_array_equal(PromptMasks(tmp_path / "m").of([tokens])[0], first)


@pytest.mark.parametrize("rule", ["multiply", "exclude"])
def test_the_student_reads_them_as_if_the_call_had_given_them(
    student, tokenizer, asked, file, rule
):
    prompts = [prompt for prompt, _, _ in asked]
    labels = ("good", "so so", "bad")

    def told(of, **more):
        found = {}

        def record(rows, logs):
            found.update(zip(rows, logs, strict=True))

        of.log_probs(prompts, labels, record, **more)
        return np.array([found[at] for at in range(len(prompts))])

    plain = Student(student, tokenizer, batch_size=4)
    opened = Student(student, tokenizer, batch_size=4, prompt_masks=PromptMasks(file), rule=rule)
    expected = told(plain, key_masks=[mask for _, _, mask in asked], rule=rule)
    np.testing.assert_allclose(told(opened), expected, atol=1e-6)
    assert np.abs(told(plain) - expected).max() > 1e-3


def test_evaluate_takes_them_and_keeps_the_answers_apart(
    mood, student, tokenizer, file, tmp_path, repository
):
    save_student(tmp_path / "student", student, student.config)
    (tmp_path / "kept.jsonl").write_text("")
    given = {
        "student": tmp_path / "student",
        "examples_file": tmp_path / "kept.jsonl",
        "tasks": {
            "mood": {
                "file": str(mood.file),
                "instruction": mood.instruction,
                "labels": mood.labels,
                "metric": mood.metric,
            }
        },
        "predictors": ("likelihood",),
        "out": tmp_path / "evaluation",
        "bootstrap": 10,
    }
    answers = tmp_path / "evaluation" / "answers" / "student.likelihood.jsonl"
    evaluate.run(**given)
    assert len(answers.read_text().splitlines()) == 5
    evaluate.run(**given, prompt_masks=str(file), rule="exclude")
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(lines) == 10
    assert lines[0]["value"] != lines[5]["value"]
    cases: list[dict[str, Any]] = [
        {"rule": "exclude"},
        {"prompt_masks": str(file)},
        {"rule": "half"},
    ]
    for wrong in cases:
        with pytest.raises(ConfigError, match=r"evaluation\.rule"):
            evaluate.run(**given, **wrong)


def test_prompts_are_written_as_mask_prompts_reads_them(mood, tmp_path):
    items = tasks.load_items(mood)
    path = tmp_path / "prompts.jsonl"
    assert write_prompts(path, [(mood, items), (mood, items[:2])]) == len(items)
    rows = list(storage.read_jsonl(path))
    assert [row["messages"][0]["content"] for row in rows] == [mood.ask(item) for item in items]
    assert all(set(row) == {"id", "messages"} for row in rows)
