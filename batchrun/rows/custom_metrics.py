"""Custom metrics: a Python function (answer, expected) that returns a number from 0 to 1."""

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from batchrun.errors import JobError

_WHERE = "[evaluation] metric"


@dataclass(frozen=True, slots=True)
class ScoringFunction:
    """`binary`: it is annotated to return a bool."""

    name: str
    call: Callable[[str, Any], object]
    binary: bool


def load_function(name: str, folder: Path) -> ScoringFunction:
    """Loads the function `module:function`, its module from the folder or Python's import path.

    Raises JobError if it doesn't exist, or doesn't take an answer and an expected value.
    """
    module_name, _, function_name = name.partition(":")
    function = getattr(_imported(module_name, folder), function_name, None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise JobError(f"{_WHERE}: {module_name} has no function {function_name}")
    try:
        inspect.signature(function).bind("answer", "expected")
    except TypeError:
        raise JobError(f"{_WHERE}: {name} must take two arguments, the answer and what is expected") from None
    except ValueError:
        pass  # some builtins don't tell
    returns = getattr(function, "__annotations__", {}).get("return")
    return ScoringFunction(name, function, returns in (bool, "bool"))


def score_by(function: ScoringFunction, answer: str, expected: object) -> float | str:
    """Returns the score, or a text why there is none, which shows neither the answer nor the cell."""
    try:
        score: Any = function.call(answer, expected)
        number = float("nan") if isinstance(score, str | bytes) else float(score)
    except Exception as error:
        return f"{function.name} raised {type(error).__name__}{_line_of(error)}"
    wanted = "true or false" if function.binary else "a number from 0 to 1"
    if not 0 <= number <= 1 or (function.binary and number not in (0, 1)):
        shown = number if isinstance(score, int | float) else type(score).__name__
        return f"{function.name} returned {shown}, not {wanted}"
    return number


def _imported(name: str, folder: Path) -> ModuleType:
    path = str(folder)
    sys.path.insert(0, path)
    try:
        return importlib.import_module(name)
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise JobError(
            f"{_WHERE}: can't import {name} from {folder}: {type(error).__name__}: {text}"
        ) from None
    finally:
        # Last in the search path from now on: later imports are found, and shadow nothing.
        sys.path.remove(path)
        if path not in sys.path:
            sys.path.append(path)


def _line_of(error: Exception) -> str:
    """Returns the position in the function's own file."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename == __file__:
        return ""
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
