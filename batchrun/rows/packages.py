"""Versions of installed packages, by the names of their folders: importlib.metadata takes 45 ms to import."""

from importlib.util import find_spec
from pathlib import Path


def version_of(package: str) -> str | None:
    """Returns the version of a package, whose module has its name; None where it isn't installed."""
    name = package.replace("-", "_")
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    found = list(Path(spec.origin).parents[1].glob(f"{name}-*.dist-info"))
    if len(found) == 1:
        return found[0].stem.removeprefix(f"{name}-")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
