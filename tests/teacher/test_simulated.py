from opengrok_jax.records import Message
from opengrok_jax.teacher.simulated import answer


def asked(text):
    return (Message(role="user", content=text),)


def test_the_same_question_and_seed_give_the_same_answer():
    texts = {answer(asked("Why is everybody angry?"), seed=seed).text for seed in (0, 0, 1, 2, 3)}
    assert 2 <= len(texts) <= 4
    assert answer(asked("Why?"), seed=0) == answer(asked("Why?"), seed=0)


def test_an_answer_speaks_of_what_was_asked():
    text = answer(asked("Summarise the rail strike in Aldermoor"), seed=5).text
    assert {"Summarise", "rail", "strike", "Aldermoor"} & set(text.replace(",", "").split())
    assert answer(asked("?"), seed=0).text
