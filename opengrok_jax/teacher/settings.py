"""The settings of a collection, checked: whom we ask, how, how fast, and for how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opengrok_jax import records, storage
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.records import Prompt
from opengrok_jax.rights import EVALUATION_ONLY, Source, objection
from opengrok_jax.teacher import answers, money, wire
from opengrok_jax.teacher import client as client_module
from opengrok_jax.teacher import secret as secret_module
from opengrok_jax.teacher.budget import Caps
from opengrok_jax.teacher.client import Client, Exchange
from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.outcome import Asking
from opengrok_jax.teacher.secret import Secret

KINDS = ("recorded", "labelled", "api")
RIGHTS_MISSING = (
    "teacher.rights is empty. xAI's terms bar training on its output without a written order "
    "form, and other providers have terms of their own: say what allows you to train on these "
    "answers, as 'own-model' or the name of the agreement; it is kept with the data"
)
# What ships and what the user labelled needs no declaration; a file of recordings may have one.
RIGHTS_SHIPPED = "recorded answers of the OpenGrok-JAX project, Apache-2.0"
RIGHTS_RECORDED = "the user's own recordings"
RIGHTS_LABELLED = "the user's own labels"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Whom we ask.

    Attributes:
      source: "recorded", "labelled" or "api".
      endpoint: the base address.
      key: empty where none is sent; `key_env` is the variable that holds it.
      book: answers without a network; None is the network.
      served_as: other names under which the model may serve.
    """

    source: str
    endpoint: str
    asking: Asking
    rights: str
    key: Secret
    key_env: str
    timeout_sec: float
    book: Exchange | None
    served_as: tuple[str, ...] = ()

    def client(self) -> Client:
        """Connections to the endpoint."""
        return Client(base_url=self.endpoint, key=self.key, timeout_sec=self.timeout_sec)


def teacher(
    *,
    prompts_file: Path,
    kind: str,
    recorded_file: str,
    base_url: str,
    model: str,
    api: str,
    api_key_env: str,
    temperature: float,
    max_tokens: int,
    top_logprobs: int,
    extra_body: str,
    timeout_sec: float,
    served_as: Sequence[str],
    rights: str,
) -> Teacher:
    """Whom the settings of the same names in `collect.run` mean.

    Raises:
      ConfigError: a value is missing or out of range.
      DataError: the recordings or labels are missing or malformed.
    """
    if kind not in KINDS:
        raise ConfigError(f"teacher.kind is {kind!r}; expected {', '.join(KINDS)}")
    if api not in wire.APIS:
        raise ConfigError(f"teacher.api is {api!r}; expected {', '.join(wire.APIS)}")
    in_range("temperature", temperature, 0.0, 2.0)
    in_range("max_tokens", max_tokens, 1, 1_000_000)
    in_range("top_logprobs", top_logprobs, 0, 1000)
    in_range("timeout_sec", timeout_sec, 0.001, 86_400.0)
    rights, key, book = rights.strip(), Secret(""), None
    if kind == "api":
        if not base_url or not model:
            raise ConfigError("teacher.kind 'api' needs teacher.base_url and teacher.model")
        if not rights:
            raise ConfigError(RIGHTS_MISSING)
        address = client_module.endpoint(base_url)
        key = secret_module.secret_from(api_key_env)
    else:
        api = "chat"
        if kind == "recorded":
            found = answers.recorded(Path(recorded_file) if recorded_file else answers.SHIPPED)
            rights = rights or (RIGHTS_RECORDED if recorded_file else RIGHTS_SHIPPED)
        else:
            found = answers.labelled(prompts_in(prompts_file))
            rights = rights or RIGHTS_LABELLED
        address = f"http://{kind}.invalid/v1"  # a name that by RFC 2606 no network resolves
        model, book = answers.name(kind, found), answers.Book(found)
    asking = Asking(
        api=api,
        model=model,
        temperature=float(temperature),
        max_tokens=max_tokens,
        top_logprobs=top_logprobs,
        extra_body=wire.extra(extra_body),
    )
    return Teacher(
        source=kind,
        endpoint=address,
        asking=asking,
        rights=rights,
        key=key,
        key_env=api_key_env,
        timeout_sec=timeout_sec,
        book=book,
        served_as=tuple(served_as),
    )


def in_range(name: str, value: int | float, least: int | float, most: int | float) -> None:
    """Holds a number against its range.

    Raises:
      ConfigError: it is outside.
    """
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigError(f"teacher.{name} is {value}; expected {least} to {most}")


def caps(*, cap: str, cap_tokens: int, cap_requests: int) -> Caps:
    """The most that may be spent; "" and 0 are no bound.

    Raises:
      ConfigError: a value is wrong.
    """
    in_range("cap_tokens", cap_tokens, 0, 10**15)
    in_range("cap_requests", cap_requests, 0, 10**12)
    return Caps(
        ticks=money.ticks(cap, "teacher.cap") if cap else None,
        tokens=cap_tokens or None,
        requests=cap_requests or None,
    )


def check_cap(caps: Caps, prices: Prices) -> None:
    """Refuses a cap in money that cannot be kept.

    Raises:
      ConfigError: there are no prices to reserve by.
    """
    if caps.ticks is not None and not prices:
        raise ConfigError(
            "teacher.cap is a cap in US dollars, which needs prices to be kept: set "
            "teacher.price_input and teacher.price_output (US dollars for a million tokens)"
        )


def prompts_in(path: Path) -> Iterator[Prompt]:
    """The prompts of a file, one at a time.

    Raises:
      DataError: it is missing or malformed, or holds no prompt.
    """
    number = 0
    for number, row in enumerate(storage.read_jsonl(path), start=1):
        try:
            yield records.from_json(Prompt, row)
        except DataError as error:
            raise DataError(f"{path}, record {number}: {error}") from None
    if not number:
        raise DataError(f"{path} holds no prompt")


def wants_rights(teacher: Teacher) -> None:
    """Refuses to pay for answers that may not be trained on.

    Raises:
      ConfigError: what is declared does not allow it, nor says that it is for evaluation only.
    """
    asked = Source(
        kind=teacher.source,
        endpoint=teacher.endpoint,
        model_asked=teacher.asking.model,
        model_served="",
        rights=teacher.rights,
    )
    if teacher.rights != EVALUATION_ONLY and (said := objection(asked)):
        raise ConfigError(f"{said}. Nothing was sent")
