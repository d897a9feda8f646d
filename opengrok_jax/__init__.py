"""OpenGrok-JAX: a large teacher's answers about social-media posts, distilled into a small Phi-3.

The pipeline, in order; each room reads and writes files of one run folder (`storage`), and hands
over the records of `records`:

    prompts/      what we ask            axes, templates, techniques, a stratified plan
    teacher/      whom we ask            chat completions, journal, recorded and labelled teachers
    curation/     what we keep           checks with reasons, personal data masked, near-duplicates
    masking/      which tokens count     TF-IDF, part of speech, dependency, chance -> key_mask
    model/        the student            Phi-3 in Flax NNX, attention under three mask rules
    training/     how it learns          packed rows, response-only loss, AdamW, early stopping
    evaluation/   what it learned        tasks, metrics, floors, the report

`pipeline` composes the rooms, `refine` goes on asking by what curation says of the answers, `cli`
is the `opengrok` command, `tools` its verbs that are no stage
(convert weights, answer a prompt, store a teacher's distributions, plan a fine-tuning), `config`
reads configs/*.py, `processes` says how several processes fine-tune together. Nothing heavy is
imported here.
"""

__version__ = "0.1.0"
