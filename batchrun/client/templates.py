"""Templates over a row's columns: compiled once, rendered for each row."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from typing import Any

import minijinja
import msgspec

from batchrun.client.template_nulls import (
    MISSING,
    MISSING_VALUE,
    UndefinedValueError,
    as_texts,
    text_filters,
)
from batchrun.client.template_uses import (
    Uses,
    bound_names,
    printed_as_written,
    printed_columns,
    uses_of,
    with_named_arguments,
)
from batchrun.errors import JobError
from batchrun.text import NumberAsWritten, in_another_form

_AS_WRITTEN = "batchrun_as_written"
_OF_NESTED = " for lists and objects"
_WRONG_CALLS = {"TooManyArguments": "too many arguments", "MissingArgument": "too few arguments"}
_AS_THEY_PRINT = frozenset((str, int))
"""Types whose values the engine prints as Python does."""
_FALSE = frozenset(("false", "False", "FALSE", "0"))


def _as_json(value: Any) -> Any:
    return msgspec.Raw(value.text.encode()) if isinstance(value, NumberAsWritten) else str(value)


_text_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=_as_json)


_MOST_STEPS = 10_000_000
"""The bound of one rendering, in the engine's instructions: about a second, during which signals wait."""
_TOO_LONG = f"it takes more than {_MOST_STEPS:,} steps. Shorten its loops"
_LARGEST_NUMBER = 10_000
"""A width: in the text for `format` or, where that has a `*`, among its arguments."""
_format_only = minijinja.Environment()


class Rendering(Enum):
    """How templates render. All but the last are ways of earlier versions: see `rows.former`."""

    TYPED = 1
    """Cells of a CSV came as values of their column's type, and a null through a filter as None."""
    NESTED_NONE = 2
    """A null inside a list or an object, or one that the template asks for, went through a filter as None."""
    CURRENT = 3


class RenderError(Exception):
    """A row's values don't fit a template. `str(error)` names the template, the line and the reason."""


class _TooWideError(Exception):
    pass


class _FalseText:
    """A text cell such as `false` in a column whose truth a template tests: it prints unchanged."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return False


class _Row(dict[str, Any]):
    """A row's values by column; printed as a whole, it is JSON of the columns' values."""

    def __init__(self, values: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.columns = dict(columns)


class Templates:
    """The templates of a job. `names` are the columns that they use.

    `take_nulls_as_text`: where earlier versions made `None` of a null, they make nothing of it.

    `texts` are the columns whose cells are the file's unchanged text. With such a column a template may still
    compute (`stars > 3`): a cell that is written as a number is a number there.

    Raises JobError for a template that can't be compiled, and for a name that is not a column.
    """

    def __init__(
        self,
        sources: Iterable[tuple[str, str]],
        columns: Sequence[str],
        texts: frozenset[str] = frozenset(),
        *,
        rendering: Rendering = Rendering.CURRENT,
    ) -> None:
        # With `debug`, an error names the expression that is undefined.
        self._environment = minijinja.Environment(
            undefined_behavior="strict", debug=True, keep_trailing_newline=True, finalizer=printable
        )
        self._environment.fuel = _MOST_STEPS
        self._environment.add_filter("format", _format_with_none)
        self._rendering = rendering
        self.names: set[str] = set()
        self._codes: dict[str, str] = {}
        self._undefined_codes: dict[str, str] = {}
        self._formats: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.take_nulls_as_text = False
        sources = list(sources)
        self._uses = (
            Uses() if rendering is Rendering.TYPED else uses_of([source for _, source in sources], columns)
        )
        self._numbers = self._uses.computed & texts
        self._tested = (self._uses.tested & texts) - self._numbers
        self._always_text = (self._uses.piped & texts) - self._numbers - self._tested
        if rendering is Rendering.CURRENT:
            self._environment.add_global(MISSING, MISSING_VALUE)
            self._environment.add_filter("format", _format)
            for name, text_filter in text_filters(printable).items():
                self._environment.add_filter(name, text_filter)
        for name, source in sources:
            self._compile(name, source, columns)

    def _compile(self, name: str, source: str, columns: Sequence[str]) -> None:
        try:
            code = printed_as_written(with_named_arguments(source), self._numbers, _AS_WRITTEN)
            if self._rendering is Rendering.CURRENT:
                self._undefined_codes[name] = plain = code
                bound = bound_names(source)
                self._codes[name + _OF_NESTED] = as_texts(plain, self._always_text - bound)
                self._environment.add_template(name + _OF_NESTED, self._codes[name + _OF_NESTED])
                self.take_nulls_as_text |= self._codes[name + _OF_NESTED] != plain or "format" in plain
                # The nulls of these columns are empty texts already, and a float would lose its ".0".
                code = as_texts(plain, self._uses.piped - bound)
            self._environment.add_template(name, code)
            self._codes[name] = code
            used = self._environment.undeclared_variables_in_template(name) - {_AS_WRITTEN, MISSING}
        except minijinja.TemplateError as error:
            raise JobError(f"{name}, line {error.line}: {error.detail or error.kind}.") from None
        used -= set(self._environment.globals) - set(columns)
        # The list of undeclared variables lacks names that occur only inside a slice.
        used |= uses_of([source], columns).named
        if "row" in used and "row" not in columns:
            self.names.update(columns)
            used.discard("row")
        for column in sorted(used - set(columns)):
            raise JobError(no_such_column(name, column, columns))
        self.names.update(used)
        self._format_if_plain(name, source, columns)

    def _format_if_plain(self, name: str, source: str, columns: Sequence[str]) -> None:
        """Keeps the format of a template that only prints columns: that renders in a fifth of the time."""
        found = printed_columns(source, set(columns))
        if found is None or self._numbers or self._rendering is not Rendering.CURRENT:
            return
        text, printed = found
        example = {column: f"<{column}>" for column in printed}
        if self.render(name, example) == text % tuple(map(example.__getitem__, printed)):
            self._formats[name] = found

    def render(self, name: str, row: Mapping[str, Any]) -> str:
        """Returns the row's text by the template `name`. Raises RenderError."""
        if (plain := self._formats.get(name)) is not None:
            cells = tuple([row[column] for column in plain[1]])
            if _AS_THEY_PRINT.issuperset(map(type, cells)):
                return plain[0] % cells
        values = {column: self._value(column, value) for column, value in row.items()}
        given = {"row": _Row(values, row), **values}
        if self._numbers:
            given[_AS_WRITTEN] = row
        is_nested = any(isinstance(values.get(column), list | dict) for column in self._uses.piped)
        code = name + _OF_NESTED if is_nested and self._rendering is Rendering.CURRENT else name
        try:
            return self._environment.render_template(code, **given)
        except minijinja.TemplateError as error:
            raise RenderError(_told(name, self._codes[code], error)) from None
        except UndefinedValueError:
            raise RenderError(self._undefined(name, given)) from None
        except _TooWideError:
            raise RenderError(f"{name}: format has a width of more than {_LARGEST_NUMBER:,}") from None

    def _undefined(self, name: str, given: Mapping[str, Any]) -> str:
        """Returns the error of a value that is not there, whose name the engine alone knows."""
        try:
            self._environment.render_str(self._undefined_codes[name], **given)
        except minijinja.TemplateError as error:
            return _told(name, self._undefined_codes[name], error)
        return f"{name}: a value is undefined"

    def _value(self, column: str, value: Any) -> Any:
        if self._rendering is Rendering.TYPED:
            return _former_value(value)
        if value is None:
            return "" if column in self._uses.piped else None
        if type(value) is str:
            if column in self._numbers:
                return number_or_text(value)
            return _FalseText(value) if column in self._tested and value in _FALSE else value
        if isinstance(value, bytes):
            return _decoded(column, value) if column in self.names else value
        if isinstance(value, NumberAsWritten) and column not in self._uses.computed:
            return value.text
        if isinstance(value, Decimal) and column not in self._uses.computed:
            return f"{value:f}" if value.is_finite() else str(value)
        return _former_value(value)


def _told(name: str, code: str, error: minijinja.TemplateError) -> str:
    """Returns where and why the template `name` fails; also a wrong call, which the engine doesn't name."""
    reason = _TOO_LONG if "fuel" in str(error) else error.detail or error.kind
    if not error.detail and error.kind in _WRONG_CALLS and error.range is not None:
        start, end = error.range
        call = code.encode()[start:end].decode(errors="replace").lstrip(".")
        reason = f"{call} has {_WRONG_CALLS[error.kind]}"
    return f"{name}, line {error.line}: {reason}"


def _format(text: str, *values: Any, **named: Any) -> Any:
    nothing = {name: "" for name, value in named.items() if value is None}
    return _format_with_none(text, *("" if value is None else value for value in values), **named | nothing)


def _format_with_none(text: str, *values: Any, **named: Any) -> Any:
    """Applies minijinja's own filter `format`, unless that would make gigabytes of text."""
    widths = [int(digits) for digits in re.findall(r"%[^%a-zA-Z(]*?(\d+)", text)]
    widths += [value for value in values if isinstance(value, int)] if "*" in text else []
    if max(widths, default=0) > _LARGEST_NUMBER:
        raise _TooWideError
    return _format_only.eval_expr("text|format(*values, **named)", text=str(text), values=values, named=named)


def _decoded(column: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RenderError(f"column {column!r} holds bytes that are not UTF-8 text") from None


def number_or_text(cell: str) -> Any:
    """Returns the value of a cell that is written as a number or as true or false, else the cell."""
    if cell in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return cell.lower() == "true"
    bare = cell.lstrip("-")
    if not bare[:1].isdigit() or (len(bare) > 1 and bare[0] == "0" and bare[1].isdigit()):
        return cell
    try:
        return int(cell) if bare.isdecimal() and len(bare) < 19 else float(cell)
    except ValueError:
        return cell


def _former_value(value: Any) -> Any:
    """Decimals are numbers to a template, as floats; where a float would lose digits, text."""
    if isinstance(value, Decimal) and value.is_finite() and Decimal(repr(float(value))) != value:
        return str(value)
    return value


def printable(value: Any) -> Any:
    """Formats a value: null cells print as nothing, lists and structs as JSON."""
    if value is None:
        return ""
    if isinstance(value, _Row):
        value = value.columns
    return _text_encoder.encode(value).decode() if isinstance(value, list | dict) else value


def no_such_column(where: str, name: str, columns: Sequence[str], of: str = "the input") -> str:
    same = in_another_form(name, columns)
    if same is not None:
        return (
            f"{where} names the column {name!r}. There is {same!r}, which looks the same, but its "
            f"accents are other characters (Unicode's forms NFC and NFD).\nCopy the name from {of}: {same!a}."
        )
    near = get_close_matches(name, columns, 1)
    hint = f" Did you mean {_in_template(near[0])}?" if near else ""
    has = ", ".join(columns)
    odd = next((column for column in columns if not column.isidentifier()), None)
    if odd is not None and not near and where.startswith("prompt."):
        hint = f" A column whose name is not an identifier is {_in_template(odd)} in a template."
    return f"{where} names the column {name!r}, which {of} doesn't have.{hint}\nIt has: {has}."


def _in_template(column: str) -> str:
    return repr(column) if column.isidentifier() else f"row[{json.dumps(column, ensure_ascii=False)}]"
