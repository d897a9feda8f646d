from opengrok_jax.teacher.simulator.ledger import Bill, Bucket, Ledger


def test_the_books_are_whole_numbers_by_key():
    ledger = Ledger()
    assert [ledger.arrived("a"), ledger.arrived("a"), ledger.arrived("b")] == [1, 2, 1]
    ledger.acted("a", "rate_429", None)
    ledger.acted("a", "answer", Bill(prompt_tokens=3, completion_tokens=2, ticks=70))
    ledger.left("a", delivered=False)
    ledger.left("a", delivered=True)
    assert ledger.report() == {
        "requests": 3,
        "answered": 1,
        "billed_ticks": 70,
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "most_at_once": 3,
        "acts": {"rate_429": 1, "answer": 1},
        "keys": {
            "a": {"sent": 2, "answered": 1, "billed_ticks": 70},
            "b": {"sent": 1, "answered": 0, "billed_ticks": 0},
        },
    }
    assert ledger.billed_ticks == 70


def test_a_bucket_lets_through_its_rate():
    bucket = Bucket(600)
    now, passed = 0.0, 0
    while now < 6.0:
        wait = bucket.wait(1, now)
        passed += not wait
        now += max(wait, 1e-6)
    assert 60 <= passed <= 71
    assert bucket.wait(10**6, now) < 10  # more than a second's worth is let through when full
