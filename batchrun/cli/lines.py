"""Lines for people: safe for a terminal, and broken between words if it is too narrow for them."""

import os
import sys
import textwrap

import click

from batchrun.text import columns_of, single_line

INDENT = " " * 10
"""The column where a line's text begins, after its name, as in `output    labels.parquet`."""

FILLER = "\0"
"""Stands for the second column of a wide character while a line is broken; no line has one."""


def say(line: str, *, err: bool = False) -> int:
    """Prints the line on stdout or stderr. If that is not a terminal, it stays one line, for grep.

    Returns the number of lines printed.
    """
    stream = sys.stderr if err else sys.stdout
    text = single_line(line)
    if stream is not None and stream.isatty():
        text = broken(text, os.get_terminal_size(stream.fileno()).columns)
    click.echo(text, err=err)
    return text.count("\n") + 1


def broken(line: str, columns: int) -> str:
    """Breaks the line into lines of at most `columns`; a longer word stays whole."""
    if columns <= 2 * len(INDENT) or columns_of(line) <= columns:
        return line
    wide = line if line.isascii() else "".join(c + FILLER * (columns_of(c) - 1) for c in line)
    named = line[len(INDENT) - 1 : len(INDENT)] == " " and line[len(INDENT) :][:1] not in ("", " ")
    return "\n".join(
        textwrap.wrap(
            wide,
            columns,
            subsequent_indent=INDENT if named else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ).replace(FILLER, "")
