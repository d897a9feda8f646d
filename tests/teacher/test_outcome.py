from opengrok_jax.teacher.outcome import STOPPING, Kind, Reply, Request, Usage


def test_what_stops_everything_is_no_answer_and_no_hiccup():
    assert Kind.OK not in STOPPING
    assert not STOPPING & {Kind.TRANSIENT, Kind.RATE_LIMITED, Kind.BLOCKED, Kind.UNANSWERABLE}


def test_bodies_stay_out_of_reprs():
    assert "secret words" not in repr(Request(key="k", prompt_id="p", body=b"secret words"))
    assert "secret words" not in repr(Reply(status=200, body=b"secret words"))


def test_usage_is_told_when_anything_was_counted():
    assert not Usage().told
    assert not Usage(cost_ticks=5).told
    assert Usage(prompt_tokens=1).told
