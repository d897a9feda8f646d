import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from flax import nnx

from opengrok_jax import records, storage
from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.errors import CheckpointError, ConfigError, DataError
from opengrok_jax.evaluation.evaluate import run
from opengrok_jax.evaluation.predict import Student
from opengrok_jax.evaluation.tasks import Task
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import save_student
from opengrok_jax.records import Cell, Example, Message, Score


def example(
    post: str, response: str, split: records.Split = "train", intent: str = "mood"
) -> Example:
    return Example(
        id=post,
        messages=(Message(role="user", content=f"How is it? {post}"),),
        response=response,
        split=split,
        cell=Cell(intent=intent),
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
            example("Ada said so", "person: Ada", intent="names"),
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


def meters(out: Path) -> dict[str, Any]:
    return storage.read_json(out / "meters.json")["padding"]


def scores_of(out: Path) -> dict[tuple[str, str], Score]:
    rows = storage.read_json(out / "scores.json")["scores"]
    scores = [records.from_json(Score, row) for row in rows]
    return {(s.task, s.predictor): s for s in scores}


def test_run(arguments: dict[str, Any], mood: Task) -> None:
    assert run(**arguments) == {"scores": 7, "tasks": 2}
    out: Path = arguments["out"]
    scores = scores_of(out)
    assert list(scores) == [
        ("mood", "student (likelihood)"),
        ("mood", "student (generation)"),
        ("mood", "majority"),
        ("mood", "tf-idf + logistic regression"),
        ("names", "student (generation)"),
        ("names", "always none"),
        ("names", "names of the training answers"),
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
    assert {p.name for p in (out / "predictions").iterdir()} == {
        "mood.student-likelihood.jsonl",
        "mood.student-generation.jsonl",
        "mood.majority.jsonl",
        "mood.tf-idf-logistic-regression.jsonl",
        "names.student-generation.jsonl",
        "names.always-none.jsonl",
        "names.names-of-the-training-answers.jsonl",
    }

    whole = storage.read_json(out / "scores.json")
    notes = whole["notes"]
    assert len(notes) == 2
    assert notes[0].startswith("mood: 1 of 5 test posts stand among the training posts too, 1 word")
    assert "(d)" in notes[0]
    # Without it: good bad "so so" "so so", of which always "bad" has F1 2/5 in one of three.
    assert "majority 0.133" in notes[0]
    left = {r["predictor"]: (r["value"], r["rows"]) for r in whole["without_leaks"]}
    assert left["majority"] == (pytest.approx(2 / 5 / 3), 4)
    assert notes[1].startswith("names: no choice of one label")

    compared = [(c["task"], c["a"], c["b"]) for c in whole["comparisons"]]
    assert len(compared) == 2 * 2 + 2
    assert compared[0] == ("mood", "student (likelihood)", "majority")
    assert all(c["p"] <= c["p_corrected"] <= 1 for c in whole["comparisons"])
    assert all(
        "noise" in c["verdict"] or "correction" in c["verdict"] for c in whole["comparisons"]
    )
    assert whole["comparisons"][0]["mcnemar"] is not None
    assert whole["comparisons"][-1]["mcnemar"] is None
    assert meters(out)["student"]["share"] <= 0.1


def test_the_same_command_again_asks_only_what_is_missing(
    arguments: dict[str, Any], student: Phi3, tmp_path: Path, monkeypatch
) -> None:
    asked: list[int] = []

    def counting(of: Any) -> Any:
        def wrapped(self: Any, prompts: Any, *more: Any) -> None:
            asked.append(len(prompts))
            of(self, prompts, *more)

        return wrapped

    for name in ("log_probs", "answers"):  # ours all the same, and counted
        monkeypatch.setattr(Student, name, counting(getattr(Student, name)))
    out: Path = arguments["out"]
    run(**{**arguments, "limit": 3})
    assert asked == [3, 3, 2]
    run(**arguments)  # more posts: those that were asked before are not asked again
    assert asked[3:] == [2, 2]
    scores = (out / "scores.json").read_bytes()
    asked.clear()
    run(**arguments)
    assert asked == []
    assert (out / "scores.json").read_bytes() == scores

    # Killed in the middle of a line; the line before stands.
    path = out / "answers" / "student.likelihood.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    run(**arguments)
    assert asked == [2]
    # Both ways of choosing a label are made of the same likelihoods.
    run(**{**arguments, "predictors": ("likelihood", "likelihood-per-token")})
    # Answers depend on their length, labels' likelihoods do not.
    run(**{**arguments, "max_new_tokens": 5})
    assert asked == [2, 5, 2]
    # Another student: nothing of the old one's answers is kept.
    another = Phi3(student.config, rngs=nnx.Rngs(8))
    save_student(tmp_path / "another", another, another.config)
    run(**{**arguments, "student": tmp_path / "another"})
    assert asked[3:] == [5, 5, 2]


def test_per_token_divides_by_the_tokens(arguments: dict[str, Any], mood: Task) -> None:
    arguments["tasks"].pop("names")
    run(**{**arguments, "predictors": ("likelihood", "likelihood-per-token")})
    tables = [
        [row["scores"] for row in storage.read_jsonl(arguments["out"] / "predictions" / name)]
        for name in ("mood.student-likelihood.jsonl", "mood.student-likelihood-per-token.jsonl")
    ]
    tokens = {
        label: len(tokenizers.load().encode_chat((), label).tokens)
        - len(tokenizers.load().encode_chat(()).tokens)
        for label in mood.labels
    }
    for summed, divided in zip(*tables, strict=True):
        assert divided == pytest.approx({x: summed[x] / tokens[x] for x in mood.labels})


def test_other_systems_are_asked_the_same(
    arguments: dict[str, Any], student_folder: Path, student: Phi3, tmp_path: Path
) -> None:
    arguments["tasks"].pop("names")
    another = Phi3(student.config, rngs=nnx.Rngs(9))
    save_student(tmp_path / "another", another, another.config)
    folders = [str(student_folder), str(tmp_path / "another")]
    systems = {"both": {"kind": "student", "folders": folders}}
    run(**{**arguments, "predictors": ("likelihood",), "systems": systems})
    scores = scores_of(arguments["out"])
    one, both = (
        scores["mood", "student (likelihood)"],
        scores["mood", "both (likelihood), mean of 2 seeds"],
    )
    names = sorted(p.name for p in (arguments["out"] / "predictions").glob("mood.both*"))
    assert names == [f"mood.both-likelihood-mean-of-2-seeds-{n}.jsonl" for n in (1, 2)]
    first, own = (
        [row["predicted"] for row in storage.read_jsonl(arguments["out"] / "predictions" / name)]
        for name in (names[0], "mood.student-likelihood.jsonl")
    )
    assert first == own
    assert both.rows == one.rows == 5
    assert 0 <= both.low <= both.value <= both.high <= 1
    whole = storage.read_json(arguments["out"] / "scores.json")
    assert ("student (likelihood)", "both (likelihood), mean of 2 seeds") in {
        (c["a"], c["b"]) for c in whole["comparisons"]
    }
    assert set(meters(arguments["out"])) == {"student", "both, seed 1", "both, seed 2"}


def test_groups_and_the_files_for_tweeteval(arguments: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "tweeteval" / "stance.test.jsonl.gz"
    file.parent.mkdir()
    rows = [
        {"text": f"post {n}", "label": label, "target": target}
        for n, (label, target) in enumerate(
            [
                ("favor", "climate"),
                ("against", "climate"),
                ("none", "hillary"),
                ("favor", "hillary"),
            ]
        )
    ]
    file.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    settings = {
        "tasks": {"tweeteval-stance": {}},
        "data": str(tmp_path),
        "predictors": ("likelihood",),
    }
    run(**{**arguments, **settings})
    whole = storage.read_json(arguments["out"] / "scores.json")
    groups = {(g["group"], g["predictor"]): (g["value"], g["rows"]) for g in whole["groups"]}
    assert {group for group, _ in groups} == {"climate", "hillary"}
    assert groups["climate", "majority"][1] == 2
    folder = arguments["out"] / "predictions" / "tweeteval" / "majority" / "stance"
    assert (folder / "climate.txt").read_text() == "0\n0\n"  # none: nothing was trained
    assert len((folder / "hillary.txt").read_text().split()) == 2


def test_one_predictor_and_a_limit(arguments: dict[str, Any]) -> None:
    chosen = {**arguments, "predictors": ("likelihood",), "limit": 2}
    assert run(**chosen) == {"scores": 5, "tasks": 2}
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
        ({"tasks": {"gossip": {}}}, ConfigError, "is none of sentiment, emotion"),
        ({"predictors": ()}, ConfigError, "likelihood, likelihood-per-token, generation"),
        ({"predictors": ("oracle",)}, ConfigError, "likelihood-per-token, generation"),
        ({"predictors": ("likelihood", "likelihood")}, ConfigError, "each once"),
        ({"limit": -1}, ConfigError, "limit=-1"),
        ({"seed": -1}, ConfigError, "seed=-1"),
        ({"bootstrap": 0}, ConfigError, "bootstrap=0"),
        ({"batch_size": 0}, ConfigError, "batch_size=0"),
        ({"max_new_tokens": 0}, ConfigError, "max_new_tokens=0"),
        ({"systems": {"x": {"kind": "oracle"}}}, ConfigError, "expected one of student"),
        ({"max_new_tokens": 150}, ConfigError, "task 'mood': the prompt 'How is it"),
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
    assert {"scores", "notes", "comparisons"} <= set(json.loads(text))
