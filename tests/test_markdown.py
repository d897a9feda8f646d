import doctest
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from opengrok_jax import markdown

HOSTILE = "<script>alert(1)</script> | **b** _i_ `c` [x](http://evil) ![y](z) https://evil.x\n\n# h"


def rendered(source: str) -> str:
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    return parser.render(source)


def test_text_stays_text():
    html = rendered(markdown.text(HOSTILE))
    assert "<script" not in html
    assert not re.search("<(strong|em|code|a|img|h1|table)", html)
    assert "http\\:" in markdown.text(HOSTILE)  # GitHub makes no link of it


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_text_is_one_paragraph_at_most(text):
    tags = set(re.findall(r"<(\w+)", rendered(markdown.text(text))))
    assert tags <= {"p"}


def test_text_in_a_table_is_one_cell():
    html = rendered("| a | b |\n|---|---|\n| " + markdown.text(HOSTILE) + " | 2 |\n")
    assert html.count("<td>") == 2
    assert "<script" not in html


def test_struck_text_is_struck_and_bracketed():
    html = rendered("a " + markdown.struck("hidden *x*") + " b")
    assert "[<s>hidden *x*</s>]" in html


def test_a_template_escapes_what_it_is_given_and_not_itself(tmp_path):
    template = tmp_path / "t.md.j2"
    template.write_text("# {{ title }}\n\n\n\n* **b** {{ said }} {{ source }} {{ 3 }}\n")
    source = markdown.Source("**kept**")
    made = markdown.render(template, title="a|b", said="*x*", source=source)
    assert made == "# a\\|b\n\n* **b** \\*x\\* **kept** 3\n"
    with pytest.raises(Exception, match="said"):
        markdown.render(template, title="t", source=source)


def test_doctests():
    assert doctest.testmod(markdown).failed == 0
