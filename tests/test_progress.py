import pytest

from opengrok_jax import progress


def test_plain_lines_when_piped(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.track("collect", total=4, unit="answers", done=1) as advance:
        advance()
        advance(2, note="1 rejected")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("collect: 2/4 answers, 0 s left")
    assert lines[1] == "collect: 4/4 answers, 0 s left, 1 rejected"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.7, "1 min 0 s"), (7260.0, "2 h 1 min")]
)
def test_duration(seconds, said):
    assert progress.duration(seconds) == said


def test_a_muted_process_tells_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_muted", False)  # and so it is again afterwards
    progress.say("before")
    progress.mute()
    progress.say("after")
    with progress.track("collect", total=1, unit="answers") as advance:
        advance()
    assert capsys.readouterr().err == "before\n"


def test_words_of_others_steer_no_terminal(capsys):
    progress.say("it says \x1b]0;gone\x07 \u202e, is it?\nyes")
    assert capsys.readouterr().err == "it says \\x1b]0;gone\\x07 \\u202e, is it?\nyes\n"
