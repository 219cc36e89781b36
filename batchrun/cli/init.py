"""`batchrun init` and `batchrun schema`."""

from pathlib import Path

import click

from batchrun.cli.imports import heavy_imports


@click.command("init")
@click.argument("table", metavar="TABLE", type=click.Path(path_type=Path))
@click.option("--job", "job_file", type=click.Path(path_type=Path), help="Name of the job file to write.")
def init_command(table: Path, job_file: Path | None) -> None:
    """Write a commented job file for a table.

    \b
    batchrun init reviews.csv          writes reviews.toml beside the present folder's other files
    """
    import os

    from batchrun.errors import UsageError
    from batchrun.job.starter import starter_job

    with heavy_imports():
        from batchrun.tables.reader import open_table

    columns = open_table(str(table), Path.cwd()).schema.names
    path = job_file or Path(table.name.partition(".")[0] + ".toml")
    text = starter_job(columns, os.path.relpath(table, path.parent))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already. Name another with --job.") from None
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.") from None
    click.echo(f"wrote {path}. Look at it, then: batchrun plan {path}", err=True)


@click.command("schema")
def schema_command() -> None:
    """Print the JSON schema of job files, for editors.

    \b
    batchrun schema > batchrun.schema.json
    """
    import msgspec

    from batchrun.job.file import job_schema

    click.echo(msgspec.json.format(msgspec.json.encode(job_schema()), indent=2).decode())
