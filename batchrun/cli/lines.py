"""Lines for people: harmless for a terminal, and broken between words where one is too narrow for them."""

import os
import sys
import textwrap

import click

from batchrun.plain_text import on_one_line

INDENT = " " * 10
"""Where the text of a line begins that has a name before it, such as `output    labels.parquet`."""


def say(line: str, *, err: bool = False) -> None:
    """The line on stdout, or on stderr. Elsewhere than on a terminal it stays one line, for grep."""
    stream = sys.stderr if err else sys.stdout
    text = on_one_line(line)
    if stream is not None and stream.isatty():
        text = broken(text, os.get_terminal_size(stream.fileno()).columns)
    click.echo(text, err=err)


def broken(line: str, columns: int) -> str:
    """The line in as many as it takes to fit into `columns`; a word that is longer stays whole."""
    if columns <= 2 * len(INDENT) or len(line) <= columns:
        return line
    named = line[len(INDENT) - 1 : len(INDENT)] == " " and line[len(INDENT) :][:1] not in ("", " ")
    return "\n".join(
        textwrap.wrap(
            line,
            columns,
            subsequent_indent=INDENT if named else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
