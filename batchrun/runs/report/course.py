"""The course of a run by its samples, at the ends of a chart's intervals."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from batchrun.amounts import NANO
from batchrun.journal.samples import Sample

LONGEST_GAP = 2.5
"""Strides between two samples; after more, the run did not send."""


@dataclass(frozen=True)
class Course:
    """Lists have an item for each interval; None where the run did not send.

    `committed` is USD over the journal's life: settled, uncertain and reserved. `limit` is requests per
    second, None also without a limit. `held` is the share of the time by what held the next request back.
    """

    committed: list[float | None]
    limit: list[float | None]
    on_wire: list[float | None]
    held: dict[str, float]


def course_of(samples: Sequence[Sample], ends: Sequence[float]) -> Course | None:
    """Returns the course up to each of `ends`, in seconds from the run's start; None without samples."""
    if not samples:
        return None
    latest = [_latest(samples, end) for end in ends]
    held = Counter(sample.held_by for sample in samples if sample.held_by is not None)
    return Course(
        [None if sample is None else sample.nano_usd / NANO for sample in latest],
        [_limit(sample) for sample in latest],
        [None if sample is None else float(sample.in_flight) for sample in latest],
        {cause: count / len(samples) for cause, count in held.most_common()},
    )


def _latest(samples: Sequence[Sample], end: float) -> Sample | None:
    """Returns the last sample up to `end`; None if it is too old to say anything about that time."""
    found = next((sample for sample in reversed(samples) if sample.second <= end), None)
    if found is None or end - found.second > LONGEST_GAP * samples[-1].stride:
        return None
    return found


def _limit(sample: Sample | None) -> float | None:
    limit = None if sample is None else sample.requests_per_minute
    return None if limit is None else limit / 60
