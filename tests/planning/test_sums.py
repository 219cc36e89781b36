"""The sums of a plan are the same however its rows are counted."""

from dataclasses import asdict
from pathlib import Path

import pytest

from batchrun.engine.pricing import PriceList
from batchrun.job.file import load_job
from batchrun.rows.dataset import open_dataset
from batchrun.runs.plan.counts import Counts, RowCounter
from batchrun.runs.plan.shown import ShownRequests

JOB = """
input.path = "rows.csv"
prompt.template = "{{ text }}"
output.path = "out.csv"
[request]
model = "m"
max_tokens = 8
{columns}
"""


def counts_of(folder: Path, shown: int) -> Counts:
    dataset = open_dataset(load_job(folder / "job.toml"), sandbox=False)
    return RowCounter(dataset, None, PriceList(7, 3), shown=ShownRequests(shown, 0)).count()


@pytest.mark.parametrize("columns", ["", '[request.columns]\nmax_tokens = "n"'])
def test_rows_that_are_summed_up_by_their_bounds_count_as_one_by_one(tmp_path: Path, columns: str) -> None:
    """Over several chunks, with duplicates in and between them, and rows that can't be sent."""
    rows = [f"{'' if row % 50 == 7 else 'x' * (row % 701)},{row % 9 or ''}" for row in range(5_000)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,n", *rows]))
    (tmp_path / "job.toml").write_text(JOB.replace("{columns}", columns))
    summed_up, one_by_one = counts_of(tmp_path, 0), counts_of(tmp_path, 1)
    cached = {"cached": None}  # it is compared by its identity
    assert asdict(summed_up) | cached == asdict(one_by_one) | cached
    assert summed_up.duplicates > 0
    assert summed_up.worst.rows == summed_up.to_send == summed_up.requests > 0
