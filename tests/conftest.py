"""What holds for every test: one CPU platform, shapes checked, warnings are errors, no network."""

import atexit
import os
import shutil
import signal
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"

# Tests send Ctrl-C to commands. Started in the background of a script (`bash scripts/test.sh &`), they
# and all that they start would ignore it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Most of the time of these tests is compiling. XLA optimises less and takes its older, quicker way to
# machine code (each halves it), and what one process of a run has compiled the others read: pytest's
# workers and the commands that tests start inherit the folder.
if os.environ["JAX_PLATFORMS"] == "cpu" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.mkdtemp(prefix="opengrok-tests-compiled-")
    atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
    QUICKLY = "--xla_cpu_parallel_codegen_split_count=1"
    if version("jaxlib").startswith("0.10."):  # later ones know no older way, and end at the flag
        QUICKLY += " --xla_cpu_use_fusion_emitters=false"
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": COMPILED,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": f"{QUICKLY} {os.environ.get('XLA_FLAGS', '')}",
    }

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Shapes and dtypes in signatures are checked here and nowhere else: users pay nothing for them.
install_import_hook("opengrok_jax", "beartype.beartype")

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("default")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real posts and the real Phi-3 tokenizer; not part of the project."""
    folder = Path(os.environ.get("OPENGROK_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; OPENGROK_SHARED_DATA names another folder")
    return folder
