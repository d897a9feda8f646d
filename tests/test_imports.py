"""The walls of the house, read off the imports in the code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "opengrok_jax"
ROOMS = {
    "prompts": 1,
    "teacher": 2,
    "curation": 3,
    "masking": 4,
    "model": 5,
    "training": 6,
    "evaluation": 7,
}
# What a room of the training side may take from another one; evaluation asks a model behind an API
# through the teacher, and imports it only there.
DOORS = {"training": {"model"}, "evaluation": {"model", "teacher"}}
# and tools/, ablation/; what to ask next follows from what curation says of answers: refinement knows both;
# the report shows the masks of the posts that were asked about
COMPOSERS = {
    "pipeline.py",
    "cli.py",
    "status.py",
    "train_tokenizer.py",
    "refine.py",
    "refine_loop.py",
    "report.py",
}
HTTP = {"httptools", "httpx", "requests", "aiohttp"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
HEAVY = JAX | HTTP | {"spacy", "sklearn", "pyarrow", "matplotlib", "jinja2", "torch", "datasketch"}


def imports(path: Path, *, module_level: bool) -> set[str]:
    """Dotted names that a file imports; with `module_level`, only those that run on import."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        deferred = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        if module_level and isinstance(node, deferred):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def files(repository: Path) -> list[Path]:
    found = sorted((repository / PACKAGE).rglob("*.py"))
    assert len(found) > 40
    return found


def room_of(path: Path, repository: Path) -> str:
    parts = path.relative_to(repository / PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def rooms_in(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == PACKAGE and len(p) > 1 and p[1] in ROOMS}


def test_rooms_know_no_other_room_but_through_their_doors(repository):
    for path in files(repository):
        room = room_of(path, repository)
        if room in ("tools", "ablation"):
            continue
        others = rooms_in(imports(path, module_level=False)) - {room}
        if room:
            assert others <= DOORS.get(room, set()), path
        elif path.name not in COMPOSERS:
            assert not others, f"{path} knows {others}; only {COMPOSERS} may"


def test_the_acquisition_side_never_imports_jax(repository):
    for path in files(repository):
        if ROOMS.get(room_of(path, repository), 9) <= 4:
            roots = {name.split(".")[0] for name in imports(path, module_level=False)}
            assert not roots & JAX, path


def test_the_training_side_loads_no_client_and_no_spacy(repository):
    for path in files(repository):
        room = room_of(path, repository)
        if ROOMS.get(room, 0) >= 5:
            roots = {name.split(".")[0] for name in imports(path, module_level=True)}
            barred = HTTP | {"spacy"} | ({"sklearn"} if room != "evaluation" else set())
            assert not roots & barred, path


def test_evaluation_knows_the_teacher_only_where_it_asks_one(repository):
    for path in files(repository):
        if room_of(path, repository) == "evaluation":
            known = rooms_in(imports(path, module_level=False)) - {"evaluation", "model"}
            assert known == ({"teacher"} if path.name == "api_model.py" else set()), path
            assert not rooms_in(imports(path, module_level=True)) - {"evaluation", "model"}, path


def test_what_every_command_imports_is_light(repository):
    package = repository / PACKAGE
    for path in (*package.glob("*.py"), *package.glob("tools/*.py")):
        roots = {name.split(".")[0] for name in imports(path, module_level=True)}
        assert not roots & HEAVY, path


def test_help_loads_nothing_heavy():
    code = "import sys, opengrok_jax.cli; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not set(loaded) & HEAVY


def test_scripts_are_doors(repository):
    for path in (repository / "scripts").glob("*.py"):
        tree = ast.parse(path.read_text())
        assert len(path.read_text().splitlines()) < 60, path
        runs = {n for n in imports(path, module_level=False) if n.startswith(PACKAGE)}
        assert len({n.rsplit(".", 1)[0] for n in runs if n.endswith(".run")}) == 1, path
        guarded = [n for n in tree.body if isinstance(n, ast.If)]
        assert any("__main__" in ast.unparse(n.test) for n in guarded), path
        assert not [
            n for n in tree.body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)
        ]


@pytest.mark.parametrize("folder", sorted([*ROOMS, "ablation", "tools", ""]))
def test_tests_mirror_the_package(repository, folder):
    tests = repository / "tests" / folder
    named = {p.stem.removeprefix("test_") for p in tests.glob("test_*.py")}
    here = repository / PACKAGE / folder
    modules = {p.stem for p in here.glob("*.py")} - {"__init__", "__main__"}
    if folder:
        modules |= {p.parent.name for p in here.glob("*/__init__.py")}
    beside = {"imports", "configs", "readme", "pipeline_smoke", "scripts"} if not folder else set()
    aspects = {n for n in named if any(n.startswith(f"{module}_") for module in modules)}
    assert named - modules - beside - aspects == set(), "a test file whose module is gone"
    assert modules - named == set(), "a module without a test file"
