"""Room 3, what we keep: every answer is kept or rejected with a reason that can be read.

    pii          personal data -> typed placeholders, before anything else looks at the text
    shingles     words and word triples, the unit of length, echo and likeness
    words        harmful words and phrases in tiers, seen through common disguises
    checks       (prompt, response, settings) -> Verdict; the reasons
    duplicates   near-duplicate answers within an intent
    curate       `run`: responses.jsonl -> kept.jsonl, rejected.jsonl
    review       people look: `review_queue` which answers, `review_session` one reviewer at work,
                 `review_server` and `review_page.*` the page, `review_decisions` the file that
                 only grows, `review_exchange`, `_csv` and `_label_studio` other programs' files,
                 `review_agreement` kappa, `review_bound` what may be said of the rest

Needs the extra `acquire` (datasketch).
"""
