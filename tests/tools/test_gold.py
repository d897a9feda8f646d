import json

import pytest

from opengrok_jax.cli import main


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["gold", *arguments])
    return int(left.value.code or 0)


def test_it_writes_the_rows_and_says_how_many(tmp_path, capsys):
    posts = tmp_path / "posts.jsonl"
    posts.write_text(
        "".join(json.dumps({"text": f"p{n}", "label": "joy"}) + "\n" for n in range(5))
    )
    out = tmp_path / "gold.jsonl"
    assert call("--task", f"tweeteval-emotion={posts}", "--out", str(out), "--count", "3") == 0
    assert len(out.read_text().splitlines()) == 3
    assert "3 of tweeteval-emotion" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "emotion"), "expected NAME=FILE"),
        (("--task", "a=b", "--task", "a=c"), "each name once"),
        (("--task", "emotion=nowhere.jsonl"), "no such file"),
        (("--task", "emotion=x", "--count", "-1"), "expected 0 or more"),
        (("--task", "emotion=x", "--frob"), "not understood"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, arguments, said):
    assert call(*arguments, "--out", str(tmp_path / "x")) in (2, 3)
    told = capsys.readouterr().err.strip().splitlines()
    assert said in told[-1]
