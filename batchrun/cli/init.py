"""`batchrun init` and `batchrun schema`."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from batchrun.cli.imports import heavy_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrun.tables.reader import Table

_SAMPLED_ROWS = 1_000


@click.command("init")
@click.argument("table", metavar="TABLE", type=click.Path(path_type=Path))
@click.option("--job", "job_file", type=click.Path(path_type=Path), help="Name of the job file to write.")
@click.option(
    "--skip-lines", type=click.IntRange(0), default=0, help="Lines before the header, of titles for example."
)
@click.option("--sheet", help="The sheet of a workbook; else its first one.")
def init_command(table: Path, job_file: Path | None, skip_lines: int, sheet: str | None) -> None:
    """Write a commented job file for a table.

    \b
    batchrun init reviews.csv          writes reviews.toml in the current folder
    """
    import os

    from batchrun.errors import UsageError, cause_of, unwritable
    from batchrun.job.scaffold import starter_job

    with heavy_imports():
        from batchrun.tables.options import ReadOptions
        from batchrun.tables.reader import open_table

    opened = open_table(str(table), Path.cwd(), ReadOptions(skip_lines=skip_lines, sheet=sheet))
    path = job_file or Path(table.name.partition(".")[0] + ".toml")
    text = starter_job(
        opened.schema.names,
        os.path.relpath(table, path.parent),
        samples=_first_texts(opened),
        prefix=_needed_prefix(opened.schema.names),
        skip_lines=skip_lines,
        sheet=sheet,
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} already exists. Name another with --job.") from None
    except OSError as error:
        raise unwritable(f"{path} can't be written: {cause_of(error)}.", error) from None
    click.echo(f"wrote {path}. Look at it, then: batchrun plan {quote(str(path))}", err=True)


def _first_texts(table: "Table") -> dict[str, list[str]]:
    import pyarrow.types as kinds

    names = [
        field.name
        for field in table.schema
        if field.name in table.cells.texts or kinds.is_string(field.type) or kinds.is_large_string(field.type)
    ]
    batch = next(table.batches([*names, *table.sources(names)], _SAMPLED_ROWS), None)
    if batch is None:
        return {}
    columns = {name: table.template_values(name, batch) for name in names}
    return {name: [value for value in values if isinstance(value, str)] for name, values in columns.items()}


def _needed_prefix(names: "Sequence[str]") -> str:
    """Also for the columns that labels and an evaluation add, since the job file proposes them."""
    from batchrun.job.labels import Labels
    from batchrun.labels.parser import make_parser
    from batchrun.rows.columns import AddedColumns
    from batchrun.rows.labelling import Labelling

    voted = Labelling(make_parser(Labels(choices=("yes", "no"))), votes=2)
    added = AddedColumns(voted, scored=True).schema.names
    return "" if set(added).isdisjoint(names) else "batchrun_"


@click.command("schema")
def schema_command() -> None:
    """Print the JSON schema of job files, for editors.

    \b
    batchrun schema > batchrun.schema.json
    """
    import msgspec

    from batchrun.job.file import job_schema

    click.echo(msgspec.json.format(msgspec.json.encode(job_schema()), indent=2).decode())
