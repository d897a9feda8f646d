"""generate as a user meets it."""

import signal
import subprocess
import sys

import pytest

from opengrok_jax import cli
from tests.command import opengrok


def test_generate_says_what_it_takes(tmp_path):
    done = opengrok("generate", "--help", cwd=tmp_path)
    assert done.returncode == 0
    flags = (
        "--checkpoint --prompt --system --tokenizer --max-new-tokens --temperature --top-p --seed"
    )
    flags += " --dtype"
    assert all(flag in done.stdout for flag in flags.split())


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ([], 6, "none holds no model: config.json is missing"),
        (["--temperature=-1"], 2, "temperature=-1.0: expected 0 or a positive number"),
        (["--temperature=1", "--top-p=0"], 2, "top_p=0.0: expected a number above 0"),
        (["--top-p=0.5"], 2, "changes nothing at temperature 0"),
        (["--seed=3"], 2, "--seed changes nothing at temperature 0"),
        (["--max-new-tokens=0"], 2, "max_new_tokens=0: expected at least 1"),
        (["--tokenizer=nowhere.json"], 3, "nowhere.json: no such tokenizer file"),
        (["--loud"], 2, "--loud: no such flag"),
    ],
)
def test_generate_refuses_in_one_line(tmp_path, capsys, change, status, said):
    words = ["generate", "--checkpoint", str(tmp_path / "none"), "--prompt", "hello", *change]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out, shown.err.count("\n")) == (status, "", 1)
    assert said in shown.err


def test_generate_prints_what_the_student_says(student):
    """In a real process, twice the same; the prompt in the arguments or on standard input."""
    words = ["generate", "--checkpoint", "student", "--max-new-tokens=9"]
    draws = [[], ["--temperature=2", "--seed=1"], ["--temperature=2", "--seed=1"]]
    greedy, drawn, again = (
        opengrok(*words, "--prompt", "hello", *more, cwd=student.parent) for more in draws
    )
    command = [sys.executable, "-m", "opengrok_jax", *words, "--prompt=-"]
    piped, broken = (
        subprocess.run(command, cwd=student.parent, input=text, capture_output=True, check=False)
        for text in (b"hello\n", b"caf\xe9")
    )
    for done in (greedy, drawn, again):
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()
    assert drawn.stdout == again.stdout != greedy.stdout
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert piped.stdout.decode() == greedy.stdout
    assert broken.returncode == 3
    assert broken.stderr.startswith(b"opengrok: standard input is not UTF-8")
    assert broken.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("reader", "status", "said"), [("stops", 0, ""), ("interrupts", 130, "stopped")]
)
def test_generate_stops_without_a_traceback(student, reader, status, said):
    """After its first ten bytes the pipe is closed (head -c 10), or Ctrl-C comes."""
    words = ["--checkpoint", "student", "--prompt", "hello", "--max-new-tokens=4000"]
    # A shell that runs tests in the background has them, and so their children, ignore Ctrl-C.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from opengrok_jax.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "generate", *words],
        cwd=student.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert len(running.stdout.read(10)) == 10
        if reader == "stops":
            running.stdout.close()
        else:
            running.send_signal(signal.SIGINT)
            running.stdout.read()
        errors = running.stderr.read().decode()
    assert (running.returncode, errors) == (status, f"opengrok: {said}\n" if said else "")
