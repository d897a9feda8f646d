"""Room 3, what we keep: every answer is kept or rejected with a reason that can be read.

    pii            personal data -> typed placeholders, before anything else looks at the text
    shingles       words and word triples, the unit of length, echo and likeness
    looks          what a check answers: score, fault, doubt; the settings of all checks
    refusals harm words language labels repetition relevance contamination      a check each
    checks         the others, and all of them in their order
    judging        one answer, judged; in one process or in several
    duplicates     near-duplicate answers within an intent, exactly
    balance        what the kept answers lean to, and whom the checks hit
    rules          one hash over all that decides
    people         what people's decisions do to a verdict
    curate         `run`: responses.jsonl -> verdicts, kept and rejected rows, balance
    review/        people look at answers, and what they decide
    card           the data card
    export         `run`: kept.jsonl -> train and valid as JSONL and Parquet, manifest, card

Docs: docs/curation.md, with what the checks do to real posts.
"""
