"""What a race has shown: each candidate's score and cost, their differences, and which one is best."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

from batchrun.amounts import NANO
from batchrun.evaluation.early_stopping import StoppingRule
from batchrun.evaluation.elimination import Difference, Elimination
from batchrun.evaluation.frame import evaluation_of
from batchrun.evaluation.report import score_name
from batchrun.evaluation.sample import Sample, SampleTally
from batchrun.rows.dataset import Dataset


@dataclass(frozen=True)
class Entry:
    """A candidate by the name of its job, and the rows that it was sent so far.

    `nano_usd` is what its journal has spent as a cap counts it, with what other rows have cost.
    """

    name: str
    dataset: Dataset
    tally: SampleTally
    sample: Sample
    nano_usd: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate when the journals were last read. `note` compares it with the others, in words."""

    name: str
    rows: int
    score: float | None
    nano_usd: int
    note: str
    given_up: bool


def standings(entries: Sequence[Entry], elimination: Elimination) -> list[Standing]:
    """Returns how the candidates stand while the race goes on."""
    worse, differences = elimination.worse(), elimination.differences()
    scores = [mean_score(entry)[0] for entry in entries]
    left = [place for place in range(len(entries)) if place not in worse and scores[place] is not None]
    first = max(left, key=lambda place: scores[place] or 0.0, default=None)

    def note(place: int) -> str:
        shown_by = worse.get(place)
        if shown_by is not None and shown_by.better is not None:
            return f"given up: worse than {entries[shown_by.better].name}"
        if first is None or scores[place] is None:
            return ""
        return "the best so far" if place == first else _against(place, first, differences, entries)

    return [
        Standing(entry.name, entry.tally.sent(), scores[place], entry.nano_usd, note(place), place in worse)
        for place, entry in enumerate(entries)
    ]


def _against(place: int, first: int, differences: Sequence[Difference], entries: Sequence[Entry]) -> str:
    """Returns between which bounds a candidate's score is, seen from the best one's, with 95 % certainty."""
    found = next(each for each in differences if {each.a, each.b} == {first, place})
    low, high = (found.low, found.high) if found.a == place else (-found.high, -found.low)
    return f"{max(-low, 0.0):.3f} lower to {max(high, 0.0):.3f} higher than {entries[first].name}"


def mean_score(entry: Entry) -> tuple[float | None, int]:
    """Returns the mean score of a candidate's rows so far, and of how many rows it is."""
    scores = entry.sample.scores[~np.isnan(entry.sample.scores)]
    return (float(scores.mean()) if scores.size else None), int(scores.size)


def race_report(entries: Sequence[Entry], elimination: Elimination) -> dict[str, Any]:
    """Returns the race as JSON-able values. Amounts are USD, differences the first score less the second."""
    worse = elimination.worse()
    candidates = [
        _candidate(entry, worse.get(place), [each.name for each in entries])
        for place, entry in enumerate(entries)
    ]
    left = [place for place in range(len(entries)) if place not in worse]
    first = entries[0]
    score, population = score_name(first.tally.metric), first.tally.frame.population
    differences = elimination.differences()
    return {
        "metric": first.tally.metric.name,
        "score": score,
        "of": population,
        "not_scorable": first.tally.frame.order.size - population,
        "candidates": candidates,
        "differences": [_named(each, entries) for each in differences],
        "best": entries[left[0]].name if len(left) == 1 else None,
        "verdict": _verdict(candidates, left, differences, score, population),
    }


def _candidate(entry: Entry, shown_by: Difference | None, names: Sequence[str]) -> dict[str, Any]:
    sample, tally = entry.sample, entry.tally
    rule = StoppingRule(tally.frame, evaluation_of(entry.dataset), tally.metric.binary, ())
    for score in sample.scores.tolist():
        rule.add(None if np.isnan(score) else score)
    estimate = rule.sequence.estimate()
    cost, rows = float(sample.costs.sum()) / NANO, sample.scores.size
    right = float(np.nansum(sample.scores))
    better = None if shown_by is None or shown_by.better is None else names[shown_by.better]
    return {
        "job": entry.name,
        "rows": rows,
        "estimate": None if estimate is None else estimate.value,
        "interval": None if estimate is None else [estimate.low, estimate.high],
        "missing": int(np.isnan(sample.scores).sum()),
        "usd": entry.nano_usd / NANO,
        "usd_per_row": cost / rows if rows else None,
        "usd_per_correct": cost / right if right else None,
        "given_up": None if shown_by is None else {"after": shown_by.after, "worse_than": better},
    }


def _named(difference: Difference, entries: Sequence[Entry]) -> dict[str, Any]:
    names = {key: entries[place].name for key, place in (("a", difference.a), ("b", difference.b))}
    better = None if difference.better is None else entries[difference.better].name
    values = asdict(difference) | names | {"better": better}
    return values | {"interval": [values.pop("low"), values.pop("high")]}


def _verdict(
    candidates: Sequence[dict[str, Any]],
    left: Sequence[int],
    differences: Sequence[Difference],
    score: str,
    population: int,
) -> str:
    """Returns a sentence which candidate is best, or that it is open and what a further dollar buys."""
    if len(left) == 1:
        name = candidates[left[0]]["job"]
        others = "the other one is" if len(candidates) == 2 else "each of the others is"
        return f"{name} is the best: with 95 % certainty {others} worse."
    if len(left) < 1 or any(candidates[place]["estimate"] is None for place in left):
        return "It is open: too few rows have a score yet."
    first, second = sorted(left, key=lambda place: -candidates[place]["estimate"])[:2]
    found = next(each for each in differences if {each.a, each.b} == {first, second})
    low, high = (found.low, found.high) if found.a == first else (-found.high, -found.low)
    names = [candidates[place]["job"] for place in left]
    between = f"{', '.join(names[:-1])} and {names[-1]}"
    text = (
        f"It is open between {between}: with 95 % certainty the {score} of {candidates[first]['job']} is "
        f"between {max(-low, 0.0):.3f} lower and {max(high, 0.0):.3f} higher than that of "
        f"{candidates[second]['job']}."
    )
    return f"{text} {_further(candidates, left, found, population)}"


def _further(
    candidates: Sequence[dict[str, Any]], left: Sequence[int], found: Difference, population: int
) -> str:
    """Returns what a further dollar buys. The interval narrows as the standard error does."""
    if found.rows >= population:
        return "All rows are sent."
    a_row_of_each = sum(candidates[place]["usd_per_row"] or 0.0 for place in left)
    if not a_row_of_each:
        return "A row costs nothing as far as is known."
    more = int(1 / a_row_of_each)
    if found.rows + more >= population:
        return f"A further dollar buys the other {population - found.rows:,} rows of each."
    narrowing = sqrt(_variance(found.rows + more, population) / _variance(found.rows, population))
    half = narrowing * (found.high - found.low) / 2
    return (
        f"A further dollar buys about {more:,} rows of each: the difference would be known to ± {half:.3f}."
    )


def _variance(rows: int, population: int) -> float:
    """The variance of a mean over rows drawn without replacement, but for a factor."""
    return 1 / rows - 1 / population
