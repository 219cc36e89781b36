"""A handful of the random tables that `make prove` has 300 of each kind of."""

from pathlib import Path

import pytest

from tests.tables.fuzz import CHECKS


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", CHECKS)
def test_a_random_table_comes_back_cell_by_cell(tmp_path: Path, kind: str, seed: int) -> None:
    CHECKS[kind](tmp_path, seed)
