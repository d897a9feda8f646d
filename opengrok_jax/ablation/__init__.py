"""`opengrok ablate`: which part of the recipe does the work? One base config, a grid of changes.

    grid.py      the questions, the cells that answer them; what a cell changes in the base config
    part.py      some of its sets, questions and cells alone
    plan.py      every training that is needed, once, whatever number of questions ask for it
    prepare.py   data, masks, test questions and floors on disk; needs spaCy and scikit-learn
    cells.py     one training: a student, its answers; needs neither
    work.py      all of them: in processes, resumable, with the time left
    results.py   intervals, paired tests, corrections, verdicts, cost -> ablation.json
    tables.py    the same as Markdown, a table for each question
    figures.py   the same as SVG, a picture for each question
    ablate.py    `run`: all of it in order

Composes the rooms, as `pipeline` does. The folder:

    WORKDIR/
      plan.json                     all trainings, resolved; written when all is prepared
      data/HASH/                    a run folder with the acquisition of one kind of data
      masks/HASH/                   masked.parquet as `opengrok mask` writes it, tokenizer/;
                                    asked.parquet: the masked test prompts, where a cell needs them
      tasks/SET.json                test questions and the floors' answers
      cells/CELL/SET-seed-N.json    what one training came to: see `cells`
      compiled/                     JAX's persistent compilation cache
      ablation.json                 everything below
      ablation.md, figures/QUESTION.svg

ablation.json (numbers of metrics are in [0,1], seconds are of wall time):

    config, grid        as they were given
    made                {"date" (UTC), "hardware", "software": {name: version}, "jobs"}
    engine, predictor, seeds, bootstrap
    tasks               [{"set", "task", "metric", "rows", "labels"}]
    cells               [{"id",
                          "names": {question: its name there},
                          "settings": {"data", "rule", "factors", "keep_rate", "scope", "draw",
                                       "inference_mask", "loss_weight", "config"}: None where it
                                       does not matter to this cell,
                          "kept": share of the maskable tokens that stay visible, by set; {}
                                  where no mask is read,
                          "scores": [{"set", "task", "metric", "value" (mean over seeds), "low",
                                      "high", "seeds": {seed: value}, "majority_share"}],
                          "trainings": how many,
                          "parameters", "tokens" (of all updates of all trainings),
                          "seconds": {"train", "compile", "evaluate", "total"},
                          "money": {"amount", "currency"} or None without a price}]
                        `majority_share`: share of the answers that are the commonest one; 1.0 is a
                        student that says the same of every post
    floors              [{"set", "task", "metric", "predictor", "value", "low", "high"}]
    questions           [{"name", "ask", "baseline": name of the cell, "cells": [name, ...],
                          "rows": [{"cell": its name here, "id", "set", "task", "metric",
                                    "value", "low", "high", "difference", "difference_low",
                                    "difference_high", "p", "p_corrected",
                                    "outcome": "baseline" | "above" | "below" | "noise",
                                    "verdict": the outcome in words}],
                          "tests": how many were corrected for together,
                          "answer": the question's outcome in a sentence or two,
                          "figure": path below WORKDIR}]
                        `task` "all" is the plain mean over all tasks of all sets; `difference` is
                        against the baseline, None in its own rows
    cost                {"seconds": {"prepare", "train", "compile", "evaluate", "total"},
                         "trainings", "tokens", "money",
                         "acquisition": [{"data", "set", "answers", "teacher"}]}
    notes               what a reader has to know beside the numbers
"""
