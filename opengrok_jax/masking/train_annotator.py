"""Trains the annotator that ships in `assets/en_sns`: part of speech and dependencies for posts.

    UD_English-EWT --group--> clean texts --+
                   --group--> roughened x2 -+--> spaCy training --> trim --> check --> out/

The training text is UD_English-EWT and roughened copies of it, nothing else, so that the result
may be passed on under the treebank's own licence (CC BY-SA 4.0). Training takes about a quarter of
an hour on one core.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from opengrok_jax import progress, storage
from opengrok_jax.errors import ConfigError, DataError, needs_extra
from opengrok_jax.masking import score_annotator
from opengrok_jax.masking.annotator_notice import LICENSE, NOTICE, sources
from opengrok_jax.masking.roughen import roughen
from opengrok_jax.masking.sns_tokenizer import configure
from opengrok_jax.masking.treebank import Sentence, group, read_conllu, to_doc

if TYPE_CHECKING:
    import spacy.language

VERSION = "0.1.0"
CONFIG = Path(__file__).with_name("annotator.cfg")
STEPS_BETWEEN_SCORES = 600
WARMUP_STEPS = 250  # fewer in runs so short that they would never leave the warm-up


def run(
    *,
    treebank: Path,
    out: Path,
    seed: int = 11,
    width: int = 64,
    depth: int = 3,
    max_steps: int = 4800,
    rough_copies: int = 2,
    score_on: Sequence[Path] = (),
) -> None:
    """Trains a pipeline and puts it at `out`, whole or not at all.

    Args:
        treebank: folder with the training and development files of UD_English-EWT, under the
            names of its own releases or shorter (`*ewt*train.conllu`, `*ewt*dev.conllu`, `.gz`
            or not).
        out: folder of the pipeline; an earlier pipeline there is replaced.
        seed: seeds the grouping, the roughening, the initial weights and the order of training.
        width: width of the encoder, in floats.
        depth: layers of the encoder; each sees one word further on either side.
        max_steps: updates of about 200, later 450 words each.
        rough_copies: roughened copies of the treebank beside the clean one.
        score_on: treebank files to score the result on; the figures go into its `CARD.md`.

    Raises:
        DataError: a treebank file is missing, ambiguous or malformed.
        ConfigError: a number below 1 (`rough_copies`: below 0), or `out` holds something else.
        MissingExtra: spaCy is not installed.
    """
    for name, value, least in (
        ("width", width, 1),
        ("depth", depth, 1),
        ("max_steps", max_steps, 1),
        ("rough_copies", rough_copies, 0),
    ):
        if value < least:
            raise ConfigError(f"{name} is {value}; give a whole number of {least} or more")
    if out.exists() and not (out / "meta.json").exists():
        raise ConfigError(f"{out} exists and is not a spaCy pipeline; name another folder")
    with needs_extra("mask"):
        import spacy

    rng = Random(seed)
    files = [_file(treebank, split) for split in ("train", "dev")]
    train, dev = (read_conllu(path) for path in files)
    held_out = [(path, read_conllu(path)) for path in score_on]
    texts = group(train, rng, longest=4)
    for copy in range(rough_copies):
        texts += [roughen(text, rng) for text in group(train, rng, longest=3 - copy % 3)]
    checks = group(dev, rng, longest=4)
    checks += [roughen(text, rng) for text in group(dev, rng, longest=2)]

    with tempfile.TemporaryDirectory(prefix="annotator-") as name:
        work = Path(name)
        for split, part in (("train", texts), ("dev", checks)):
            words = _write_corpus(work / f"{split}.spacy", part)
            progress.say(f"annotator: {split} {len(part)} texts, {words} words")
        overrides = {
            "paths.train": str(work / "train.spacy"),
            "paths.dev": str(work / "dev.spacy"),
            "system.seed": seed,
            "size.width": width,
            "size.depth": depth,
            # spaCy scores before an update: one more step, so that the last update is scored.
            "training.max_steps": max_steps + 1,
            "training.optimizer.learn_rate.total_steps": max_steps,
            "training.optimizer.learn_rate.warmup_steps": min(WARMUP_STEPS, max_steps // 8),
            "training.eval_frequency": min(STEPS_BETWEEN_SCORES, max_steps),
        }
        best = _train(overrides, work / "trained")
        ready = work / "ready"
        settings = {
            "seed": seed,
            "width": width,
            "depth": depth,
            "max_steps": max_steps,
            "rough_copies": rough_copies,
        }
        _trim(best, ready, files, settings, [text.text for text in checks])
        (ready / "LICENSE").write_text(LICENSE, encoding="utf-8")
        (ready / "NOTICE").write_text(NOTICE, encoding="utf-8")
        if held_out:
            nlp = spacy.load(ready)
            scores = {path.name: score_annotator.score(nlp, part) for path, part in held_out}
            score_annotator.write_card(ready, scores)
        _replace_folder(ready, out)
    progress.say(f"annotator: {out}, {score_annotator.megabytes(out):.2f} MB")


def _file(folder: Path, split: str) -> Path:
    found = sorted(folder.glob(f"*ewt*{split}.conllu")) + sorted(
        folder.glob(f"*ewt*{split}.conllu.gz")
    )
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{folder} must hold one file *ewt*{split}.conllu or .conllu.gz, found {names}; "
            "get UD_English-EWT from https://universaldependencies.org"
        )
    return found[0]


def _write_corpus(path: Path, texts: Iterable[Sentence]) -> int:
    """Writes texts where spaCy's corpus reader finds them; returns the number of words."""
    import spacy
    from spacy.tokens import DocBin

    vocab, docs = spacy.blank("en").vocab, DocBin(attrs=["ORTH", "SPACY", "POS", "HEAD", "DEP"])
    words = 0
    for text in texts:
        docs.add(to_doc(text, vocab))
        words += len(text.words)
    docs.to_disk(path)
    return words


def _train(overrides: dict[str, Any], folder: Path) -> Path:
    """Runs spaCy's own training loop; returns the folder of the step with the best score."""
    from spacy.training.initialize import init_nlp
    from spacy.training.loop import train
    from spacy.util import load_config, registry

    # The config can only name a registered function; the name is gone from the trimmed pipeline.
    registry.callbacks("opengrok.sns_tokenizer.v1", func=lambda: configure)
    nlp = init_nlp(load_config(CONFIG, overrides=overrides))
    folder.mkdir()
    train(nlp, folder, stdout=sys.stderr, stderr=sys.stderr)
    return folder / "model-best"


def _trim(
    trained: Path, out: Path, files: Sequence[Path], settings: dict[str, int], texts: Sequence[str]
) -> None:
    """Drops what only training needed; asserts that the annotation of `texts` stays the same.

    Training leaves every word it saw in the string store (about a third of the folder), the
    paths of the corpora and a reference to this package's callback.
    """
    import spacy

    nlp = spacy.load(trained)
    before = _annotations(nlp, texts)
    config = nlp.config.copy()
    config["initialize"]["before_init"] = None
    config["paths"] = dict.fromkeys(config["paths"])
    nlp.config = config
    measured = nlp.meta.pop("performance", {})
    nlp.meta.update(
        name="sns",
        version=VERSION,
        spacy_version=">=3.8.0,<3.9.0",
        description="English posts: universal part of speech and universal dependencies "
        "(subtypes stripped), with a tokenizer for social media. No vectors.",
        license="CC BY-SA 4.0",
        author="OpenGrok-JAX",
        training=settings,
        sources=sources({path.name: storage.file_sha256(path) for path in files}),
        performance={key: measured[key] for key in ("pos_acc", "dep_uas", "dep_las")},
    )
    nlp.to_disk(out)

    needed = set(configure(spacy.blank("en")).vocab.strings)
    for pipe in nlp.pipe_names:
        for label in getattr(nlp.get_pipe(pipe), "labels", ()):
            needed |= {label, *label.split("="), *label.split("-", 1)}
    strings = out / "vocab" / "strings.json"
    kept = [string for string in storage.read_json(strings) if string in needed]
    strings.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    assert _annotations(spacy.load(out), texts) == before, "trimming changed the annotations"


def _annotations(
    nlp: spacy.language.Language, texts: Sequence[str]
) -> list[list[tuple[str, str, int, str]]]:
    docs = nlp.pipe(texts)
    return [[(token.text, token.pos_, token.head.i, token.dep_) for token in doc] for doc in docs]


def _replace_folder(new: Path, out: Path) -> None:
    """Puts `new` at `out`: readers see the old folder or the new one, never half of either."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with storage.storing(out), tempfile.TemporaryDirectory(dir=out.parent, prefix=".new-") as name:
        beside = Path(shutil.copytree(new, Path(name) / "new"))  # same disk, so rename is atomic
        if out.exists():
            out.rename(Path(name) / "old")
        beside.rename(out)
