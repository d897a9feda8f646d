"""What a student has to beat: predictors that cost nothing to train and nothing to run.

They learn from the very rows that the student saw: the kept training examples that ask the task's
question, the post as input and the label in the teacher's answer as target.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from opengrok_jax.errors import needs_extra
from opengrok_jax.evaluation.answers import Prediction, parse_label, predicting
from opengrok_jax.evaluation.tasks import Item, Task
from opengrok_jax.records import Example

MAJORITY = "majority"
TFIDF = "tf-idf + logistic regression"
ALWAYS_NONE = "always none"
_WORD = re.compile(r"\w\w")  # what scikit-learn's default pattern takes for a word


def training_rows(task: Task, examples: Sequence[Example]) -> tuple[tuple[str, str], ...]:
    """(post, label) of the training examples whose intent is the task, where a label can be read.

    Examples of other wordings of the intent are among them if their answer gives a label by the
    rules of `parse_label`; examples without a post are not.
    """
    rows = []
    for example in examples:
        if example.split == "train" and example.cell.intent == task.name and example.posts:
            label = parse_label(example.response, task.labels) if task.labels else None
            if label is not None:
                rows.append((example.posts[0], label))
    return tuple(rows)


def majority(
    task: Task, rows: Sequence[tuple[str, str]], items: Sequence[Item]
) -> tuple[list[Prediction], str]:
    """The most frequent training label for every post, and a note if none was counted.

    A tie, and no training rows at all, go to the label that comes first in the task's order.
    """
    counted = Counter(label for _, label in rows)
    answer = max(task.labels, key=lambda label: counted[label])
    note = (
        ""
        if rows
        else f"{task.name}: no training example gives a label, so '{MAJORITY}' answers {answer!r}, "
        "the first label of the task"
    )
    return [predicting(item, answer) for item in items], note


def always_none(items: Sequence[Item]) -> list[Prediction]:
    """No entities in any post: what the majority answer is for a task that lists entities."""
    return [predicting(item, ()) for item in items]


def tfidf_regression(
    task: Task, rows: Sequence[tuple[str, str]], items: Sequence[Item]
) -> tuple[list[Prediction], str]:
    """TF-IDF of words, word pairs and 2-5 characters into a logistic regression (scikit-learn).

    Sublinear term counts, L2 with C=1, balanced class weights, the same for every task. `scores`
    holds log-probabilities of the labels that occur in training; the others are never answered.

    Returns:
      The predictions and "", or nothing and a note that says why it could not be trained.
    """
    found = sorted({label for _, label in rows}, key=task.labels.index)
    if len(found) < 2:
        return [], (
            f"{task.name}: '{TFIDF}' is left out: it needs training examples of at least two "
            f"labels, the {len(rows)} there are have {', '.join(found) or 'none'}"
        )
    if not any(_WORD.search(post) for post, _ in rows):
        return [], f"{task.name}: '{TFIDF}' is left out: no training post holds a word"
    with needs_extra("evaluate"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union
    # Chosen on TweetEval's validation sets (emotion, sentiment; 300 and 3,000 training posts): the
    # characters gain 2 to 4 points, the balanced weights up to 20, and C=1 beats C=10 slightly.
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = make_pipeline(
        make_union(words, characters),
        LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000),
    )
    model.fit([post for post, _ in rows], [label for _, label in rows])
    names = [str(name) for name in model.classes_]
    table = model.predict_log_proba([item.text for item in items])
    predictions = []
    for item, logs in zip(items, table, strict=True):
        by_label = dict(zip(names, map(float, logs), strict=True))
        scores = {label: by_label[label] for label in found}
        predictions.append(predicting(item, max(found, key=scores.__getitem__), scores=scores))
    return predictions, ""
