"""What we ask: axes, templates that turn a cell of them into words, and a stratified plan.

axes.py           topics, events, platforms, styles, hardness, and the posts that are quoted
templates.py      the report's three kinds of prompt and ours
techniques.py     demands that make a prompt harder, or give its answer a voice or a form
genome.py         what a prompt is made of; mutate.py varies it, lint.py refuses bad wording
plan.py           run: a config section -> prompts.jsonl, the same ids for the same seed
from_posts.py     the other source: labelled posts of the user's own, one prompt each
"""
