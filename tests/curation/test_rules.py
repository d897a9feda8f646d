import re
import shutil

from opengrok_jax.curation import rules
from opengrok_jax.curation.looks import Settings


def test_every_change_of_the_rules_changes_the_version():
    plain = rules.version(Settings())
    others = [
        rules.version(Settings(min_words=4)),
        rules.version(Settings(languages=("en",))),
        rules.version(Settings(labels={"spam": ("spam", "ham")})),
        rules.version(Settings(evaluation=frozenset((("a", "b", "c"),)))),
        rules.version(Settings(), duplicate_similarity=0.4),
    ]
    assert len({plain, *others}) == 6
    assert plain == rules.version(Settings())
    assert len(plain) == 16


def test_the_order_of_an_evaluation_set_does_not_matter():
    words = [("a", f"w{n}") for n in range(200)]
    a, b = frozenset(words), frozenset(reversed(words))
    assert rules.version(Settings(evaluation=a)) == rules.version(Settings(evaluation=b))


def test_whatever_a_check_imports_counts():
    code = {name: (rules.HERE / f"{name}.py").read_text() for name in rules.MODULES}
    imported = re.findall(r"from opengrok_jax\.curation\.(\w+) import", "".join(code.values()))
    imported += re.findall(r"from opengrok_jax\.curation import (\w+)", "".join(code.values()))
    assert set(imported) <= set(rules.MODULES)


def test_code_and_word_lists_count_and_the_review_does_not(tmp_path, monkeypatch):
    package = tmp_path / "opengrok_jax"
    shutil.copytree(rules.HERE, package / "curation")
    for name in rules.ASSETS:
        copy = package / "assets" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(rules.HERE.parent / "assets" / name, copy)
    before = rules.version(Settings())
    monkeypatch.setattr(rules, "HERE", package / "curation")
    assert rules.version(Settings()) == before
    for name in ("review.py", "export.py", "card.py"):
        (package / "curation" / name).write_text("")
    assert rules.version(Settings()) == before
    for path in (package / "assets/curation/harmful.txt", package / "curation/harm.py"):
        path.write_text(path.read_text() + "\n# more\n")
        after = rules.version(Settings())
        assert after != before
        before = after
