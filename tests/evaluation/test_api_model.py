"""A real endpoint on this machine, asked through the client and the journal of the teacher."""

import doctest
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from opengrok_jax.errors import ConfigError, TeacherError
from opengrok_jax.evaluation import api_model
from opengrok_jax.evaluation.api_model import ApiModel


class Endpoint(ThreadingHTTPServer):
    """Answers every question with its last word; `asked` has the bodies, `broken` refuses all."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.broken = False
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        words = body["messages"][-1]["content"].split()
        reply = {
            "model": body["model"],
            "choices": [{"message": {"content": words[-1]}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": len(words), "completion_tokens": 1},
        }
        status = 401 if self.server.broken else 200
        raw = json.dumps({"error": "no such key"} if self.server.broken else reply).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(model: ApiModel, prompts: list[str]) -> list[str]:
    found: dict[int, str] = {}
    model.answers(prompts, 5, lambda rows, texts: found.update(zip(rows, texts, strict=True)))
    return [found[i] for i in range(len(prompts))]


def test_each_question_is_paid_for_once(endpoint: Endpoint, tmp_path: Path) -> None:
    teacher = {
        "base_url": endpoint.url,
        "model": "m",
        "price_input": "1.5",
        "price_output": "2",
        "cap": "1",
    }
    model = ApiModel("grok", tmp_path, teacher)
    model.check("task", ["x"], (), 5)
    assert ask(model, ["say good", "say bad", "say good"]) == ["good", "bad", "good"]
    assert len(endpoint.asked) == 2
    assert {b["max_tokens"] for b in endpoint.asked} == {5}
    assert {b["temperature"] for b in endpoint.asked} == {0.0}
    assert model.costs["answers"] == 2
    assert model.costs["prompt_tokens"] == 4
    assert model.costs["cost_ticks"] == (4 * 15 + 2 * 20) * 10**3  # 1.5 and 2 USD a million tokens
    assert model.costs["answers_without_cost"] == 0
    # Another process with more questions: only the new one is sent.
    again = ApiModel("grok", tmp_path, teacher)
    assert ask(again, ["say bad", "say more", "say good"]) == ["bad", "more", "good"]
    assert len(endpoint.asked) == 3
    assert again.made_of == model.made_of
    assert ApiModel("grok", tmp_path, {**teacher, "model": "n"}).made_of != model.made_of


def test_an_endpoint_that_refuses_loses_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    model = ApiModel("grok", tmp_path, {"base_url": endpoint.url, "model": "m"})
    ask(model, ["say good"])
    endpoint.broken = True
    with pytest.raises(TeacherError, match="no such key"):
        ask(model, ["say good", "say bad"])
    endpoint.broken = False
    assert ask(model, ["say good", "say bad"]) == ["good", "bad"]
    assert len(endpoint.asked) == 3  # "say good" was asked once


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no setting max_tokens"):
        ApiModel("grok", tmp_path, {"max_tokens": 3})
    model = ApiModel("grok", tmp_path, {"base_url": "http://h/v1", "model": "m"})
    for ask_labels in (lambda: model.log_probs([], (), print), lambda: model.label_tokens(())):
        with pytest.raises(ConfigError, match="tells no likelihood"):
            ask_labels()


def test_costs_in_words() -> None:
    assert doctest.testmod(api_model).failed == 0
    costs = {"answers": 3, "prompt_tokens": 9, "completion_tokens": 3, "cost_ticks": 0}
    said = api_model.cost_in_words({**costs, "answers_without_cost": 3})
    assert said.endswith("is not known: neither the endpoint nor a price told")
    some = {**costs, "cost_ticks": 10**9, "answers_without_cost": 1}
    assert api_model.cost_in_words(some).endswith("0.1000 USD, and 1 of unknown cost")
