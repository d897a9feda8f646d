import doctest

import pytest

from opengrok_jax import errors


def test_the_tree_that_is_drawn_is_the_tree():
    drawn = errors.__doc__ or ""
    kinds: list[type[errors.UserError]] = [errors.UserError, *errors.UserError.__subclasses__()]
    codes = [c.exit_code for c in kinds]
    assert len(set(codes)) == len(codes), "every error has an exit status of its own"
    for kind in kinds:
        line = next(x for x in drawn.splitlines() if kind.__name__ in x)
        if kind is not errors.UserError:
            assert kind.__bases__ == (errors.UserError,)
            assert line.endswith(f"exit {kind.exit_code}")


def test_a_missing_library_names_its_extra():
    with pytest.raises(errors.MissingExtra, match=r"pip install 'opengrok-jax\[mask\]'"):
        with errors.needs_extra("mask"):
            import surely_not_installed  # noqa: F401  # pyright: ignore


def test_a_script_ends_with_one_line_and_the_status(capsys):
    with pytest.raises(SystemExit) as ended, errors.in_one_line():
        raise errors.DataError("a.conllu holds \x1b[31mno sentence")
    assert ended.value.code == errors.DataError.exit_code
    assert capsys.readouterr().err == "opengrok: a.conllu holds \\x1b[31mno sentence\n"


def test_doctests():
    assert doctest.testmod(errors).failed == 0
