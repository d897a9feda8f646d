"""mask-prompts as a user meets it."""

import json

from tests.command import opengrok


def test_prompts_are_masked_like_the_corpus(tmp_path):
    from opengrok_jax.masked_file import read_masked
    from opengrok_jax.masking import build
    from tests.masking.built import make_examples, write

    examples = write(tmp_path / "examples.jsonl", make_examples())
    build.run(examples_file=examples, out=tmp_path / "masking", workers=1)
    messages = [{"role": "user", "content": "Is this post happy? no"}]
    row = {"id": "p1", "messages": messages}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row) + "\n")
    words = ["--masking", "masking", "--prompts", "prompts.jsonl", "--out", "p.parquet"]
    done = opengrok("mask-prompts", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 prompts, " in done.stderr
    (found,), _ = read_masked(tmp_path / "p.parquet")
    assert found.id == "p1"
    done = opengrok("mask-prompts", *words[:2], *words[2:4], "--out", "q", "more", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    done = opengrok("mask-prompts", "--masking", "none", *words[2:], cwd=tmp_path)
    assert done.returncode == 3
