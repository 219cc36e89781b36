"""A million responses, cut, damaged, repeated and framed at random, given to the client's connections."""

import asyncio
import secrets
from concurrent.futures import ProcessPoolExecutor

from proofs.results import Result, Say
from tests.endpoint.fuzz import check_case

_CASES = 1_000_000
_CASES_AT_A_TIME = 10_000
_PROCESSES = 2


def prove_wire(say: Say) -> list[Result]:
    """No case raises anything, and none makes an answer of less than a whole one, or of another request's."""
    first = secrets.randbelow(2**40)
    say(f"{_CASES:,} cases from {first} on, for some minutes")
    starts = range(first, first + _CASES, _CASES_AT_A_TIME)
    with ProcessPoolExecutor(_PROCESSES) as processes:
        broken = [line for lines in processes.map(_broken_cases, starts) for line in lines]
    for line in broken[:10]:
        say(line)
    kept = not broken
    value = f"{len(broken)} of {_CASES:,}"
    return [Result("wire", "cases that raise, or accept what they must not", value, "0", kept)]


def _broken_cases(start: int) -> list[str]:
    return asyncio.run(_broken_cases_in_loop(start))


async def _broken_cases_in_loop(start: int) -> list[str]:
    broken = []
    for number in range(start, start + _CASES_AT_A_TIME):
        try:
            check_case(number)
        except Exception as error:  # whatever it is, it breaks the promise
            broken.append(f"case {number}: {error!r}")
    return broken
