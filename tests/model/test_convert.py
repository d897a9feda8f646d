"""Safetensors -> student -> safetensors: no bit changes, little memory, nothing half there."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import CheckpointError, ConfigError, StorageError
from opengrok_jax.model import convert, hf_config, student_stream
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.model.student import DIGESTS, load_student, save_student
from opengrok_jax.model.tensorfile import read_folder, read_header, write_file
from opengrok_jax.model.weights import load_hf, save_hf

CONFIG = Phi3Config.tiny(31, hidden_size=12, intermediate_size=10, num_hidden_layers=3,
                         num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
BESIDE = {
    "tokenizer.json": b'{"version": "1.0"}\r\n',
    "tokenizer_config.json": "{\u00e4: \u2603}".encode(),
    "special_tokens_map.json": b"{}",
    "generation_config.json": b'{"eos_token_id": [1, 2]}',
    "added_tokens.json": b"{}",
    "tokenizer.model": bytes(range(256)),
    "chat_template.jinja": b"{{ x }}",
    "LICENSE": b"terms",
}
NOT_CARRIED = {"modeling_phi3.py": b"import os", "pytorch_model.bin": b"\x80\x04."}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student_stream, "BLOCK_BYTES", 200)


@pytest.fixture(scope="module")
def model(random_model: Callable[..., Phi3]) -> Phi3:
    return random_model(CONFIG)


@pytest.fixture
def saved(model: Phi3, tmp_path: Path) -> Path:
    save_hf(model, CONFIG, tmp_path / "saved")
    for name, content in {**BESIDE, **NOT_CARRIED}.items():
        (tmp_path / "saved" / name).write_bytes(content)
    return tmp_path / "saved"


def contents(folder: Path) -> dict[str, tuple[str, bytes]]:
    return {n: (str(t.dtype), t.read().tobytes()) for n, t in read_folder(folder).items()}


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.read() for name, tensor in read_header(path).items()}
    change(tensors)
    write_file(path, [(n, a.shape, a.dtype) for n, a in tensors.items()], tensors.__getitem__)


def parameters(model: Phi3) -> Any:
    return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("half", "tied", "shards"), [(False, False, False), (True, True, False), (True, False, True)]
)
def test_there_and_back_is_byte_identical(
    half: bool,
    tied: bool,
    shards: bool,
    hf_model: Any,
    hf_folder: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = hf_model(tie_word_embeddings=tied)
    limit = 7000 if shards else 10**9
    monkeypatch.setattr(convert, "SHARD_BYTES", limit)
    folder = hf_folder(theirs.bfloat16() if half else theirs, max_shard_size=limit)
    convert.run(source=folder, out=tmp_path / "student")
    convert.run(source=tmp_path / "student", out=tmp_path / "back", to="hf")
    before, after = (
        {p.name: p.read_bytes() for p in where.iterdir()} for where in (folder, tmp_path / "back")
    )
    assert before == after
    assert (len([name for name in before if name.endswith(".safetensors")]) > 1) == shards
    loaded, config = load_student(tmp_path / "student")
    assert config == hf_config.read(folder)
    jax.tree.map(np.testing.assert_array_equal, parameters(loaded), parameters(load_hf(folder)))


def test_files_of_the_tokenizer_go_along_and_code_does_not(saved: Path, tmp_path: Path) -> None:
    done = convert.run(source=saved, out=tmp_path / "student")
    convert.run(source=tmp_path / "student", out=tmp_path / "back", to="hf")
    for name, content in BESIDE.items():
        assert (tmp_path / "student" / name).read_bytes() == content
        assert (tmp_path / "back" / name).read_bytes() == content
    assert done["left"] == sorted(NOT_CARRIED)
    for name in NOT_CARRIED:
        assert not (tmp_path / "student" / name).exists()


def test_a_student_loads_on_another_mesh(saved: Path, model: Phi3, tmp_path: Path) -> None:
    convert.run(source=saved, out=tmp_path / "student")
    loaded, _ = load_student(tmp_path / "student", mesh=make_mesh(data=1, fsdp=-1))
    jax.tree.map(np.testing.assert_array_equal, parameters(loaded), parameters(model))


def test_layers_of_other_dtypes_keep_theirs(saved: Path, tmp_path: Path) -> None:
    def halve(tensors: dict[str, np.ndarray]) -> None:
        for name in tensors:
            if "norm" not in name:
                tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)

    rewrite(saved, halve)
    convert.run(source=saved, out=tmp_path / "student")
    convert.run(source=tmp_path / "student", out=tmp_path / "back", to="hf")
    assert contents(tmp_path / "back") == contents(saved)
    assert {dtype for dtype, _ in contents(saved).values()} == {"float32", "bfloat16"}
    jax.tree.map(
        np.testing.assert_array_equal,
        parameters(load_student(tmp_path / "student")[0]),
        parameters(load_hf(saved)),
    )


def test_one_layer_of_another_dtype_is_named(saved: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    rewrite(saved, lambda t: t.update({name: t[name].astype(np.float16)}))
    with pytest.raises(CheckpointError, match=f"{name} is stored as float16"):
        convert.run(source=saved, out=tmp_path / "student")
    convert.run(source=saved, out=tmp_path / "student", dtype="bfloat16")


@pytest.mark.parametrize("to", ["orbax", "hf"])
def test_another_dtype(saved: Path, model: Phi3, to: str, tmp_path: Path) -> None:
    done = convert.run(source=saved, out=tmp_path / "half", to=to, dtype="bfloat16")
    assert done["dtypes"] == ["bfloat16"]
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    loaded = load_student(tmp_path / "half")[0] if to == "orbax" else load_hf(tmp_path / "half")
    wanted = jax.tree.map(lambda a: a.astype(ml_dtypes.bfloat16), parameters(model))
    jax.tree.map(np.testing.assert_array_equal, parameters(loaded), wanted)


def test_a_trained_student_is_served_by_transformers(
    hf_model: Any, hf_folder: Any, hf_logits: Any, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    folder = hf_folder(hf_model())
    config = hf_config.read(folder)
    ours = load_hf(folder)
    ours.layers.mlp.down_proj.weight[...] = ours.layers.mlp.down_proj.weight[...] * 1.5
    save_student(tmp_path / "student", ours, config)
    convert.run(source=tmp_path / "student", out=tmp_path / "export", to="hf")
    theirs = transformers.Phi3ForCausalLM.from_pretrained(
        tmp_path / "export", attn_implementation="eager"
    )
    tokens = np.random.default_rng(0).integers(8, 61, (1, 19))
    got = nnx.jit(lambda model, t: model(t, jnp.ones_like(t)))(ours, jnp.asarray(tokens))
    want = hf_logits(theirs.eval(), tokens)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


NORM, QKV = "model.norm.weight", "model.layers.2.self_attn.qkv_proj.weight"


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 5)


def state(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | fields))

    return change


def as_integers(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"', 1))


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """The same bytes of tensors under another header."""

    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        whole = path.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        raw = json.loads(whole[8 : 8 + length])
        text = change(raw)
        text = json.dumps(raw).encode() if not isinstance(text, bytes) else text
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])

    return damage


def overlap(raw: dict[str, Any]) -> None:
    start, stop = raw[QKV]["data_offsets"]
    raw[QKV]["data_offsets"] = [start - 4, stop - 4]


def twice(raw: dict[str, Any]) -> bytes:
    text = json.dumps(raw)
    return (text[:-1] + f', "{NORM}": {json.dumps(raw[NORM])}}}').encode()


def header_length(number: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(number.to_bytes(8, "little") + path.read_bytes()[8:])

    return damage


def shards(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """The weights in two files with an index, and then something done to them."""

    def damage(folder: Path) -> None:
        tensors = {n: t.read() for n, t in read_header(folder / "model.safetensors").items()}
        (folder / "model.safetensors").unlink()
        names = sorted(tensors)
        placed = {}
        for file, part in (("a.safetensors", names[:9]), ("b.safetensors", names[9:])):
            layout = [(n, tensors[n].shape, tensors[n].dtype) for n in part]
            write_file(folder / file, layout, tensors.__getitem__)
            placed |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
        change(folder)

    return damage


def in_both(folder: Path) -> None:
    tensors = {n: t.read() for n, t in read_header(folder / "a.safetensors").items()}
    tensors[NORM] = np.zeros(12, np.float32)
    layout = [(n, a.shape, a.dtype) for n, a in tensors.items()]
    write_file(folder / "a.safetensors", layout, tensors.__getitem__)


def place_elsewhere(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    raw = json.loads(index.read_text())
    raw["weight_map"][NORM] = "a.safetensors"
    index.write_text(json.dumps(raw))


def stored_as(dtype: str) -> Callable[[Path], None]:
    def change(raw: dict[str, Any]) -> None:
        raw[QKV]["dtype"] = dtype

    return header(change)


def pickled(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as file:
        pickle.dump({NORM: [1.0] * 99}, file)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (cut, "not a whole safetensors file|byte range of"),
    "missing": (lambda f: rewrite(f, lambda t: t.pop(QKV)), f"1 missing: {QKV}"),
    "extra": (
        lambda f: rewrite(f, lambda t: t.update(surplus=t[NORM])),
        "1 not part of the model: surplus",
    ),
    "mis-shaped": (
        lambda f: rewrite(f, lambda t: t.update({QKV: t[QKV].T.copy()})),
        f"1 of another shape: {QKV}",
    ),
    "integers": (as_integers, "tensor .* is stored as I32"),
    "another architecture": (state(architectures=["LlamaForCausalLM"]), "LlamaForCausalLM"),
    "another model type": (state(model_type="llama"), "llama"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "pickled weights"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "header too long": (header_length(2**40), "its header alone needs more"),
    "header too short": (header_length(9), "its header is not JSON"),
    "header of nothing": (header_length(0), "its header is not JSON"),
    "eight bytes": (lambda f: os.truncate(f / "model.safetensors", 8), "header alone needs more"),
    "empty": (lambda f: os.truncate(f / "model.safetensors", 0), "header alone needs more"),
    "header not JSON": (header(lambda _: b"{"), "its header is not JSON"),
    "header not UTF-8": (header(lambda _: b'{"\xff": 1}'), "its header is not JSON"),
    "header without end": (header(lambda _: b"[" * 10**6), "its header is not JSON"),
    "header a list": (header(lambda _: b"[1]"), "malformed header"),
    "no offsets": (header(lambda raw: raw[QKV].pop("data_offsets")), "malformed header"),
    "overlapping": (header(overlap), f"the byte range of {QKV} is wrong"),
    "twice in a header": (header(twice), f"{NORM} is there twice"),
    "twice in two shards": (shards(in_both), f"{NORM} is twice in .*a.safetensors and in b.safe"),
    "a shard is lost": (shards(lambda f: (f / "b.safetensors").unlink()), "b.safetensors"),
    "another shard": (shards(place_elsewhere), f"places {NORM} in a.safetensors, which does not"),
    "half an index": (
        shards(lambda f: os.truncate(f / "model.safetensors.index.json", 99)),
        "not an index of shards",
    ),
    "a pickle": (pickled, "a pickle by its first bytes; pickled weights"),
    "a zip": (
        lambda f: (f / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(200)),
        "a pickle by its first bytes",
    ),
    "float64": (stored_as("F64"), f"tensor {QKV} is stored as F64; only"),
    "int8": (stored_as("I8"), f"tensor {QKV} is stored as I8; only"),
    "half the width": (stored_as("BF16"), f"the byte range of {QKV} is wrong"),
    "garbage": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), "not a whole"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_source_is_named_and_leaves_nothing(how: str, saved: Path, tmp_path: Path) -> None:
    damage, said = BROKEN[how]
    damage(saved)
    with pytest.raises(CheckpointError, match=said):
        convert.run(source=saved, out=tmp_path / "student")
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


@pytest.fixture
def student(saved: Path, tmp_path: Path) -> Path:
    convert.run(source=saved, out=tmp_path / "student")
    return tmp_path / "student"


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def lose_a_data_file(folder: Path) -> None:
    largest_file(folder / "params").unlink()


def flip_a_digest(folder: Path) -> None:
    noted = json.loads((folder / DIGESTS).read_text())
    noted[sorted(noted)[0]] ^= 1
    (folder / DIGESTS).write_text(json.dumps(noted))


BROKEN_STUDENTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "data lost": (lose_a_data_file, "cannot be read"),
    "no digests": (lambda f: (f / DIGESTS).unlink(), "digests.json is missing"),
    "digests cut": (lambda f: os.truncate(f / DIGESTS, 9), "copy the student anew"),
    "another number": (flip_a_digest, "damaged: 1 arrays.*embed_tokens"),
    "another size": (state(intermediate_size=20), r"mlp\.\w+\.weight is .* by config.json"),
    "another architecture": (state(architectures=["LlamaForCausalLM"]), "LlamaForCausalLM"),
    "tied": (state(tie_word_embeddings=True), "1 not part of the model: lm_head"),
}


@pytest.mark.parametrize("how", BROKEN_STUDENTS)
def test_a_broken_student_is_named_and_leaves_nothing(
    how: str, student: Path, tmp_path: Path
) -> None:
    damage, said = BROKEN_STUDENTS[how]
    damage(student)
    with pytest.raises(CheckpointError, match=said):
        convert.run(source=student, out=tmp_path / "back", to="hf")
    assert {p.name for p in tmp_path.iterdir()} == {"saved", "student"}


def test_what_is_there_already_stays(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is there already"):
        convert.run(source=saved, out=tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.txt"]
    with pytest.raises(CheckpointError, match="is there already"):
        convert.run(source=saved, out=saved, to="hf")


def test_the_half_of_a_killed_run_is_cleared(saved: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial" / "params").mkdir(parents=True)
    (tmp_path / ".out.partial" / "stale").write_text("")
    (tmp_path / "out").mkdir()  # empty: it may be taken
    convert.run(source=saved, out=tmp_path / "out")
    load_student(tmp_path / "out")
    assert not (tmp_path / "out" / "stale").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"saved", "out"}


def test_links_are_followed_and_stay(saved: Path, model: Phi3, tmp_path: Path) -> None:
    """The folder, its weights (as in the cache of the hub) and the target may be links."""
    (tmp_path / "blob").write_bytes((saved / "model.safetensors").read_bytes())
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors").symlink_to("../blob")
    (tmp_path / "link").symlink_to("saved")
    (tmp_path / "room").mkdir()
    for name in ("room", "not-there-yet"):
        (tmp_path / f"to-{name}").symlink_to(name)
        convert.run(source=tmp_path / "link", out=tmp_path / f"to-{name}", to="hf")
        assert (tmp_path / f"to-{name}").is_symlink()
        assert not (tmp_path / name / "model.safetensors").is_symlink()
        jax.tree.map(
            np.testing.assert_array_equal, parameters(load_hf(tmp_path / name)), parameters(model)
        )


def test_nothing_is_made_inside_the_source(saved: Path, tmp_path: Path) -> None:
    before = sorted(saved.rglob("*"))
    (tmp_path / "link").symlink_to("saved")
    for out in (saved / "student", saved / "a" / "b", tmp_path / "link" / "student"):
        with pytest.raises(CheckpointError, match="lies inside the source"):
            convert.run(source=saved, out=out)
    assert sorted(saved.rglob("*")) == before


INTERRUPTED = """
import os, resource, signal, sys
from pathlib import Path
from opengrok_jax.errors import UserError
from opengrok_jax.model import convert, student_stream, tensorfile

source, out, to, how = sys.argv[1:]
student_stream.BLOCK_BYTES = 200
calls, sync = [], os.fsync

def kill(*_):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

if how == "kill":
    old = student_stream.StudentWriter.write
    student_stream.StudentWriter.write = lambda *given: (old(*given), kill())
    os.fsync = lambda descriptor: (sync(descriptor), kill())
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(how),) * 2)
try:
    convert.run(source=Path(source), out=Path(out), to=to)
except UserError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def interrupted(source: Path, out: Path, to: str, how: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(source), str(out), to, how],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("to", ["orbax", "hf"])
def test_killed_half_way_the_same_command_mends_it(
    to: str, saved: Path, model: Phi3, tmp_path: Path
) -> None:
    status, said = interrupted(saved, tmp_path / "out", to, "kill")
    assert status == -signal.SIGKILL, said
    assert {p.name for p in tmp_path.iterdir()} == {"saved", ".out.partial"}
    convert.run(source=saved, out=tmp_path / "out", to=to)
    assert {p.name for p in tmp_path.iterdir()} == {"saved", "out"}
    found = load_student(tmp_path / "out")[0] if to == "orbax" else load_hf(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, parameters(found), parameters(model))


@pytest.mark.parametrize("to", ["orbax", "hf"])
def test_a_disk_that_fills_up_leaves_nothing(to: str, saved: Path, tmp_path: Path) -> None:
    """A limit on the size of a file: the system refuses in the middle of a write."""
    status, said = interrupted(saved, tmp_path / "out", to, "1500")
    assert status == 1, said
    (line,) = [line for line in said.splitlines() if "Error" in line]
    assert line.startswith("StorageError: cannot write")
    assert "File too large; free some space" in line
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def test_wrong_arguments(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of orbax, hf"):
        convert.run(source=saved, out=tmp_path / "out", to="gguf")
    with pytest.raises(ConfigError, match="expected one of float32, bfloat16"):
        convert.run(source=saved, out=tmp_path / "out", dtype="int8")
    with pytest.raises(CheckpointError, match="is no folder"):
        convert.run(source=tmp_path / "nothing", out=tmp_path / "out")


def test_a_disk_too_small_is_said_at_once(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = convert.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda _: full)
    with pytest.raises(StorageError, match="1,000 left"):
        convert.run(source=saved, out=tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_model(saved: Path, tmp_path: Path) -> None:
    """A model of 640 MB whose largest parameter is a stack of 400 MB, there and back.

    What it takes beyond a tiny model is its largest tensor of 67 MB and some blocks, on their way
    through the compressor to the disk: less than half of the stack.
    """
    config = Phi3Config.tiny(64, hidden_size=1024, intermediate_size=8192, num_hidden_layers=6,
                             num_attention_heads=8)  # fmt: skip
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "config.json").write_text(hf_config.write(config, "float32"))
    shapes, kind = convert.hf_shapes(config), np.dtype(np.float32)
    rng = np.random.default_rng(0)
    write_file(
        tmp_path / "big" / "model.safetensors",
        [(name, shape, kind) for name, shape in shapes.items()],
        lambda name: rng.random(shapes[name], kind),
    )
    sizes = [int(np.prod(shape)) * 4 for shape in shapes.values()]
    assert sum(sizes) > 600e6
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from opengrok_jax.model import convert, student_stream

        student_stream.BLOCK_BYTES = 2**22  # so that the blocks on their way count for little

        def there_and_back(source):
            convert.run(source=source, out=source.with_name(source.name + "-student"))
            convert.run(source=source.with_name(source.name + "-student"),
                        out=source.with_name(source.name + "-back"), to="hf")
            # Not ru_maxrss: that begins with what the parent held when it started this.
            status = Path("/proc/self/status").read_text().split()
            return int(status[status.index("VmHWM:") + 1]) * 1024

        small, big = map(Path, sys.argv[1:])
        before = there_and_back(small)
        print(there_and_back(big) - before)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved), str(tmp_path / "big")],
        capture_output=True,
        text=True,
        check=True,
    )
    stack = 6 * max(sizes)
    assert int(done.stdout) < stack / 2, f"{int(done.stdout):,} bytes, a stack is {stack:,}"
    same = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("big", "big-back")]
    assert same[0] == same[1]
