"""Room 7, what it learned: the student beside its floors and others, by official metrics.

    tasks/             what is asked, of which posts; one file per task, and a template for yours
    answers.py         from an answer's words to a label, entities or a topic, by stated rules
    spans.py           BIO tags, as the official scorers read them
    gold.py            labelled posts of a task, worded as it asks, to be learnt from
    batching.py        rows of unequal length as batches that waste little
    label_tree.py      all labels of a question behind one reading of its prompt
    predict.py         our student answers: by the likelihood of each label, and by generation
    prompt_masks.py    which tokens of a prompt it may attend to, where masks were made
    hf_model.py        any causal model of Hugging Face's does (extra `hf`)
    api_model.py       so does a model behind an API, through the teacher's journal, its cost shown
    systems.py         who is asked, from the config
    floors.py          what costs nothing: majority, TF-IDF + logistic regression, and their like
    rouge.py, metrics.py   the official metrics, as functions of how often each post counts
    resampling.py      intervals over posts, and over seeds and posts
    significance.py    McNemar, Holm, and the verdict in words
    leaks.py           test posts among the training posts, word for word or nearly
    tweeteval_export.py    predictions as TweetEval's own script reads them
    ask.py, scoring.py     one system's predictions, cached; all systems' scores and comparisons
    evaluate.py        run: student + kept examples -> predictions/, scores.json
    outcomes.py        all that read back: what a report is made of, and its verdicts in words
    confusion.py, calibration.py, slices.py, mistakes.py   a closer look at the answers
    acquired.py, seen.py   what was asked and kept; texts under their mask, token by token
    charts.py, report.py   the page: one self-contained file, and its twin in Markdown

The student is asked without a key mask (rule "none") unless `prompt_masks` says otherwise: at
inference there is no response yet whose unimportant tokens could be hidden, but its prompt's could.
"""
