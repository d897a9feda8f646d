"""Prompts answered by the simulated teacher, with and without a wire, to test the refinement."""

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opengrok_jax.prompts import plan
from opengrok_jax.prompts.genome import Repertoire
from opengrok_jax.records import Message, Prompt, Response
from opengrok_jax.teacher.simulator import answers as simulated


def planned(count: int, seed: int = 0) -> list[Prompt]:
    return plan.plan(Repertoire.load().axes, count, seed)


def response(prompt: Prompt, seed: int = 0) -> Response:
    answered = simulated.answer(prompt.messages, seed=seed)
    words = sum(len(m.content.split()) for m in prompt.messages)
    return Response(
        prompt_id=prompt.id,
        request_key=f"key-{prompt.id}",
        text=answered.text,
        finish_reason=answered.finish_reason,
        model_asked="m",
        model_served="m",
        source="api",
        endpoint="http://127.0.0.1/v1",
        rights="own",
        prompt_tokens=words,
        completion_tokens=1 + len(answered.text.split()),
    )


def answers(prompts: Iterable[Prompt], seed: int = 0) -> dict[str, Response]:
    return {prompt.id: response(prompt, seed) for prompt in prompts}


@contextlib.contextmanager
def served() -> Iterator[tuple[str, list[dict]]]:
    """(base_url, bodies received) of a chat-completions endpoint on a real socket."""
    bodies: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply({"data": [{"id": "tiny", "object": "model"}], "object": "list"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append(body)
            said = simulated.answer([Message(**m) for m in body["messages"]], seed=0)
            message = {"role": "assistant", "content": said.text}
            choice = {"index": 0, "message": message, "finish_reason": said.finish_reason}
            tokens = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}
            self._reply({"model": body["model"], "choices": [choice], "usage": tokens})

        def _reply(self, plain: dict) -> None:
            raw = json.dumps(plain).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
