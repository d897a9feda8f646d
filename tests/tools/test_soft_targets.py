"""soft-targets as a user meets it."""

import numpy as np

from tests.command import opengrok


def test_soft_targets_are_stored_and_not_made_twice(student, tmp_path):
    from opengrok_jax import tokenizer as tokenizers
    from opengrok_jax.masked_file import write_masked
    from opengrok_jax.records import MaskedExample, Message

    chat, examples = tokenizers.load(), []
    for number, answer in enumerate(("joy", "the fire is lit", "no")):
        encoded = chat.encode_chat((Message(role="user", content="what a day"),), answer)
        factors = {
            name: np.zeros(len(encoded.tokens), np.float32)
            for name in ("tfidf", "pos", "dep", "random", "keep_prob")
        }
        visible = np.ones(len(encoded.tokens), bool)
        examples.append(
            MaskedExample(
                id=str(number),
                split="train",
                tokens=encoded.tokens,
                roles=encoded.roles,
                key_mask=visible,
                **factors,
            )
        )
    write_masked(tmp_path / "m.parquet", examples, {"vocab_size": chat.vocab_size})
    words = ["--masked", "m.parquet", "--teacher", str(student), "--out", "soft", "--k", "4"]
    both = [opengrok("soft-targets", *words, cwd=tmp_path) for _ in range(2)]
    for done in both:
        assert done.returncode == 0, done.stderr
        assert "response tokens, 4 numbers each" in done.stderr
        assert "next: training.distill.loss=topk, training.soft_targets=soft" in done.stderr
    assert "batches" not in both[1].stderr, "the second call had nothing to do"
    done = opengrok("soft-targets", *words[:-1], "0", "--out", "other", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "k is 0; expected 1 to" in done.stderr
