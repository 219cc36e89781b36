"""Finds what a template does with each column, from its text: minijinja shows no syntax tree."""

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

_EXPRESSION = re.compile(r"\{\{-?(.*?)-?\}\}|\{%-?(.*?)-?%\}", re.DOTALL)
_NOT_CODE = re.compile(r"\{#.*?#\}|\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}", re.DOTALL)
_CODE_OR_NOT = re.compile(f"{_NOT_CODE.pattern}|{_EXPRESSION.pattern}", re.DOTALL)
_ITEM_OF_ROW = re.compile(r"""\brow\s*\[\s*(["'])(.*?)\1\s*\]|\brow\s*\.\s*(\w+)""", re.DOTALL)
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|' + r"'(?:\\.|[^'\\])*'", re.DOTALL)
_NAME = re.compile(r"(?<![\w.])(?!\d)\w+(?!\s*\()(?!\s*=(?!=))(?!\w)")
_BOUND = re.compile(r"\{%-?\s*(?:set|for)\s+([\w\s,]+?)\s*(?:=|\bin\b)")

_OPERATOR = r"(?:\*\*|//|[<>]=?|[-+*/%])"
_CONSTANT = r"(?:-?\d|true\b|false\b|True\b|False\b)"
_COMPUTED = re.compile(
    rf"§(\d+)§\s*(?:{_OPERATOR}(?!\s*')|[=!]=\s*{_CONSTANT}|\|\s*(?:abs|round)\b"
    r"|is\s+(?:not\s+)?(?:odd|even|number|integer|float|divisibleby)\b)"
    rf"|(?:{_OPERATOR}|\d\s*[=!]=)\s*§(\d+)§(?!\s*[|.\[])"
    r"|\b(?:range|format)\s*\([^()]*?§(\d+)§(?!\s*[|.\[])"
)
_TESTED = re.compile(r"\b(?:if|elif|and|or|not)\s+§(\d+)§(?!\s*(?:[|.\[~<>=!+*/%-]|is\b|in\b|not\s+in\b))")
_TEXT_FILTERS = (
    "capitalize|e|escape|indent|lower|pprint|replace|safe|string|striptags|title|trim|truncate|upper"
    "|urlencode|wordwrap"
)
_PIPED = re.compile(rf"§(\d+)§\s*(?:\|\s*(?:{_TEXT_FILTERS})\b|~)|~\s*§(\d+)§")
_ASKED_FOR_NULL = re.compile(r"§(\d+)§\s*(?:is\s+(?:not\s+)?(?:none|None)\b|[=!]=\s*(?:none|None)\b)")
_ARGUMENTS = {
    "truncate": ("length", "killwords", "end", "leeway"),
    "wordwrap": ("width", "break_long_words", "wrapstring", "break_on_hyphens"),
}
_PRINTED = re.compile(r"\{\{-?\s*(?:row\s*\.\s*)?(\w+)\s*-?\}\}")
_CALL = re.compile(r"(\|\s*)(truncate|wordwrap)\s*\(([^()]*)\)")
_ARGUMENT = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[^,"'])+)(?:,|$)""")
_COMPARED = re.compile(r"§(\d+)§\s*(?:[=!]=|in\b|not\s+in\b)|(?:[=!]=|\bin)\s*§(\d+)§")


@dataclass(frozen=True, slots=True)
class Uses:
    """How a template uses columns. `named`: all columns that it uses, and `row` where it uses that.

    `computed` columns are compared with a number, or computed with. `tested` columns are tested for truth,
    and not compared. `piped` columns go through a text filter or into `~`, without a test for null.
    """

    named: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()
    tested: frozenset[str] = frozenset()
    piped: frozenset[str] = frozenset()


def uses_of(sources: Sequence[str], columns: Sequence[str]) -> Uses:
    """Returns how templates use `columns`, as far as their text shows it."""
    text = "\n".join(code for source in sources for code in _expressions(source))
    places = {name: place for place, name in enumerate(columns)}
    is_row_used = "row" not in places and re.search(r"(?<![\w.])row\b", _STRING.sub("''", text))
    marked = _ITEM_OF_ROW.sub(lambda match: _mark(match[2] or match[3], places, match[0]), text)
    marked = _STRING.sub("''", marked)
    marked = _NAME.sub(lambda match: _mark(match[0], places, match[0]), marked)
    found = {columns[int(place)] for place in re.findall(r"§(\d+)§", marked)}
    compared = _columns(_COMPARED, marked, columns)
    return Uses(
        frozenset(found | ({"row"} if is_row_used else set())),
        _columns(_COMPUTED, marked, columns),
        _columns(_TESTED, marked, columns) - compared,
        _columns(_PIPED, marked, columns) - _columns(_ASKED_FOR_NULL, marked, columns),
    )


def _expressions(source: str) -> list[str]:
    return [match[1] or match[2] or "" for match in _EXPRESSION.finditer(_NOT_CODE.sub("", source))]


def _mark(name: str, places: dict[str, int], otherwise: str) -> str:
    return f" §{places[name]}§ " if name in places else otherwise


def _columns(pattern: re.Pattern[str], marked: str, columns: Sequence[str]) -> frozenset[str]:
    return frozenset(
        columns[int(place)] for match in pattern.finditer(marked) for place in match.groups() if place
    )


def printed_as_written(source: str, columns: Set[str], as_written: str) -> str:
    """Returns the template with `{{ column }}` printing the text of the cell, for `columns` alone.

    Elsewhere in it such a column is a number. Templates that bind such a name themselves are left alone.
    """
    if not columns or columns & bound_names(source) or _NOT_CODE.search(source):
        return source
    names = "|".join(sorted(map(re.escape, columns)))
    plain = re.compile(rf"""\{{\{{(-?)\s*(?:row\s*\.\s*)?({names})\s*(-?)\}}\}}""")
    return plain.sub(lambda match: f"{{{{{match[1]} {as_written}.{match[2]} {match[3]}}}}}", source)


def text_around_columns(source: str, columns: Set[str]) -> str | None:
    """Returns the text of a template that only prints `columns`; None if it does anything else."""
    text = _PRINTED.sub(lambda match: "" if match[1] in columns else match[0], source)
    return None if re.search(r"\{[{%#]", text) else text


def printed_columns(source: str, columns: Set[str]) -> tuple[str, tuple[str, ...]] | None:
    """Returns a template that only prints `columns` as a `%` format, and the columns in it; else None.

    The engine may still trim its text, or know one of the names as something else.
    """
    if text_around_columns(source, columns) is None:
        return None
    parts = _PRINTED.split(source)
    return "%s".join(text.replace("%", "%%") for text in parts[::2]), tuple(parts[1::2])


def with_named_arguments(source: str) -> str:
    """Returns the template with named arguments of `truncate` and `wordwrap`.

    Jinja takes them by position; minijinja by name alone.
    """
    return change_code(source, lambda code: _CALL.sub(_named, code))


def change_code(source: str, change: Callable[[str], str]) -> str:
    """Returns the template with `change` applied to each expression and statement, but not to raw text."""

    def changed(match: re.Match[str]) -> str:
        group = next((group for group in (1, 2) if match[group] is not None), 0)
        if not group:
            return match[0]
        start, end = (place - match.start() for place in match.span(group))
        return match[0][:start] + change(match[group]) + match[0][end:]

    return _CODE_OR_NOT.sub(changed, source)


def bound_names(source: str) -> set[str]:
    """Returns the names that a template itself gives values, in `set` and `for`."""
    return {name.strip() for match in _BOUND.finditer(source) for name in match[1].split(",")}


def _named(call: re.Match[str]) -> str:
    names = iter(_ARGUMENTS[call[2]])
    arguments = [argument.strip() for argument in _ARGUMENT.findall(call[3])]
    named = [
        text if re.match(r"\w+\s*=", text) else f"{next(names, '')}={text}" for text in arguments if text
    ]
    return f"{call[1]}{call[2]}({', '.join(named)})"
