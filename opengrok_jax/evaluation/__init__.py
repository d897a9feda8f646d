"""Room 7, what it learned: the student beside its floors, on tasks with official metrics.

    tasks/        what is asked, with which labels, of which posts; one file per bundled task
    answers.py    from an answer's words to a label or entities, by stated rules
    predict.py    the student answers: by the likelihood of each label, and by generation
    floors.py     what costs nothing: the majority class, TF-IDF + logistic regression
    metrics.py    accuracy, macro F1, macro recall, surface-form F1, bootstrap intervals
    evaluate.py   run: student + kept examples -> predictions/, scores.json
    report.py     scores -> one self-contained page

The student is asked without a key mask (rule "none"): at inference there is no response yet whose
unimportant tokens could be hidden.
"""
