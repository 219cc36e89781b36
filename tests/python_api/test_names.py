"""What `import batchrun` offers keeps its meaning, whatever was used before."""

import asyncio
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import batchrun
from tests.python_api.jobs import JOB, reviews

if TYPE_CHECKING:
    from collections.abc import Callable

EVALUATED = {**JOB, "output": {"accept": ["truncated"]}, "evaluation": {"expected": "id", "metric": "exact"}}

CHECK = """
import importlib, pkgutil, types
import batchrun
for module in pkgutil.walk_packages(batchrun.__path__, "batchrun."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print([name for name in batchrun.__all__ if isinstance(getattr(batchrun, name), types.ModuleType)])
"""


def test_no_public_name_is_that_of_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(batchrun.__path__)}
    assert modules & set(batchrun.__all__) == set()


def test_no_public_name_becomes_a_module_when_all_modules_are_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_function_works_after_every_other(tmp_path: Path) -> None:
    """Forwards, then backwards: so each of two functions has once been called before the other."""
    given: dict[str, Any] = {"input": reviews(), "journal": tmp_path / "a.run", "sandbox": True}
    calls: dict[str, Callable[[], object]] = {
        "run": lambda: batchrun.run(EVALUATED, **given),
        "arun": lambda: asyncio.run(batchrun.arun(EVALUATED, **given)),
        "compare": lambda: batchrun.compare(
            EVALUATED, EVALUATED, input=reviews(), journals=(given["journal"], given["journal"]), sandbox=True
        ),
        "evaluate": lambda: batchrun.evaluate(EVALUATED, **given),
        "export": lambda: batchrun.export(EVALUATED, **given),
        "plan": lambda: batchrun.plan(EVALUATED, **given),
        "status": lambda: batchrun.status(EVALUATED, journal=given["journal"], sandbox=True),
        "load_job": lambda: batchrun.load_job(_job_file(tmp_path)),
    }
    functions = {name for name in batchrun.__all__ if type(getattr(batchrun, name)).__name__ == "function"}
    assert set(calls) == functions
    for name in [*calls, *reversed(calls)]:
        assert calls[name]() is not None, name


def _job_file(folder: Path) -> Path:
    path = folder / "job.toml"
    path.write_text(
        'input.path = "a.csv"\nprompt.template = "{{ text }}"\nrequest = {model = "m", max_tokens = 9}\n'
        'output.path = "b.csv"\n'
    )
    return path
