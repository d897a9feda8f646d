"""Any causal language model of Hugging Face's, asked the same questions through `transformers`.

A question goes through the checkpoint's own chat template; without one it is followed by a line
break. A label is what the template puts for the assistant's turn, up to and with the token that
ends it, as our own student is scored. The prompt's keys and values are computed once for all
labels. Safetensors only, and no code of a checkpoint is run. Needs the extra `hf` (torch,
transformers).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from opengrok_jax import hub, storage
from opengrok_jax.errors import CheckpointError, ConfigError, needs_extra
from opengrok_jax.evaluation.batching import plan_batches
from opengrok_jax.evaluation.predict import Record

DTYPES = ("float32", "bfloat16", "float16")


class HfModel:
    """A checkpoint, opened.

    Args:
      name: folder, or name on the hub as in `hub.folder_of`.
      device: as torch names it; "" = a GPU if torch sees one.
      chat_template_kwargs: what else the checkpoint's template reads: {"enable_thinking": False}
        lets a Qwen answer at once.
    """

    def __init__(
        self,
        name: str,
        *,
        batch_size: int,
        dtype: str = "float32",
        device: str = "",
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ):
        """Raises CheckpointError if it cannot be opened, MissingExtra without the libraries."""
        if dtype not in DTYPES:
            raise ConfigError(f"dtype {dtype!r} is unknown; choose one of {', '.join(DTYPES)}")
        with needs_extra("hf"):
            import torch
            import transformers
        folder = hub.folder_of(name)
        weights = sorted(folder.glob("*.safetensors"))
        if not (folder / "config.json").is_file() or not weights:
            raise CheckpointError(
                f"{folder} holds no config.json with safetensors; `opengrok convert --to hf` makes "
                "such a folder of a student"
            )
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True
            )
        except Exception as error:  # of either library, each with its own tree
            told = (str(error).strip().splitlines() or [""])[0][:200]
            raise CheckpointError(f"{folder} cannot be opened by transformers: {told}") from error
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device).eval()
        self.batch_size = batch_size
        self._template_kwargs = dict(chat_template_kwargs or {})
        described = [p for p in sorted(folder.glob("*.json")) if p.name != "README.md"]
        self.made_of: dict[str, Any] = {
            "files": {p.name: storage.file_sha256(p) for p in (*weights, *described)},
            "dtype": dtype,
            "device": self.device.split(":")[0],
        }
        if self._template_kwargs:
            self.made_of["chat_template_kwargs"] = self._template_kwargs
        self._pad = next(
            i
            for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
            if i is not None
        )

    def check(
        self, what: str, prompts: Sequence[str], answers: Sequence[str], new_tokens: int
    ) -> None:
        """Raises ConfigError for a prompt that does not fit with its longest answer."""
        context = getattr(self.model.config, "max_position_embeddings", None)
        room = max([new_tokens, *self.label_tokens(answers)]) if answers else new_tokens
        if context is None:
            return
        for prompt in prompts:
            if (length := len(self._prompt(prompt)) + room) > context:
                raise ConfigError(
                    f"{what}: a prompt and its answer take {length} tokens, the context of this "
                    f"checkpoint is {context}"
                )

    def label_tokens(self, labels: Sequence[str]) -> list[int]:
        """Tokens of each label and the end of the answer."""
        return [len(self._answer(label)) for label in labels]

    def log_probs(self, prompts: Sequence[str], labels: Sequence[str], record: Record) -> None:
        """log P(label, end | prompt) of every label, in nats; `record(rows, lists)` per batch."""
        import torch

        ids, answers = [self._prompt(p) for p in prompts], [self._answer(x) for x in labels]
        for batch in plan_batches([*map(len, ids)], self.batch_size):
            rows = [ids[i] for i in batch.rows]
            tokens, mask = self._padded(rows, batch.length)
            with torch.no_grad():
                places = (mask.cumsum(1) - 1).clamp(min=0)
                read = self.model(
                    input_ids=tokens,
                    attention_mask=mask,
                    position_ids=places,
                    use_cache=True,
                    logits_to_keep=1,
                )
                first = read.logits[:, -1].float().log_softmax(-1)
                found = [
                    self._label(first, read.past_key_values, mask, places[:, -1:], answer)
                    for answer in answers
                ]
            record(batch.rows, torch.stack(found, 1).tolist())

    def _label(self, first: Any, cache: Any, mask: Any, last: Any, answer: list[int]) -> Any:
        """log P of one answer for each row of a batch whose prompts are in the cache."""
        import torch

        total = first[:, answer[0]]
        if len(answer) == 1:
            return total
        given = torch.tensor(answer[:-1], device=self.device).expand(len(first), -1)
        logits = self.model(
            input_ids=given,
            attention_mask=torch.cat([mask, torch.ones_like(given)], 1),
            position_ids=last + 1 + torch.arange(len(answer) - 1, device=self.device),
            past_key_values=copy.deepcopy(cache),  # it would grow by this label
        ).logits.float()
        logs = logits.log_softmax(-1)
        for at, token in enumerate(answer[1:]):
            total = total + logs[:, at, token]
        return total

    def answers(self, prompts: Sequence[str], max_new_tokens: int, record: Record) -> None:
        """The greedy answer to every prompt; `record(rows, texts)` per batch."""
        import torch

        ids, ends = [self._prompt(p) for p in prompts], self._ends()
        for batch in plan_batches([*map(len, ids)], self.batch_size):
            tokens, mask = self._padded([ids[i] for i in batch.rows], batch.length)
            with torch.no_grad():
                grown = self.model.generate(
                    input_ids=tokens,
                    attention_mask=mask,
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                    eos_token_id=ends,
                    pad_token_id=self._pad,
                )
            said = self.tokenizer.batch_decode(grown[:, batch.length :], skip_special_tokens=True)
            record(batch.rows, [text.strip() for text in said])

    def _padded(self, rows: Sequence[list[int]], length: int) -> tuple[Any, Any]:
        """Padded on the left, so that every prompt ends where the answer begins; and the mask."""
        import torch

        tokens = torch.full((len(rows), length), self._pad)
        mask = torch.zeros_like(tokens)
        for at, row in enumerate(rows):
            tokens[at, length - len(row) :] = torch.tensor(row)
            mask[at, length - len(row) :] = 1
        return tokens.to(self.device), mask.to(self.device)

    def _prompt(self, prompt: str) -> list[int]:
        if not self.tokenizer.chat_template:
            return self.tokenizer(f"{prompt}\n").input_ids
        return self._template([{"role": "user", "content": prompt}], add_generation_prompt=True)

    def _answer(self, label: str) -> list[int]:
        """The label's ids and the one that ends the answer."""
        if not self.tokenizer.chat_template:
            end = [i for i in (self.tokenizer.eos_token_id,) if i is not None]
            return [*self.tokenizer(label, add_special_tokens=False).input_ids, *end]
        asked = [{"role": "user", "content": "x"}]
        before = self._template(asked, add_generation_prompt=True)
        both = self._template([*asked, {"role": "assistant", "content": label}])
        if both[: len(before)] != before:
            raise ConfigError(
                "the chat template of this checkpoint writes an answered question otherwise than "
                "an open one: the likelihood of a label is undefined; ask for generation only"
            )
        special, answer = {*self.tokenizer.all_special_ids, *self._ends()}, both[len(before) :]
        end = next((at for at, i in enumerate(answer) if at and i in special), len(answer) - 1)
        return answer[: end + 1]

    def _template(self, messages: list[dict[str, str]], **options: Any) -> list[int]:
        return self.tokenizer.apply_chat_template(
            messages, return_dict=True, **options, **self._template_kwargs
        ).input_ids

    def _ends(self) -> list[int]:
        told = self.model.generation_config.eos_token_id
        ids = [told] if isinstance(told, int) else list(told or [])
        more = [self.tokenizer.eos_token_id]
        return [i for i in dict.fromkeys([*ids, *more]) if i is not None]
