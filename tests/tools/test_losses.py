"""losses as a user meets it."""

import json
from typing import get_args

from opengrok_jax.tools import losses
from tests.command import opengrok
from tests.tools import masked


def test_each_answer_gets_its_loss(student, tmp_path):
    path = masked.folder(tmp_path, 6)
    words = ["--masked", str(path), "--student", str(student), "--out", "l.jsonl"]
    done = opengrok("losses", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 answers, " in done.stderr
    assert "nats a token: l.jsonl" in done.stderr
    assert "next: refinement.losses_file=l.jsonl" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in rows] == [masked.example(n).id for n in range(6)]
    assert all(row["loss"] > 0 for row in rows)


def test_what_is_wrong_is_one_line(student, tmp_path):
    words = ["--masked", "none.parquet", "--student", str(student), "--out", "l.jsonl"]
    done = opengrok("losses", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    done = opengrok("losses", *words, "--config.x=1", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_rules_are_those_of_the_attention():
    from opengrok_jax.model.attention import Rule

    assert get_args(Rule) == losses.RULES
