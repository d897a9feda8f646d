import json

from opengrok_jax import status
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.money import Need
from opengrok_jax.teacher.outcome import Reply
from tests.teacher.questions import completion, requests, sent

OK = Reply(status=200, body=completion("yes"), received_at=5.0)


def killed(folder):
    """A collection that was killed with one answer there and one request under way."""
    need = Need(ticks=25_000_000, tokens=9)
    with opened(folder / "teacher" / "journal.sqlite") as journal:
        todo = list(journal.plan("p", "http://127.0.0.1:1/v1", requests(3)).todo())
        journal.received(sent(journal, todo[0], need), OK, wire.read(OK), 9_000_000, 9)
        sent(journal, todo[1], need)
        journal.write()
    with opened(folder / "teacher" / "journal.sqlite"):
        return todo[1].prompt_id


def test_what_may_have_been_paid_is_told_with_its_money_and_named_on_request(tmp_path, capsys):
    lost = killed(tmp_path)
    assert status.show(tmp_path, as_json=False, orphans=False) == 0
    told = capsys.readouterr().out
    assert "planned 3 = 1 ok + 0 failed + 0 blocked + 1 orphaned + 1 pending" in told
    assert "2 requests, 0.000900 USD settled, 0.002500 USD reserved" in told
    assert "1 requests ended with their process and may have been paid (0.002500 USD" in told
    assert "--orphans" in told
    assert lost not in told
    status.show(tmp_path, as_json=False, orphans=True)
    assert f"prompt {lost}, sent" in capsys.readouterr().out


def test_a_journal_that_cannot_be_read_is_one_line(tmp_path, capsys):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "journal.sqlite").write_bytes(b"no database, " * 400)
    assert status.show(tmp_path, as_json=False, orphans=False) == 0
    assert "teacher/journal.sqlite: " in capsys.readouterr().out


def test_json_has_the_same(tmp_path, capsys):
    killed(tmp_path)
    status.show(tmp_path, as_json=True, orphans=False)
    (collect,) = [
        row for row in json.loads(capsys.readouterr().out)["stages"] if row["stage"] == "collect"
    ]
    found = collect["journals"]["teacher/journal.sqlite"]
    assert (found["planned"], found["at_risk_ticks"], len(found["orphans"])) == (3, 25_000_000, 1)
