from opengrok_jax.teacher import settings
from opengrok_jax.teacher.asking import Judge
from opengrok_jax.teacher.outcome import Kind, Reply
from opengrok_jax.teacher.secret import Secret
from tests.teacher.questions import ASKING, completion


def judge(served="", served_as=()):
    teacher = settings.Teacher(
        source="api",
        endpoint="http://h/v1",
        asking=ASKING,
        rights="x",
        key=Secret(""),
        key_env="",
        timeout_sec=5.0,
        book=None,
        served_as=served_as,
    )
    return Judge(teacher, served)


def kinds(made, *models):
    return [made(Reply(status=200, body=completion("a", model=m))).kind for m in models]


def test_the_first_model_that_serves_is_the_one_that_must():
    dated = "tiny-teacher-2026-11-05"
    assert kinds(judge(), dated, dated) == [Kind.OK, Kind.OK]
    assert kinds(judge(), dated, "tiny-teacher-2026-12-01") == [Kind.OK, Kind.WRONG_MODEL]
    assert kinds(judge(served=dated), "tiny-teacher-2026-12-01") == [Kind.WRONG_MODEL]
    assert kinds(judge(), "", dated) == [Kind.OK, Kind.OK]


def test_names_that_the_user_gives_may_mix():
    assert kinds(judge(served_as=("b", "c")), "b", "c", "tiny-teacher", "d") == [
        Kind.OK,
        Kind.OK,
        Kind.OK,
        Kind.WRONG_MODEL,
    ]


def test_faults_pass():
    assert judge()(Reply(status=500)).kind is Kind.TRANSIENT
