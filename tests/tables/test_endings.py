"""The list of endings is the only one: what stands in it is read, written, and known as a table."""

from pathlib import Path

import pytest

from batchrun.errors import JobError
from batchrun.job.file import load_job
from batchrun.tables.endings import COMPRESSED, READ, TEXT_FORMATS, WRITTEN, is_table, without_ending
from batchrun.tables.reader import _COPIED, _OPENERS
from batchrun.tables.writer import _ENCODERS

READ_NAMES = [
    *READ,
    *(f"{text}{codec}" for text in READ if READ[text] in TEXT_FORMATS for codec in COMPRESSED),
]


def test_each_format_has_its_opener_and_each_output_its_encoder() -> None:
    assert {*_OPENERS, *_COPIED} == set(READ.values()) >= TEXT_FORMATS
    assert tuple(_ENCODERS) == WRITTEN
    assert set(WRITTEN) <= set(READ)


@pytest.mark.parametrize("ending", [*READ_NAMES, *(ending.upper() for ending in READ_NAMES)])
def test_a_table_in_the_place_of_a_job_file_is_told_what_makes_one(tmp_path: Path, ending: str) -> None:
    assert without_ending(f"my.reviews{ending}") == "my.reviews"
    with pytest.raises(JobError, match="that is a table"):
        load_job(tmp_path / f"reviews{ending}")


@pytest.mark.parametrize("name", ["job.toml", "csv", "my.csv.toml", "notes.gz"])
def test_another_file_is_no_table(name: str) -> None:
    assert not is_table(name)
