r"""Phi-3's tokenizer and chat template: a chat becomes ids, with the span and role of each token.

The template is the one of Phi-3's tokenizer_config.json, without its trailing end-of-text token
(generation stops at `<|end|>`, so that is what the student must learn to say):

    <|user|>\nHi there<|end|>\n<|assistant|>\nHello<|end|>\n

    tokens   32010   6324  727    32007   32001   15043   32007
    text     <|user|>  Hi  there  <|end|> <|assistant|> Hello  <|end|>
    roles      0      1     1       0       0       2       2
    special    1      0     0       1       1       0       1

The file is read by `tokenizers` itself: `AutoTokenizer` rebuilds Phi-3's backend from its config
and gives other ids for the first word of each turn. Both published revisions work; they differ
in whether the newline after `<|user|>` is swallowed (`rstrip`) or a token of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer

from opengrok_jax import hub
from opengrok_jax.errors import DataError
from opengrok_jax.records import Message

ROLES = ("template", "prompt", "response")
TEMPLATE, PROMPT, RESPONSE = range(3)

# What `encode_chat` renders, in the words of a tokenizer_config.json. After an answer that ends the
# chat there is no newline: the student is not to learn one.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>' }}"
    "{% if not loop.last or add_generation_prompt %}{{ '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

# What `rstrip` swallows: White_Space of Unicode. Python strips four separators more.
WHITE_SPACE = "".join(
    c for c in map(chr, range(0x3001)) if c.isspace() and c not in "\x1c\x1d\x1e\x1f"
)

EMBEDDED = Path(__file__).parent / "assets" / "tokenizer" / "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A rendered chat and its tokens.

    Attributes:
      text: the rendered chat.
      tokens: int32 [T].
      spans: int32 [T, 2], start and end of each token in `text`, in code points. The tokens of one
        character (its bytes, where the vocabulary lacks it) share its span, and so does the space
        that the file puts before a text; what `rstrip` swallows is in no span.
      roles: int8 [T], index into `ROLES`; the `<|end|>` of an answer belongs to the response.
      special: bool [T], True for `<|user|>`, `<|end|>` and their like.
    """

    text: str
    tokens: np.ndarray
    spans: np.ndarray
    roles: np.ndarray
    special: np.ndarray


class ChatTokenizer:
    """A Phi-3 tokenizer file, opened.

    Attributes:
      vocab_size: number of ids the file can produce; a model may have more rows (Phi-3: 32,064).
      end_id: id of `<|end|>`, which ends every turn.
      eos_id: id of `<|endoftext|>`, also Phi-3's padding.
      bos_id: id of `<s>`, which Phi-3 names and never puts before a text; None = there is none.
    """

    def __init__(self, path: Path):
        """Opens a `tokenizer.json`.

        Raises:
          DataError: no such file, not a tokenizer, or one of Phi-3's special tokens is missing.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such tokenizer file; expected a Phi-3 tokenizer.json")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise DataError(f"{path}: not a tokenizer.json: {error}") from None
        # What a post says must never become a control token, whatever it spells. Phi-3's `</s>` is
        # one that its file does not call special, so that HTML in a post would spell it.
        added = self._tokenizer.get_added_tokens_decoder().values()
        for token in added:
            token.special = True
        self._tokenizer.add_special_tokens([*added])
        self._tokenizer.encode_special_tokens = True
        self._added: dict[str, tuple[int, AddedToken]] = {
            token.content: (index, token)
            for index, token in self._tokenizer.get_added_tokens_decoder().items()
        }
        needed = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
        if missing := [name for name in needed if name not in self._added]:
            raise DataError(f"{path}: lacks {', '.join(missing)}; expected Phi-3's special tokens")
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.end_id = self._added["<|end|>"][0]
        self.eos_id = self._added["<|endoftext|>"][0]
        self.bos_id = self._added["<s>"][0] if "<s>" in self._added else None

    def encode_chat(self, messages: tuple[Message, ...], response: str | None = None) -> Encoded:
        """Renders and encodes a chat.

        Args:
          messages: the turns so far; the answers among them count as prompt.
          response: the answer to learn; None ends with `<|assistant|>`, ready to generate.
        """
        pieces = _Pieces(self._tokenizer, self._added)
        for message in messages:
            pieces.special(f"<|{message.role}|>", TEMPLATE)
            pieces.content("\n", message.content, PROMPT)
            pieces.special("<|end|>", TEMPLATE)
            pieces.content("\n", "", TEMPLATE)
        pieces.special("<|assistant|>", TEMPLATE)
        pieces.content("\n", response or "", RESPONSE)
        if response is not None:
            pieces.special("<|end|>", RESPONSE)
        return pieces.encoded()

    def encode(self, text: str) -> list[int]:
        """Ids of a plain text, without template."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int] | np.ndarray) -> str:
        """Text of some ids; special tokens and padding rows leave no trace."""
        known = [int(i) for i in ids if int(i) < self.vocab_size]
        return self._tokenizer.decode(known, skip_special_tokens=True)

    def token_text(self, index: int) -> str:
        """How the vocabulary spells one id."""
        return self._tokenizer.id_to_token(int(index)) or f"<unused {index}>"

    def is_special(self, index: int) -> bool:
        """Whether an id is a control token, `<|end|>` say, which no text is encoded to."""
        name = self._tokenizer.id_to_token(int(index))
        return name in self._added and self._added[name][1].special

    def token_bytes(self, index: int) -> bytes:
        """The bytes that one id stands for, its leading space included.

        Phi-3 puts a space before the first word of every text, which is not in the text.
        """
        spelled = self._tokenizer.id_to_token(int(index)) or ""
        if len(spelled) == 6 and spelled.startswith("<0x") and spelled.endswith(">"):
            return bytes([int(spelled[3:5], 16)])
        return spelled.replace("▁", " ").encode()


class _Pieces:
    """The growing lists; one place appends to all of them, so they cannot go out of step."""

    def __init__(self, tokenizer: Tokenizer, added: dict[str, tuple[int, AddedToken]]):
        self._tokenizer, self._added = tokenizer, added
        self._text = ""
        self._swallow = False  # the token before eats white space on its right
        self._rows: list[tuple[int, int, int, int, bool]] = []

    def special(self, name: str, role: int) -> None:
        index, token = self._added[name]
        start = len(self._text)
        self._text += name
        self._rows.append((index, start, len(self._text), role, True))
        self._swallow = token.rstrip

    def content(self, lead: str, content: str, role: int) -> None:
        """Text between two special tokens; `lead` belongs to the template."""
        start = len(self._text)
        piece = lead + content
        self._text += piece
        kept = piece.lstrip(WHITE_SPACE) if self._swallow else piece
        offset = start + len(piece) - len(kept)
        encoding = self._tokenizer.encode(kept, add_special_tokens=False)
        for index, (low, high) in zip(encoding.ids, encoding.offsets, strict=True):
            from_template = offset + low < start + len(lead)
            role_here = TEMPLATE if from_template else role
            self._rows.append((index, offset + low, offset + high, role_here, False))

    def encoded(self) -> Encoded:
        columns = tuple(zip(*self._rows, strict=True))
        return Encoded(
            text=self._text,
            tokens=np.array(columns[0], np.int32),
            spans=np.array(columns[1:3], np.int32).T,
            roles=np.array(columns[3], np.int8),
            special=np.array(columns[4], bool),
        )


def load(name: str = "") -> ChatTokenizer:
    """The tokenizer of a folder, a `tokenizer.json` or a name on the hub; "" is our small one."""
    return ChatTokenizer(path_of(name))


def path_of(name: str = "") -> Path:
    """The file that `load` opens; raises as `hub.folder_of` does."""
    path = hub.folder_of(name, weights=False) if name else EMBEDDED
    return path / "tokenizer.json" if path.is_dir() else path


def beside(student: Path, name: str = "") -> str:
    """`name`, or if that is "" the student's folder, if a tokenizer lies in it."""
    return name or (str(student) if (student / "tokenizer.json").is_file() else "")
