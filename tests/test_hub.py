"""The real client of the hub against a server of our own on 127.0.0.1."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from opengrok_jax import hub
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.opening import open_model
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.weights import save_hf

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secretsecretsecret"
FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"first " * 1000,
    "model-00002-of-00002.safetensors": b"second " * 30000,
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "tokenizer.json": b"{ }",
    "tokenizer.model": bytes(range(256)),
    "chat_template.jinja": b"{{ x }}",
    "LICENSE": b"terms",
    "README.md": b"card",
    "consolidated.safetensors": b"the same again",
    "modeling_phi3.py": b"import os",
    "pytorch_model.bin": b"\x80\x04.",
    "pytorch_model.bin.index.json": b"{}",
    "training_args.pt": b"\x80\x04.",
    "onnx/config.json": b"{}",
}
FETCHED = list(FILES)[:9]


class Hub(ThreadingHTTPServer):
    """Plays the hub: me/model at `main` and `v1`; every request is written down."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str]] = []  # method, path, authorization
        self.drops = 0  # answers still to be cut after half of their bytes
        self.status = 0  # what everything is answered with, if not 0
        self.error = ""  # X-Error-Code of that
        self.files = FILES

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            if status in (200, 206) and len(body) > 100_000 and self.server.drops:
                self.server.drops -= 1
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            else:
                self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("authorization") or ""))
        path = self.path.split("?")[0]
        refused = {"X_Error_Code": self.server.error} if self.server.error else {}
        if self.server.status:
            return self.answer(self.server.status, b"{}", **refused)
        api, files = "/api/models/me/model", f"/me/model/resolve/{COMMIT}/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/v1"):
            names = [{"rfilename": name} for name in self.server.files]
            body = {"id": "me/model", "modelId": "me/model", "sha": COMMIT, "siblings": names}
            return self.answer(200, json.dumps(body).encode())
        if path.startswith(f"{api}/revision/"):
            return self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
        if path.startswith(f"{api}/tree/{COMMIT}"):
            rows: list[dict[str, Any]] = [
                {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for n, c in self.server.files.items()
            ]
            return self.answer(200, json.dumps(rows).encode())
        if path.startswith(files) and path.removeprefix(files) in self.server.files:
            body = self.server.files[path.removeprefix(files)]
            etag = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X_Repo_Commit": COMMIT}
            wanted = self.headers.get("Range")
            if wanted is None:
                return self.answer(200, body, **etag, Accept_Ranges="bytes")
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            etag["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return self.answer(206, body[start:], **etag)
        return self.answer(404, b"{}", X_Error_Code="RepoNotFound")


@pytest.fixture
def served() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


CHILD = """
import sys
from opengrok_jax import hub
from opengrok_jax.errors import UserError
try:
    print(hub.folder_of(sys.argv[1]))
except UserError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def ask(served: Hub, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The library reads its environment when it is imported: each question is a process."""

    def run(name: str, code: str = CHILD, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "cache")} | more
        return subprocess.run(
            [sys.executable, "-c", code, name],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=120,
        )

    return run


def contents(said: subprocess.CompletedProcess[str]) -> dict[str, bytes]:
    assert said.returncode == 0, said.stderr
    return {p.name: p.read_bytes() for p in Path(said.stdout.strip()).iterdir()}


def one_line(said: subprocess.CompletedProcess[str]) -> str:
    assert said.returncode == 1, (said.stdout, said.stderr)
    (line,) = [x for x in said.stderr.splitlines() if "Error: " in x]
    assert said.stderr.splitlines()[-1] == line
    assert "Traceback" not in said.stderr
    return line


def test_only_what_is_needed_comes_and_comes_once(served: Hub, ask: Any) -> None:
    wanted = {name: FILES[name] for name in FETCHED}
    said = ask("me/model", HF_TOKEN=TOKEN)
    assert contents(said) == wanted
    assert f"downloading me/model: {sum(map(len, wanted.values())):,} bytes" in said.stderr
    assert TOKEN not in said.stdout + said.stderr
    assert {sent for _, path, sent in served.asked if "me/model" in path} == {f"Bearer {TOKEN}"}
    got = [path for method, path, _ in served.asked if method == "GET" and "/resolve/" in path]
    assert sorted(path.rsplit("/", 1)[1] for path in got) == sorted(FETCHED)
    served.asked.clear()
    assert contents(ask("me/model@v1")) == wanted
    assert not [path for method, path, _ in served.asked if method == "GET" and "/resolve/" in path]


def test_a_dropped_connection_is_taken_up(served: Hub, ask: Any) -> None:
    served.drops = 1
    assert contents(ask("me/model"))[FETCHED[2]] == FILES[FETCHED[2]]
    assert served.drops == 0


def test_a_connection_that_stays_broken_is_said(served: Hub, ask: Any) -> None:
    """Half of the file comes, and of the rest nothing; the same command takes it up later."""
    script = CHILD.replace("import sys", "import sys, time\ntime.sleep = lambda _: None", 1)
    served.drops = 10**6
    line = one_line(ask("me/model", script))
    assert "could not be had from the hub: RemoteProtocolError: peer closed connection" in line
    served.drops = 0
    assert contents(ask("me/model"))[FETCHED[2]] == FILES[FETCHED[2]]
    served.status = 503
    assert "could not be had from the hub: HfHubHTTPError" in one_line(ask("me/other", script))


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (404, "RepoNotFound", "me/model is neither a folder here nor a model on the hub"),
        (401, "", "me/model is no folder here, and could not be had from the hub: HfHubHTTPError"),
        (401, "GatedRepo", "me/model is gated: accept its terms"),
        (403, "", "me/model is no folder here, and could not be had from the hub"),
    ],
)
def test_what_the_hub_refuses(served: Hub, ask: Any, status: int, error: str, said: str) -> None:
    served.status, served.error = status, error
    line = one_line(ask("me/model", HF_TOKEN=TOKEN))
    assert line.startswith(f"CheckpointError: {said}")
    assert TOKEN not in line


def test_an_unknown_revision(ask: Any) -> None:
    assert one_line(ask("me/model@v7")).endswith("me/model is on the hub, but has no revision v7")


def test_a_name_that_no_model_can_have(served: Hub, ask: Any) -> None:
    assert one_line(ask("me/mo--del")).startswith("ConfigError: me/mo--del cannot be a name on")
    assert not served.asked


def test_without_a_connection_the_cache_serves(served: Hub, ask: Any, tmp_path: Path) -> None:
    line = one_line(ask("me/model", HF_HUB_OFFLINE="1"))
    assert "could not be had from the hub: OfflineModeIsEnabled" in line
    line = one_line(ask("me/model", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "could not be had from the hub: ConnectError" in line or "refused" in line
    first = contents(ask("me/model"))
    assert contents(ask("me/model", HF_HUB_OFFLINE="1")) == first
    assert contents(ask("me/model", HF_ENDPOINT="http://127.0.0.1:9")) == first


def test_a_token_that_cannot_be_sent_is_not_shown(ask: Any) -> None:
    said = ask("me/model", HF_TOKEN="hf_secret\x0bsecret")
    assert "hf_secret" not in one_line(said) + said.stdout


def test_a_disk_without_room(served: Hub, ask: Any, tmp_path: Path) -> None:
    small = CHILD.replace(
        "import sys", "import sys, resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (99999,)*2)"
    )
    line = one_line(ask("me/model", small))
    assert line.startswith("StorageError: cannot write")
    assert "File too large" in line
    full = CHILD.replace(
        "import sys",
        "import sys, shutil\nreal = shutil.disk_usage\n"
        "shutil.disk_usage = lambda path: real(path)._replace(free=1000)",
        1,
    )
    line = one_line(ask("me/model", full))
    assert line.startswith("StorageError: me/model needs")
    assert "the disk has 1,000 left" in line


def test_a_path_is_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "model").mkdir(parents=True)
    for given in ("me/model", "./me/other", "../a/b", "/a/b", "~/b", ".", "model", "a/b/c"):
        assert not hub.is_name(given), given
        assert hub.folder_of(given) == Path(given).expanduser()
    assert not hub.is_name(Path("me/other"))
    for given in ("me/other", "me/other@main", "me/o-t.h_er@refs/pr/1"):
        assert hub.is_name(given), given
    for given in ("me/", "/me", "me/o ther", "me/other@", "-me/other", "me/öther"):
        assert not hub.is_name(given), given


TOKENIZER = CHILD.replace("hub.folder_of", "tokenizer.path_of").replace("hub", "tokenizer")


def test_of_a_tokenizer_no_weights_are_fetched(served: Hub, ask: Any) -> None:
    path = Path(ask("me/model", TOKENIZER).stdout.strip())
    assert (path.name, path.read_bytes()) == ("tokenizer.json", FILES["tokenizer.json"])
    assert not list(path.parent.glob("*.safetensors"))
    assert contents(ask("me/model")) == {name: FILES[name] for name in FETCHED}


CONVERT = """
import sys
from opengrok_jax.cli import main
main(["convert", "--source", sys.argv[1], "--out", sys.argv[1].replace("/", "-")])
"""


def test_a_model_is_converted_by_its_name(served: Hub, ask: Any, tmp_path: Path) -> None:
    config = Phi3Config.tiny(
        64, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    model = Phi3(config, rngs=nnx.Rngs(0))
    save_hf(model, config, tmp_path / "published")
    weights = {p.name: p.read_bytes() for p in (tmp_path / "published").iterdir()}
    served.files = {
        "LICENSE": b"terms",
        "tokenizer.json": b"{ }",
        "code.py": b"import os",
    } | weights
    done = ask("me/model@v1", CONVERT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "me-model@v1" / "LICENSE").read_bytes() == b"terms"
    assert not (tmp_path / "me-model@v1" / "code.py").exists()
    found = open_model(tmp_path / "me-model@v1")
    jax.tree.map(
        np.testing.assert_array_equal, nnx.state(found, nnx.Param), nnx.state(model, nnx.Param)
    )
    done = ask("me/other", CONVERT)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert done.stderr.startswith("opengrok: me/other is neither a folder here nor a model")


def test_without_the_library_its_extra_is_named(ask: Any) -> None:
    hidden = CHILD.replace("import sys", "import sys\nsys.modules['huggingface_hub'] = None", 1)
    said = ask("me/model", hidden)
    wanted = "MissingExtra: huggingface_hub is not installed; it comes with the extra 'hub'"
    assert said.stderr.startswith(wanted)
