import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.curation.review.csv_table import cell, read, table, text_of
from opengrok_jax.errors import DataError


@given(st.text(alphabet=st.characters() | st.sampled_from("=+-@'\t\r\n\0\ud800＝j"), max_size=30))
def test_a_cell_is_no_formula_and_comes_back(text):
    written = cell(text)
    assert text_of(written) == text
    assert not written or written[0] == "'" or written[0].isalpha()
    out = io.StringIO(newline="")
    csv.writer(out).writerow([written, "x"])
    encoded = out.getvalue().encode("utf-8")
    (back,) = csv.reader(io.StringIO(encoded.decode("utf-8"), newline=""))
    assert back == [written, "x"]


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "＝", "'=", "json:=", "1e5"]
)
def test_what_a_spreadsheet_would_run_is_quoted(start):
    assert cell(start + "cmd|'/c calc'!A0")[0] == "'" or cell(start).startswith("json:")
    assert text_of(cell(start)) == start


def test_by_hand():
    assert [cell(t) for t in ("=1+1", "'tis", "plain", "", "a\0b")] == [
        "'=1+1",
        "''tis",
        "plain",
        "",
        'json:"a\\u0000b"',
    ]
    with pytest.raises(DataError, match="begins with json:"):
        text_of("json:7")


def test_a_table_and_its_lines(tmp_path):
    columns: list[str] = ["prompt_id", "body_sha", "reviewer", "decision"]
    rows = [dict.fromkeys(columns, text) for text in ("a\nb", "=c")]
    (tmp_path / "a.csv").write_bytes(table(rows, columns) + b"\r\nx,y\r\n")
    found = list(read(tmp_path / "a.csv"))
    assert found == [
        ("line 2", rows[0]),
        ("line 7", rows[1]),
        ("line 9", {"": "2 cells, 4 expected"}),
    ]
