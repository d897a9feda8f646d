"""Room 3, what we keep: every answer is kept or rejected with a reason that can be read.

    pii          personal data -> typed placeholders, before anything else looks at the text
    shingles     words and word triples, the unit of length, echo and likeness
    words        harmful words and phrases in tiers, seen through common disguises
    checks       (prompt, response, settings) -> Verdict; the reasons
    duplicates   near-duplicate answers within an intent
    curate       `run`: responses.jsonl -> kept.jsonl, rejected.jsonl

Needs the extra `acquire` (datasketch).
"""
