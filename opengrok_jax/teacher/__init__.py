"""Room 2, whom we ask: every prompt becomes one answer, and nothing that was paid for is lost.

    wire       prompt -> request body; reply -> typed outcome (pure)
    client     one exchange over HTTP; the key stays in here
    sending    many exchanges: how many at once, when again, when to stop
    journal    SQLite: the intent before the request, the reply before it is counted
    simulated  what a simulated teacher says
    answers    recorded answers and gold labels, behind the same HTTP border
    collect    `run`: prompts.jsonl -> journal.sqlite, responses.jsonl

Needs the extra `acquire` (httpx).
"""
