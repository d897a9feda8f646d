"""Examples for the tests of the build, and what a build leaves."""

import dataclasses
import json
from pathlib import Path

from opengrok_jax.masking import syntax
from opengrok_jax.records import Cell, Example, Message, prompt_id

CHATS = [
    (["Is this post happy? my cat sat on the new keyboard 😹"], "It is amused: the cat won."),
    (["Be brief.", "Summarise: @ada the train is late again #monday"], "Trains late, users cross."),
    (["Topic of: gr8 match!! 👨‍👩‍👧 watched together 🇺🇸"], "Sports. A family enjoys the match."),
    (["Half an emoji \ud83d and\r\n\r\ntwo lines\n"], "The post breaks off."),
    (["Say nothing"], ""),
    (["  <|end|> is only text here"], " <|assistant|> too"),
]
LONG = (["word " * 300], "The long one.")


def make_examples(chats=CHATS) -> list[Example]:
    examples = []
    for texts, response in chats:
        roles = ["system", "user"] if len(texts) == 2 else ["user"]
        messages = tuple(
            Message(role=role, content=text)  # type: ignore[arg-type]
            for role, text in zip(roles, texts, strict=True)
        )
        plain = [dataclasses.replace(m, content=syntax.well_formed(m.content)) for m in messages]
        examples.append(
            Example(
                id=prompt_id(tuple(plain)),
                messages=messages,
                response=response,
                split="valid" if len(examples) == 2 else "train",
                cell=Cell(intent="test"),
                source="labelled",
                model_served="hand",
                rights="own",
            )
        )
    return examples


def write(path: Path, examples: list[Example]) -> Path:
    # Half an emoji has no UTF-8; JSON escapes carry it, as some servers' answers do.
    rows = [json.dumps(dataclasses.asdict(e)) for e in examples]
    path.write_text("".join(row + "\n" for row in rows), encoding="ascii")
    return path


def everything(out: Path) -> dict[str, bytes]:
    """What a build leaves, without its cache."""
    paths = [p for p in sorted(out.rglob("*")) if p.is_file() and "cache" not in p.parts]
    return {str(p.relative_to(out)): p.read_bytes() for p in paths}
