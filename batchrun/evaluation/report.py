"""The report of an evaluation: estimates for all rows from the sent ones."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from batchrun.amounts import NANO
from batchrun.evaluation.early_stopping import StoppingRule, decision
from batchrun.evaluation.frame import SamplingFrame, evaluation_of
from batchrun.evaluation.sample import Sample, SampleTally
from batchrun.evaluation.statistics.classification import class_rates, confusion
from batchrun.evaluation.statistics.intervals import (
    Estimate,
    Scores,
    estimate_clusters,
    estimate_rows,
    estimate_strata,
)
from batchrun.job.evaluation import Evaluation
from batchrun.job.spec import asks_in_random_order
from batchrun.rows.dataset import Dataset
from batchrun.rows.metrics import Metric

MOST_CLASSES = 50

Report = dict[str, Any]


def report_of(dataset: Dataset, tally: SampleTally) -> Report:
    """Returns the evaluation as JSON-able values; amounts in USD. `estimate` is None without any score."""
    evaluation, frame, metric = evaluation_of(dataset), tally.frame, tally.metric
    sample = tally.sample()
    estimate, decided = _estimate(dataset, frame, sample, metric)
    report: Report = {
        "metric": evaluation.metric,
        "score": score_name(metric),
        "estimate": None if estimate is None else estimate.value,
        "interval": None if estimate is None else [estimate.low, estimate.high],
        "n": 0 if estimate is None else estimate.n,
        "of": frame.population,
        "target": evaluation.target,
        "missing": int(np.isnan(sample.scores).sum()),
        "method": None if estimate is None else estimate.method,
        "bounds": None if estimate is None else list(estimate.bounds),
        "unscored": sample.unscored,
        "not_scorable": frame.order.size - frame.population,
        "decided": decided,
        "warnings": [] if estimate is None else list(estimate.warnings),
        "usd": _costs(sample, frame),
    }
    if sample.pairs:
        report |= _classes(sample, frame.population if evaluation.target == "table" else None)
    return report


def score_name(metric: Metric) -> str:
    return "accuracy" if metric.binary else f"mean {metric.name}" if metric.name == "f1" else "mean score"


def _estimate(
    dataset: Dataset, frame: SamplingFrame, sample: Sample, metric: Metric
) -> tuple[Estimate | None, str | None]:
    evaluation, population = evaluation_of(dataset), frame.population
    if not population:
        return None, None
    if sample.scores.size == population and evaluation.target == "table" and evaluation.stop is None:
        return estimate_rows(sample.scores, population, metric.binary), None
    if not asks_in_random_order(dataset.job) and sample.scores.size < population:
        return certain_bounds(sample.scores, population, metric.binary), None
    if evaluation.stop is not None:
        evidence = StoppingRule(frame, evaluation, metric.binary)
        for score in sample.scores.tolist():
            evidence.add(None if np.isnan(score) else score)
        return evidence.sequence.estimate(), decision(evidence.sequence, evaluation.stop)
    return fixed_estimate(evaluation, frame, sample, metric), None


def fixed_estimate(
    evaluation: Evaluation, frame: SamplingFrame, sample: Sample, metric: Metric
) -> Estimate | None:
    population = frame.population if evaluation.target == "table" else None
    if evaluation.cluster:
        return estimate_clusters(sample.scores, sample.groups, population)
    if evaluation.stratify and population is not None:
        nulls = len(frame.groups.names)
        codes = np.where(frame.groups.codes < 0, nulls, frame.groups.codes)[frame.scorable]
        strata = np.where(sample.groups < 0, nulls, sample.groups).astype(np.int32)
        return estimate_strata(sample.scores, strata, np.bincount(codes, minlength=nulls + 1))
    return estimate_rows(sample.scores, population, metric.binary)


def certain_bounds(scores: Scores, population: int, binary: bool) -> Estimate | None:
    """Returns certain bounds: rows sent in input order tell nothing about the other rows."""
    estimate = estimate_rows(scores, None, binary)
    if estimate is None:
        return None
    known = estimate.value * estimate.n
    return replace(
        estimate,
        low=known / population,
        high=(known + population - estimate.n) / population,
        of=population,
        method="certain bounds: rows in the input's order are not a random sample",
    )


def _costs(sample: Sample, frame: SamplingFrame) -> dict[str, float | None]:
    """Returns the cost of the sample, of one of its rows, and of all rows of the population."""
    rows = sample.costs.size
    so_far = float(sample.costs.sum()) / NANO
    return {
        "so_far": so_far,
        "per_row": so_far / rows if rows else None,
        "whole": so_far / rows * frame.population if rows else None,
    }


def _classes(sample: Sample, population: int | None) -> Report:
    matrix = confusion(sample.pairs)
    if len(matrix.labels) > MOST_CLASSES:
        return {}
    return {
        "confusion": {
            "labels": list(matrix.labels),
            "counts": [list(row) for row in matrix.counts],
            "invalid": list(matrix.invalid),
        },
        "classes": [asdict(rates) for rates in class_rates(matrix, population)],
    }
