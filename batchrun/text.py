"""Makes foreign text harmless for a terminal and a table."""

import re
import unicodedata
from collections.abc import Sequence

_USER = re.compile(r"://[^/\s@'\"]*@")
_QUERY = re.compile(r"(\w://[^\s?'\"]*)\?[^\s'\")]*")


def single_line(text: str) -> str:
    """Returns the text with blanks for line breaks and control characters, which could control a terminal.

    Characters that reorder text become blanks too.
    """
    return "".join([character if character.isprintable() else " " for character in text])


def columns_of(text: str) -> int:
    """Returns the columns that a terminal needs for the text: two for a wide character."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, columns: int) -> str:
    """Returns the text with blanks behind it, up to so many columns of a terminal."""
    return text + " " * (columns - columns_of(text))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line for each row of a table, whose cells are below each other on a terminal."""
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(padded, row, widths)).rstrip() for row in rows]


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, or the error's type without one."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def without_secrets(path: str) -> str:
    """Returns a URL without its user, password and query (often a signature); a path unchanged."""
    scheme, mark, rest = path.partition("://")
    if not mark:
        return path
    host, slash, file = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{file}"


def cause(error: Exception, url: str) -> str:
    """Returns the first line of another library's error about `url`, without its user, password and query."""
    text = first_line(error)
    query = url.partition("?")[2]
    if query:
        text = text.replace(f"?{query}", "").replace(query, "***")
    return _QUERY.sub(r"\1", _USER.sub("://", text))


class NumberAsWritten:
    """A JSON number whose text neither a float nor a Decimal reproduces, such as 1e5."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __float__(self) -> float:
        return float(self.text)


def in_another_form(name: str, names: Sequence[str]) -> str | None:
    """Returns the one of `names` that looks as `name` does but is another sequence of characters, or None.

    An accented letter is one character (Unicode's form NFC) or two (NFD, as macOS writes names of files).
    """
    wanted = unicodedata.normalize("NFC", name)
    found = next((other for other in names if unicodedata.normalize("NFC", other) == wanted), None)
    return None if found == name else found
