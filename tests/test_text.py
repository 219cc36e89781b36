"""Lines with characters that take two columns of a terminal."""

from batchrun.cli.lines import broken
from batchrun.text import aligned, columns_of

WIDE = "日本語の候補.toml"


def test_cells_are_below_each_other_where_names_are_wide() -> None:
    lines = aligned([("job", "rows"), ("a.toml", "7"), (WIDE, "12")])
    assert lines == ["job                rows", "a.toml             7", f"{WIDE}  12"]


def test_a_line_is_broken_by_the_columns_that_its_characters_take() -> None:
    lines = broken(" ".join([WIDE] * 4), 36).split("\n")
    assert lines == [f"{WIDE} {WIDE}"] * 2
    assert [columns_of(line) for line in lines] == [35, 35]
    assert broken(f"{WIDE} {WIDE}", 35) == f"{WIDE} {WIDE}"
