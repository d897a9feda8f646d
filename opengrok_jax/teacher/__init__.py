"""Room 2, whom we ask: every prompt becomes one answer, and nothing that was paid for is lost.

    outcome      the words: a question as sent, a reply, what it means
    wire         prompt -> request body; reply -> typed outcome (pure); chat, responses_api: the two
                 APIs; faults, plain: what is no answer, values out of somebody else's JSON
    client       exchanges over httpx; the key (secret) stays in here; transport: its connections
    sending      many exchanges: rules and pace say how many at once, when again, when to stop
    journal      SQLite: the intent before the request, the reply before it is counted;
                 journal_file its tables, journal_plan what is left to ask, commits group commit
    money        ticks, prices, what is reserved and settled; budget: the caps; estimate: before
    preflight    what an endpoint tells for free, and what its first answer shows
    answers      recorded answers and gold labels, in the place of the client
    collect      `run`: prompts.jsonl -> journal.sqlite, responses.jsonl; settings, asking, export
                 and explain are its parts
    simulator/   an endpoint on 127.0.0.1 with faults, limits, prices and books of its own

Needs the extra `acquire` (httpx, httptools).
"""
