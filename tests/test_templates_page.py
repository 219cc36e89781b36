"""Every line of docs/templates.md is what it says."""

import re
from pathlib import Path

import minijinja
import pytest

from batchrun.client.templates import Templates

PAGE = Path(__file__).parents[1] / "docs" / "templates.md"
_LINE = re.compile(r"\| `(.+?)` \| (?:`(.*?)`)? ?\| `(.*?)` \|")
LINES = [
    tuple(None if part is None else part.replace(r"\|", "|") for part in match.groups())
    for match in map(_LINE.fullmatch, PAGE.read_text(encoding="utf-8").splitlines())
    if match
]


def test_the_page_has_lines() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(LINES) == len(rows) > 25


@pytest.mark.parametrize(("template", "cell", "result"), LINES)
def test_a_line_renders_to_what_it_says(template: str, cell: str | None, result: str) -> None:
    assert Templates([("t", template)], ["x"], frozenset("x")).render("t", {"x": cell}) == result


def test_the_filters_that_it_names_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = re.findall(r"`(\w+)`", text[text.index("Other filters") : text.index("## Nulls")])
    assert [name for name in names if not _is_filter(name)] == []


def _is_filter(name: str) -> bool:
    try:
        minijinja.Environment().render_str("{{ x|" + name + " }}", x="a")
    except minijinja.TemplateError as error:
        return "unknown filter" not in str(error)
    return True
