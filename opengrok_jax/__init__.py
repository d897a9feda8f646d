"""OpenGrok-JAX: a large teacher's answers about social-media posts, distilled into a small Phi-3.

The pipeline, in order; each room reads and writes files of one run folder (`storage`), and hands
over the records of `records`:

    prompts/      what we ask            axes, templates, techniques, a stratified plan
    teacher/      whom we ask            client, journal, money, recorded and simulated teachers
    curation/     what we keep           checks with reasons, human review, export with a card
    masking/      which tokens count     TF-IDF, part of speech, dependency, chance -> key_mask
    model/        the student            Phi-3 in Flax NNX, attention under three mask rules
    training/     how it learns          packed rows, response-only loss, AdamW, early stopping
    evaluation/   what it learned        tasks, metrics, other systems, statistics, the report

`stages` lists the rooms and `pipeline` runs them, `refine` goes on asking by what curation says of
the answers, `report` shows it all under its masks, `ablation` trains a grid of students, `cli` is
the `opengrok` command, `tools` its verbs that are no stage, a file each (review, export, inspect,
convert, generate, plan, losses, ...). `config` reads configs/*.py, `chance` draws every mask,
`cache` keeps a model's answers, `pages` and `markdown` hold what is shown, `processes` says how
several processes fine-tune together. Nothing heavy is imported here.
"""

__version__ = "0.1.0"
