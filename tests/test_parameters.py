"""What a cell may hold for a parameter that differs by row."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batchrun.client.builder import RequestBuilder
from batchrun.client.request import Request
from batchrun.errors import JobError
from batchrun.job.file import make_job
from batchrun.job.parameters import BY_ROW, OF_REQUEST, ParameterError, parameter_value
from batchrun.job.spec import Request as RequestTable


def tables(**request: Any) -> dict[str, Any]:
    return {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ x }}"},
        "request": {"model": "m", **request},
        "output": {"path": "out.csv"},
    }


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


def test_each_key_of_the_request_is_in_the_list_and_sent_in_its_order() -> None:
    """The order is a part of a request's identity: with another one, all would be sent and paid again."""
    assert set(OF_REQUEST) == set(RequestTable.__struct_fields__) - {"extra", "columns", "free_tier"}
    given = {"max_tokens": 1, "temperature": 0.0, "flagged_categories": ["hate"], "stream": True}
    job = make_job(tables(**given), Path())
    request = RequestBuilder(job, ["x"], "").build({"x": "a"})
    assert isinstance(request, Request)
    assert request.body == (
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":1,"temperature":0.0,'
        b'"flagged_categories":["hate"],"stream":true}'
    )
    plain = RequestBuilder(make_job(tables(stream=False, flagged_categories=[]), Path()), ["x"], "").build(
        {"x": "a"}
    )
    assert isinstance(plain, Request)
    assert plain.body == b'{"model":"m","messages":[{"role":"user","content":"a"}]}'


@pytest.mark.parametrize("name", sorted({*BY_ROW, *OF_REQUEST}))
def test_a_parameter_differs_by_row_or_says_that_it_can_not(name: str) -> None:
    given = tables(columns={name: "column"})
    if name in BY_ROW:
        assert name in make_job(given, Path()).request.columns
    else:
        with pytest.raises(JobError, match="can't differ by row"):
            make_job(given, Path())
