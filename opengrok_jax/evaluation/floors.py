"""What a student has to beat: predictors that cost nothing to train and nothing to run.

They learn from the very rows that the student saw: the kept training examples that ask the task's
question, the post as input and what the teacher's answer says as target.

    label      majority                     tf-idf + logistic regression
    labels     majority (set of labels)     tf-idf + logistic regression, one for each label
    entities   always none                  names of the training answers
    tags       always none                  names of the training answers
    summary    first two lines
    clusters   one cluster                  tf-idf + k-means, told the number of gold clusters
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from opengrok_jax.errors import needs_extra
from opengrok_jax.evaluation.answers import Prediction, parse_entities, predicting, read_answer
from opengrok_jax.evaluation.spans import tag_names
from opengrok_jax.evaluation.tasks import Answer, Entity, Item, Task
from opengrok_jax.records import Example

MAJORITY = "majority"
TFIDF = "tf-idf + logistic regression"
ALWAYS_NONE = "always none"
NAMES = "names of the training answers"
LEAD = "first two lines"
ONE_CLUSTER = "one cluster"
KMEANS = "tf-idf + k-means"
_WORD = re.compile(r"\w\w")  # what scikit-learn's default pattern takes for a word

Rows = Sequence[tuple[str, Answer]]
Floor = tuple[str, list[Prediction], str]


def floors(
    task: Task, examples: Sequence[Example], items: Sequence[Item], seed: int
) -> Iterator[Floor]:
    """(predictor, predictions, note) of each; no predictions but a note where there is none."""
    if task.kind in ("label", "labels"):
        rows = training_rows(task, examples)
        yield MAJORITY, *majority(task, rows, items)
        regression = tfidf_regression if task.kind == "label" else tfidf_regressions
        yield TFIDF, *regression(task, rows, items)
    elif task.kind in ("entities", "tags"):
        yield ALWAYS_NONE, [predicting(item, _marked(task, item, ())) for item in items], ""
        yield NAMES, *known_names(task, examples, items)
    elif task.kind == "summary":
        found = [predicting(i, "\n".join(i.text.splitlines()[:2]) or None) for i in items]
        yield LEAD, found, ""
    else:
        yield ONE_CLUSTER, [predicting(item, "all") for item in items], ""
        yield KMEANS, *tfidf_kmeans(task, items, seed)


def training_examples(task: Task, examples: Sequence[Example]) -> list[Example]:
    """The training examples whose intent is the task and that quote a post."""
    return [e for e in examples if e.split == "train" and e.cell.intent == task.name and e.posts]


def training_rows(task: Task, examples: Sequence[Example]) -> tuple[tuple[str, Answer], ...]:
    """(post, answer) of the training examples whose answer says something by the task's rules.

    Examples of other wordings of the intent are among them if it does.
    """
    rows = []
    for example in training_examples(task, examples):
        post = Item(id="", text=example.posts[0], gold="")
        answer = read_answer(task, post, example.response)
        if answer is not None:
            rows.append((example.posts[0], answer))
    return tuple(rows)


def majority(task: Task, rows: Rows, items: Sequence[Item]) -> tuple[list[Prediction], str]:
    """The most frequent training answer for every post, and a note if none was counted.

    A tie goes to the label that comes first in the task's order; so does no training row at all.
    """
    counted = Counter(label for _, label in rows)
    if task.kind == "label":
        answer: Answer = max(task.labels, key=lambda label: counted[label])
    else:
        order = {label: at for at, label in enumerate(task.labels)}
        ranked = sorted(counted, key=lambda s: (-counted[s], [order[str(label)] for label in s]))
        answer = ranked[0] if ranked else task.labels[:1]
    note = (
        ""
        if rows
        else f"{task.name}: no training example gives a label, so '{MAJORITY}' answers {answer!r}, "
        "the first label of the task"
    )
    return [predicting(item, answer) for item in items], note


def tfidf_regression(task: Task, rows: Rows, items: Sequence[Item]) -> tuple[list[Prediction], str]:
    """TF-IDF of words, word pairs and 2-5 characters into a logistic regression (scikit-learn).

    Sublinear term counts, L2 with C=1, balanced class weights, the same for every task. `scores`
    holds log-probabilities of the labels that occur in training; the others are never answered.

    Returns:
      The predictions and "", or nothing and a note that says why it could not be trained.
    """
    found = sorted({str(label) for _, label in rows}, key=task.labels.index)
    if len(found) < 2:
        return [], _left_out(
            task,
            "needs training examples of at least two labels, "
            f"the {len(rows)} there are have {', '.join(found) or 'none'}",
        )
    if not any(_WORD.search(post) for post, _ in rows):
        return [], f"{task.name}: '{TFIDF}' is left out: no training post holds a word"
    model = _regression()
    model.fit([post for post, _ in rows], [label for _, label in rows])
    names = [str(name) for name in model.classes_]
    table = model.predict_log_proba([item.text for item in items])
    predictions = []
    for item, logs in zip(items, table, strict=True):
        by_label = dict(zip(names, map(float, logs), strict=True))
        scores = {label: by_label[label] for label in found}
        predictions.append(predicting(item, max(found, key=scores.__getitem__), scores=scores))
    return predictions, ""


def tfidf_regressions(
    task: Task, rows: Rows, items: Sequence[Item]
) -> tuple[list[Prediction], str]:
    """The same for several labels: one regression each; labels of at least 0.5, or the likeliest.

    A label that no training row has, or every one, is answered as there. Returns as above.
    """
    seen = Counter(str(label) for _, labels in rows for label in labels)
    varying = [label for label in task.labels if 0 < seen[label] < len(rows)]
    if not varying or not any(_WORD.search(post) for post, _ in rows):
        return [], _left_out(
            task, f"needs training posts with words whose labels vary, of {len(rows)} none do"
        )
    posts, texts = [post for post, _ in rows], [item.text for item in items]
    chances: dict[str, Any] = {}
    for label in varying:
        model = _regression()
        model.fit(posts, [label in labels for _, labels in rows])
        chances[label] = model.predict_proba(texts)[:, 1]
    always = {label for label in task.labels if rows and seen[label] == len(rows)}
    predictions = []
    for at, item in enumerate(items):
        given = {label for label in varying if chances[label][at] >= 0.5} | always
        given = given or {max(varying, key=lambda label: chances[label][at])}
        predictions.append(predicting(item, tuple(x for x in task.labels if x in given)))
    return predictions, ""


def known_names(
    task: Task, examples: Sequence[Example], items: Sequence[Item]
) -> tuple[list[Prediction], str]:
    """Every name that a training answer lists, wherever it stands; its commonest type."""
    types: dict[str, Counter[str]] = {}
    for example in training_examples(task, examples):
        for kind, name in parse_entities(example.response, task.types) or ():
            if kind:
                types.setdefault(name, Counter())[kind] += 1
    if not types:
        return [], f"{task.name}: '{NAMES}' is left out: no training answer lists a name"
    known = [(counts.most_common(1)[0][0], name) for name, counts in types.items()]
    return [predicting(item, _marked(task, item, known)) for item in items], ""


def _marked(task: Task, item: Item, names: Sequence[Entity]) -> Answer:
    """Names as the task's kind has them."""
    if task.kind == "tags":
        return tag_names(item.tokens, names)[0]
    words = f" {item.text} "
    there = [n for n in names if re.search(rf"(?<!\w){re.escape(n[1])}(?!\w)", words)]
    return tuple(there)


def tfidf_kmeans(task: Task, items: Sequence[Item], seed: int) -> tuple[list[Prediction], str]:
    """k-means on TF-IDF of the test posts themselves, k = the number of gold clusters."""
    clusters = len({item.gold for item in items})
    if clusters < 2 or not any(_WORD.search(item.text) for item in items):
        return [], f"{task.name}: '{KMEANS}' is left out: it needs words, and two gold clusters"
    with needs_extra("evaluate"):
        from sklearn.cluster import KMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    table = TfidfVectorizer(sublinear_tf=True).fit_transform([item.text for item in items])
    # scikit-learn's stubs know n_init as a word only.
    model = KMeans(clusters, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    found = model.fit_predict(table)
    return [predicting(item, f"{n}") for item, n in zip(items, found, strict=True)], ""


def _regression() -> Any:
    with needs_extra("evaluate"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union
    # Chosen on TweetEval's validation sets (emotion, sentiment; 300 and 3,000 training posts): the
    # characters gain 2 to 4 points, the balanced weights up to 20, and C=1 beats C=10 slightly.
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return make_pipeline(
        make_union(words, characters),
        LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000),
    )


def _left_out(task: Task, why: str) -> str:
    return f"{task.name}: '{TFIDF}' is left out: it {why}"
