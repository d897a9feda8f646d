import contextlib
import http.client
import json
import threading
from urllib.parse import urlsplit

import pytest

from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.curation.review import verbs as review
from opengrok_jax.curation.review.queueing import Draw
from opengrok_jax.errors import ConfigError, DataError, RunFolderError
from opengrok_jax.records import Finding
from tests.curation.review_rows import decision, verdict, write_run

DOUBT = Finding(check="echo", reason="echo", score=0.7, certain=False, detail="70 %")


@pytest.fixture
def run(tmp_path):
    rows = [verdict(f"f{n}", f"flagged {n}", reason="harmful") for n in range(5)]
    rows += [verdict(f"d{n}", f"doubt {n}", uncertain=True, findings=(DOUBT,)) for n in range(10)]
    rows += [verdict(f"k{n}", f"plain {n}") for n in range(190)]
    return write_run(tmp_path / "run", rows)


def add(run, *rows):
    with decisions.opened(run) as log:
        log.append_all(rows)


class Page:
    """What a browser does with the server."""

    def __init__(self, server):
        self.url = server.url

    def ask(self, path, body=None):
        parts = urlsplit(self.url)
        origin = f"http://{parts.netloc}"
        headers = {"X-Opengrok-Token": parts.query.removeprefix("token="), "Origin": origin}
        headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
        connection.request("POST" if body is not None else "GET", path, json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


@contextlib.contextmanager
def reviewing(run, reviewer="ann", **draw):
    with review.serving(run=run, reviewer=reviewer, draw=draw) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Page(server)
        finally:
            server.shutdown()
            thread.join()


def test_a_review_from_the_verdicts_to_the_decisions(run):
    with reviewing(run) as page:
        state = page.ask("/state")
        # 5 flagged, 20 of 200 uncertain, 10 in the audit, a tenth of these twice
        assert state["total"] == 5 + 20 + 10 + 4
        for _ in range(3):
            body = {"ticket": state["item"]["ticket"], "decision": "reject", "reason": "harmful"}
            state = page.ask("/decide", body)
        with pytest.raises(RunFolderError, match="in use"):
            review.import_(run=run, file=run / "x.csv")
        with pytest.raises(RunFolderError, match="in use"):
            review.serve(run=run, reviewer="bob", ready=print)
    found = decisions.read(run / "review" / "decisions.jsonl")
    assert [d.prompt_id[0] for d in found] == ["f"] * 3  # the flagged come first
    with reviewing(run) as page:
        assert page.ask("/state")["done"] == 3


def test_the_draw_is_the_same_next_time_and_its_seed_is_fixed(run):
    with reviewing(run, audit=0.02, repeat=0.0) as page:
        assert page.ask("/state")["total"] == 5 + 20 + 4
    with reviewing(run) as page:
        assert page.ask("/state")["total"] == 5 + 20 + 4
    with reviewing(run, seed=3):  # nothing was decided yet
        pass
    add(run, decision("accept", "k1", "plain 1"))
    with pytest.raises(ConfigError, match="--seed is 4 and this review was drawn with 3"):
        review.serve(run=run, reviewer="ann", draw={"seed": 4}, ready=print)
    with pytest.raises(ConfigError, match=r"--audit is 1\.5"):
        review.serve(run=run, reviewer="ann", draw={"audit": 1.5}, ready=print)
    whole = (run / "review" / "draw.json").read_text()
    for broken in ('{"seed": 1}', "[]", whole.replace("3", '"3"')):
        (run / "review" / "draw.json").write_text(broken)
        with pytest.raises(
            DataError, match=r"draw.json: expected numbers, audit, repeat, seed, unc"
        ):
            review.summary(run)


def test_another_reviewer_sees_what_is_left_and_what_everybody_sees(run):
    with reviewing(run, audit=0.3) as page:
        state = page.ask("/state")
        while state["item"]:
            state = page.ask("/decide", {"ticket": state["item"]["ticket"], "decision": "accept"})
    with reviewing(run, reviewer="bob") as page:
        assert page.ask("/state")["total"] == 9 * 2
        item = page.ask("/state")["item"]
        state = page.ask(
            "/decide", {"ticket": item["ticket"], "decision": "reject", "reason": "poor"}
        )
        (with_ann,) = state["agreement"]
        assert (with_ann["first"], with_ann["second"], with_ann["same"]) == ("ann", "bob", 0)
    lines = review.summary(run)
    assert lines[0] == "84 accepted, 0 edited, 1 rejected"
    assert lines[1] == "ann, second look: 9 of 9 the same, kappa not defined"
    assert lines[2] == "ann and bob: 0 of 1 the same, kappa 0.00"
    assert lines[3].startswith("harmful <= ")
    assert "95 % Wilson, 60 reviewed" in lines[3]


@pytest.mark.parametrize("name", ["", " ", "n" * 81, "a\ud800"])
def test_a_reviewer_has_a_name(run, name):
    with pytest.raises(ConfigError, match="--reviewer: "):
        review.serve(run=run, reviewer=name, ready=print)


@pytest.mark.parametrize("port", [-1, 65536, 1])
def test_a_port_that_cannot_be_had_is_one_line(run, port, monkeypatch):
    import socketserver

    if port == 1:  # root may have it

        def taken(server):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(socketserver.TCPServer, "server_bind", taken)
    with pytest.raises(ConfigError, match=f"port {port} cannot be used"):
        review.serve(run=run, reviewer="ann", port=port, ready=print)


def test_without_verdicts_there_is_nothing_to_review(tmp_path):
    for work in (
        lambda: review.serve(run=tmp_path, reviewer="ann", ready=print),
        lambda: review.export(run=tmp_path, file=tmp_path / "a.csv"),
        lambda: review.import_(run=tmp_path, file=tmp_path / "a.csv"),
        lambda: review.summary(tmp_path),
    ):
        with pytest.raises(DataError, match="run `opengrok curate` first"):
            work()


def test_out_and_in(run, tmp_path):
    add(
        run,
        decision("reject", "f1", "flagged 1"),
        decision("accept", "k7", "plain 7"),
        decision("accept", "k8", "an earlier text"),
    )
    assert review.export(run=run, file=tmp_path / "a.csv") >= 36
    assert review.export(run=run, file=tmp_path / "b.csv", draw={"audit": 0.5}) >= 126
    with reviewing(run) as page:  # it remembers
        assert page.ask("/state")["total"] > 126
    other = write_run(tmp_path / "other", review.verdicts(run))
    taken = review.import_(run=other, file=tmp_path / "a.csv")
    assert (taken.taken, taken.known) == (2, 0)
    assert review.import_(run=other, file=tmp_path / "a.csv").known == 2
    assert (
        review.summary(run)[0]
        == "1 accepted, 0 edited, 1 rejected; 1 on answers that changed since"
    )
    assert review.summary(other)[0] == "1 accepted, 0 edited, 1 rejected"


def test_the_bound_is_that_of_the_audit_alone(run):
    rows = review.verdicts(run)
    draw = Draw(audit=0.3)
    before = review.audited(rows, [], draw)
    assert (before.drawn, before.reviewed, before.upper) == (60, 0, None)
    assert (before.unreviewed, before.uncovered) == (180, 20)
    said = [decision("accept", r.prompt_id, r.response) for r in rows if r.prompt_id[0] == "k"]
    after = review.audited(rows, said, draw)
    assert after.reviewed == 60
    assert after.upper == pytest.approx(3.841458820694124 / (60 + 3.841458820694124))
    assert (after.unreviewed, after.uncovered) == (0, 10)
    # What the rules reject was never a part of it.
    flagged = [decision("reject", f"f{n}", f"flagged {n}") for n in range(5)]
    assert review.audited(rows, [*said, *flagged], draw) == after
