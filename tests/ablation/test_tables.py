from opengrok_jax.ablation import tables


def test_the_page_holds_every_row_with_its_verdict(finished):
    _, told = finished
    page = tables.markdown(told)
    for question in told["questions"]:
        assert f"## {question['ask']}" in page
        part = page.split(f"## {question['ask']}")[1].split("\n## ")[0]
        assert part.count("\n| ") == len(question["rows"]) + 2
        assert part.count("(baseline)") == 1
        for row in question["rows"]:
            assert f"{100 * row['value']:.1f} [" in part
    for cell in told["cells"]:
        assert f"| {cell['id']} |" in page
    assert "tf-idf + logistic regression" in page
    for note in told["notes"]:
        assert f"- {note}" in page


def test_a_bar_in_a_name_breaks_no_table():
    found = tables.table(["a", "b"], [["x|y", "1"]], right=1)
    assert found.splitlines() == ["| a | b |", "| --- | ---: |", "| x\\|y | 1 |"]
