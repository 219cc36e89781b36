"""How an input is read, as far as its path does not say it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ReadOptions:
    """`types` are types of CSV columns by name; `skip_lines` is the number of lines before a CSV's header.

    `sheet` is a sheet of a workbook, `query` a database query, `endpoint_url` the address of an object store.
    `hive`:
    folders named `key=value` become columns. `scratch` is the folder of temporary copies, None for the
    system's.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    skip_lines: int = 0
    sheet: str | None = None
    query: str | None = None
    hive: bool = False
    endpoint_url: str | None = None
    scratch: Path | None = None
