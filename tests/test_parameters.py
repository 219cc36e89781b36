"""What a cell may hold for a parameter that differs by row."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from batchrun.parameters import ParameterError, parameter_value


@pytest.mark.parametrize(
    ("parameter", "cell", "sent"),
    [
        ("model", "m", "m"),
        ("max_tokens", 1, 1),
        ("temperature", 0, 0),
        ("temperature", 2.0, 2.0),
        ("temperature", Decimal("0.5"), Decimal("0.5")),
        ("top_p", 1, 1),
        ("top_k", 0, 0),
        ("flagged_categories", ["hate"], ["hate"]),
        ("flagged_categories", "hate, sexual", ["hate", "sexual"]),
        ("flagged_categories", "", []),
        ("stop_sequences", ["END"], ["END"]),
        ("stop_sequences", '["END", "\\n"]', ["END", "\n"]),
        ("metadata", {"user_id": "1"}, {"user_id": "1"}),
        ("metadata", '{"user_id": "1"}', {"user_id": "1"}),
        ("tools", [{"name": "t"}], [{"name": "t"}]),
    ],
)
def test_valid_cells(parameter: str, cell: Any, sent: Any) -> None:
    assert parameter_value(parameter, cell, "column") == sent


@pytest.mark.parametrize(
    ("parameter", "cell"),
    [
        *(("model", cell) for cell in ("", 5)),
        *(("max_tokens", cell) for cell in (0, -1, 1.0, True, "16", 2.5)),
        *(("temperature", cell) for cell in (-0.1, 2.1, "0", True, float("nan"), Decimal("NaN"))),
        *(("top_p", cell) for cell in (1.1, "1")),
        *(("top_k", cell) for cell in (-1, 1.5)),
        *(("flagged_categories", cell) for cell in ("violence", ["hate", None], [["hate"]], [{"a": 1}], 5)),
        *(("stop_sequences", cell) for cell in ("END", [""], [1], "[1]", '{"a": 1}')),
        *(("metadata", cell) for cell in ("text", "[]", date(2024, 2, 29))),
    ],
)
def test_invalid_cells_are_refused_by_column_and_parameter(parameter: str, cell: Any) -> None:
    with pytest.raises(ParameterError, match=f"^Column 'mine': {parameter} must be ") as caught:
        parameter_value(parameter, cell, "mine")
    assert len(str(caught.value)) < 200


def test_a_long_cell_is_not_quoted_in_full() -> None:
    with pytest.raises(ParameterError) as caught:
        parameter_value("metadata", "x" * 10_000, "mine")
    assert len(str(caught.value)) < 200
