"""What the shell proposes for values that click doesn't know."""

from collections.abc import Iterable

import click


def complete_key(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    """Returns the keys of the job file that begin so, for `--set`."""
    from batchrun.job.error_messages import KEYS

    return _begun(begun, (f"{table}.{key}=" for table, keys in KEYS.items() for key in keys))


def complete_fault(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
    """Returns the kinds of faults that begin so, for `--fault`."""
    from batchrun.sandbox.faults import KINDS

    return _begun(begun, (f"{kind}=" for kind in KINDS))


def _begun(text: str, values: Iterable[str]) -> list[str]:
    return [value for value in values if value.startswith(text)]
