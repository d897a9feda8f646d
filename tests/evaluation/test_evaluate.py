import json
from pathlib import Path
from typing import Any

import pytest
from flax import nnx

from opengrok_jax import records, storage
from opengrok_jax.errors import CheckpointError, ConfigError, DataError
from opengrok_jax.evaluation.evaluate import run
from opengrok_jax.evaluation.tasks import Task
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import save_student
from opengrok_jax.records import Cell, Example, Message, Score


def example(post: str, response: str, split: records.Split = "train") -> Example:
    return Example(
        id=post,
        messages=(Message(role="user", content=f"How is it? {post}"),),
        response=response,
        split=split,
        cell=Cell(intent="mood"),
        posts=(post,),
        source="labelled",
        model_served="",
        rights="own",
    )


@pytest.fixture(scope="module")
def student_folder(student: Phi3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "student"
    save_student(folder, student, student.config)
    return folder


@pytest.fixture
def arguments(tmp_path: Path, student_folder: Path, mood: Task, names: Task) -> dict[str, Any]:
    examples = tmp_path / "kept.jsonl"
    storage.write_jsonl(
        examples,
        [
            example("best cake", "good"),
            example("worst bus", "bad, it was late"),
            example("worst phone I have owned", "Bad."),  # a test post too
            example("meh", "so so", split="valid"),  # steers, but is never trained on
        ],
    )
    own = {
        "mood": {
            "file": str(mood.file),
            "instruction": mood.instruction,
            "labels": list(mood.labels),
            "metric": mood.metric,
        },
        "names": {
            "file": str(names.file),
            "instruction": names.instruction,
            "types": list(names.types),
            "metric": names.metric,
        },
    }
    return {
        "student": student_folder,
        "examples_file": examples,
        "out": tmp_path / "evaluation",
        "tasks": own,
        "max_new_tokens": 4,
        "batch_size": 8,
        "bootstrap": 30,
    }


def scores_of(out: Path) -> dict[tuple[str, str], Score]:
    rows = storage.read_json(out / "scores.json")["scores"]
    scores = [records.from_json(Score, row) for row in rows]
    return {(s.task, s.predictor): s for s in scores}


def written(out: Path) -> dict[str, int]:
    """When each file of predictions was written."""
    return {p.name: p.stat().st_mtime_ns for p in (out / "predictions").glob("*.jsonl")}


def test_run(arguments: dict[str, Any], mood: Task) -> None:
    assert run(**arguments) == {"scores": 6, "tasks": 2}
    out: Path = arguments["out"]
    scores = scores_of(out)
    assert list(scores) == [
        ("mood", "student (likelihood)"),
        ("mood", "student (generation)"),
        ("mood", "majority"),
        ("mood", "tf-idf + logistic regression"),
        ("names", "student (generation)"),
        ("names", "always none"),
    ]
    # Gold: good bad "so so" bad "so so"; the trained majority is "bad": F1 of bad 2*2/(2+5), else 0.
    majority = scores["mood", "majority"]
    assert majority.value == pytest.approx(4 / 7 / 3)
    assert (majority.rows, majority.unparsable, majority.metric) == (5, 0.0, "macro_f1")
    assert scores["names", "always none"].value == 0
    # A random student says nothing readable, but has a most probable label all the same.
    said = scores["mood", "student (generation)"]
    assert (said.value, said.unparsable) == (0.0, 1.0)
    assert scores["mood", "student (likelihood)"].unparsable == 0
    assert all(0 <= s.low <= s.value <= s.high <= 1 for s in scores.values())

    rows = [*storage.read_jsonl(out / "predictions" / "mood.student-likelihood.jsonl")]
    assert [row["id"] for row in rows] == list("abcde")
    assert list(rows[0]) == ["id", "text", "gold", "predicted", "answer", "scores"]
    assert all(set(row["scores"]) == set(mood.labels) for row in rows)
    assert all(row["predicted"] == max(row["scores"], key=row["scores"].get) for row in rows)
    rows = [*storage.read_jsonl(out / "predictions" / "mood.student-generation.jsonl")]
    assert all(row["predicted"] is None and row["answer"] for row in rows)
    assert set(written(out)) == {
        "mood.student-likelihood.jsonl",
        "mood.student-generation.jsonl",
        "mood.majority.jsonl",
        "mood.tf-idf-logistic-regression.jsonl",
        "names.student-generation.jsonl",
        "names.always-none.jsonl",
    }

    notes = storage.read_json(out / "scores.json")["notes"]
    assert len(notes) == 2
    assert notes[0].startswith("mood: 1 of 5 test posts stand word for word")
    assert "(d)" in notes[0]
    assert notes[1].startswith("names: no fixed labels")


def test_the_same_command_again_keeps_what_is_done(
    arguments: dict[str, Any], student: Phi3, tmp_path: Path
) -> None:
    run(**arguments)
    out: Path = arguments["out"]
    first, scores = written(out), (out / "scores.json").read_bytes()
    student_files = {name for name in first if "student" in name}

    def remade() -> set[str]:
        return {name for name in student_files if written(out)[name] != first[name]}

    # Killed before the end: one file is missing, one was cut; the third is kept.
    (out / "scores.json").unlink()
    (out / "predictions" / "mood.student-generation.jsonl").unlink()
    cut = out / "predictions" / "names.student-generation.jsonl"
    cut.write_bytes(cut.read_bytes()[:-9])
    run(**arguments)
    assert remade() == {"mood.student-generation.jsonl", "names.student-generation.jsonl"}
    assert (out / "scores.json").read_bytes() == scores

    # Answers depend on their length, labels' likelihoods do not.
    first = written(out)
    run(**{**arguments, "max_new_tokens": 5})
    assert remade() == {"mood.student-generation.jsonl", "names.student-generation.jsonl"}

    # Another student: nothing of the old one's answers is kept.
    first = written(out)
    another = Phi3(student.config, rngs=nnx.Rngs(8))
    save_student(tmp_path / "another", another, another.config)
    run(**{**arguments, "max_new_tokens": 5, "student": tmp_path / "another"})
    assert remade() == student_files


def test_one_predictor_and_a_limit(arguments: dict[str, Any]) -> None:
    chosen = {**arguments, "predictors": ("likelihood",), "limit": 2}
    assert run(**chosen) == {"scores": 4, "tasks": 2}
    scores = scores_of(arguments["out"])
    assert ("names", "student (generation)") not in scores
    assert {s.rows for s in scores.values()} == {2}


def test_floors_without_training_rows_say_so(arguments: dict[str, Any]) -> None:
    arguments["examples_file"].write_text("")
    arguments["tasks"].pop("names")
    assert run(**{**arguments, "predictors": ("likelihood",)}) == {"scores": 2, "tasks": 1}
    notes = storage.read_json(arguments["out"] / "scores.json")["notes"]
    assert [note.split(",")[0] for note in notes] == [
        "mood: no training example gives a label",
        "mood: 'tf-idf + logistic regression' is left out: it needs training examples of at least "
        "two labels",
    ]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"tasks": {}}, ConfigError, "tasks is empty"),
        ({"tasks": {"gossip": {}}}, ConfigError, "not bundled"),
        ({"predictors": ()}, ConfigError, "likelihood, generation"),
        ({"predictors": ("oracle",)}, ConfigError, "likelihood, generation"),
        ({"predictors": ("likelihood", "likelihood")}, ConfigError, "each once"),
        ({"limit": -1}, ConfigError, "limit=-1"),
        ({"seed": -1}, ConfigError, "seed=-1"),
        ({"bootstrap": 0}, ConfigError, "bootstrap=0"),
        ({"batch_size": 0}, ConfigError, "batch_size=0"),
        ({"max_new_tokens": 0}, ConfigError, "max_new_tokens=0"),
        ({"max_new_tokens": 150}, ConfigError, "task 'mood': the prompt with post"),
        ({"student": Path("nowhere")}, CheckpointError, "not a student"),
        ({"examples_file": Path("nowhere.jsonl")}, DataError, "no such file"),
        ({"tokenizer": "nowhere"}, DataError, "no such tokenizer file"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: dict[str, Any], change: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run(**{**arguments, **change})
    assert not arguments["out"].exists()  # found before anything was computed


def test_scores_json_is_plain(arguments: dict[str, Any]) -> None:
    run(**{**arguments, "predictors": ("likelihood",)})
    text = (arguments["out"] / "scores.json").read_text()
    assert "NaN" not in text
    assert set(json.loads(text)) == {"scores", "notes"}
