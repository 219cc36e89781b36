"""What a response is worth to a row without labels, and what becomes of the row."""

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batchrun.client.request import Request
from batchrun.client.server import Server
from batchrun.exchange import Completion
from batchrun.job.file import make_job
from batchrun.rows.active import ActiveRows, Row
from batchrun.rows.labelling import PLAIN, plain_rows
from batchrun.rows.result import FAILED, INVALID, OK, RowResult
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings, background

ROW = Request(b'{"max_tokens":16,"messages":[]}', b"r" * 16, 100, 16)
FLAWED = [
    (Completion("Yes", "max_tokens"), "truncated"),
    (Completion("", "max_tokens"), "truncated"),
    (Completion("Yes", "model_context_window_exceeded"), "truncated"),
    (Completion("", "end_turn"), "empty"),
    (Completion(" \n", "end_turn"), "empty"),
    (Completion("", "tool_use"), "empty"),
    (Completion("", "refusal"), "refusal"),
    (Completion("I can't", "refusal"), "refusal"),
]


@pytest.mark.parametrize(("completion", "flaw"), FLAWED)
def test_a_flawed_answer_is_invalid_unless_it_is_accepted(completion: Completion, flaw: str) -> None:
    others = {"truncated", "empty", "refusal"} - {flaw}
    for labelling, status in ((PLAIN, INVALID), (plain_rows(others), INVALID), (plain_rows([flaw]), OK)):
        rows = ActiveRows(labelling)
        rows.begin(Row(0, ROW))
        result = rows.take(ROW, completion)
        assert isinstance(result, RowResult)
        assert (result.status, result.text) == (status, completion.text)
        assert result.flaw == (flaw if status == INVALID else None)
        assert result.label_text == (None if status == INVALID else completion.text)


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence", None, "tool_use", "new_reason"])
def test_a_whole_answer_with_text_is_ok(stop_reason: str | None) -> None:
    rows = ActiveRows(PLAIN)
    rows.begin(Row(0, ROW))
    result = rows.take(ROW, Completion("Yes", stop_reason))
    assert isinstance(result, RowResult)
    assert (result.status, result.flaw, result.label_text) == (OK, None, "Yes")


def test_an_invalid_row_is_sent_again_only_by_a_run_that_wants_it() -> None:
    cut = Completion("Yes", "max_tokens", run=1)
    rows = ActiveRows(dataclasses.replace(PLAIN, asks_again_before=2))
    again = rows.begin(Row(0, ROW, ((ROW.digest, cut),)))
    assert isinstance(again, list)
    assert [(request.body, request.digest != ROW.digest) for request in again] == [(ROW.body, True)]
    whole = rows.take(again[0], Completion("Yes.", "end_turn", run=2))
    assert isinstance(whole, RowResult)
    assert (whole.status, whole.text) == (OK, "Yes.")
    assert isinstance(
        failed := ActiveRows(PLAIN).begin(Row(0, ROW, ((ROW.digest, Completion(None)),))), RowResult
    )
    assert failed.status == FAILED


def job(folder: Path, **tables: dict[str, Any]) -> Any:
    pl.DataFrame({"text": [f"Tell me of {number}" for number in range(6)]}).write_csv(folder / "in.csv")
    request = {"model": "abliterated-model", "max_tokens": 2}
    given: dict[str, Any] = {
        "input": {"path": "in.csv"},
        "prompt": {"template": "{{ text }}"},
        "request": request,
        "output": {"path": "out.parquet"},
    }
    merged = {name: given.get(name, {}) | tables.get(name, {}) for name in given | tables}
    return make_job(merged, folder, sandbox=True)


def test_rows_that_were_cut_are_told_of_in_output_summary_and_exit_code(tmp_path: Path) -> None:
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        summary = run_job(job(tmp_path), server)
        accepted = run_job(job(tmp_path, output={"accept": ["truncated"]}), server)
    assert (summary["exit_code"], summary["rows"]["invalid"]) == (3, 6)
    assert summary["reasons"] == {"truncated": {"rows": 6, "example": 1}}
    assert "6 truncated" in summary["reason"]
    assert (accepted["exit_code"], accepted["this_run"]["requests"]["sent"]) == (0, 0)
    assert accepted["reasons"] == {}


def test_what_came_of_a_cut_answer_stays_in_the_output(tmp_path: Path) -> None:
    with background(Settings()) as sandbox:
        run_job(job(tmp_path), Server(sandbox.base_url, "key", sandbox=True))
    row = pl.read_parquet(tmp_path / "out.parquet").to_dicts()[0]
    assert (row["status"], row["error_code"], row["stop_reason"]) == ("invalid", "truncated", "max_tokens")
    assert row["output"]
    assert "cut" in row["error"]


def sent_by(folder: Path, server: Server, **tables: dict[str, Any]) -> tuple[int, dict[str, int]]:
    summary = run_job(job(folder, **tables), server)
    return summary["this_run"]["requests"]["sent"], {name: n for name, n in summary["rows"].items() if n}


def test_raising_max_tokens_sends_only_the_cut_rows_again(tmp_path: Path) -> None:
    """And what was bought stands under any other max_tokens."""
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        ok = {"total": 6, "ok": 6}
        assert sent_by(tmp_path, server) == (6, {"total": 6, "invalid": 6})
        assert sent_by(tmp_path, server) == (0, {"total": 6, "invalid": 6})
        assert sent_by(tmp_path, server, request={"max_tokens": 3}) == (6, {"total": 6, "invalid": 6})
        assert sent_by(tmp_path, server, request={"max_tokens": 300}) == (6, ok)
        for cap in (300, 299, 2, 400):
            assert sent_by(tmp_path, server, request={"max_tokens": cap}) == (0, ok)


def test_a_cut_answer_is_requested_again_with_the_next_max_tokens(tmp_path: Path) -> None:
    raises = {"max_tokens": [3, 300, 1]}
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        assert sent_by(tmp_path, server, retry=raises) == (18, {"total": 6, "ok": 6})
        assert sent_by(tmp_path, server) == (0, {"total": 6, "ok": 6})
    rows = pl.read_parquet(tmp_path / "out.parquet")
    assert rows["attempts"].to_list() == [3] * 6
    assert min(rows["output_tokens"]) > 5


def test_max_tokens_of_a_column_is_raised_row_by_row(tmp_path: Path) -> None:
    with background(Settings()) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        columns = {"columns": {"max_tokens": "most"}}
        for most, sent in ((2, 6), (2, 0), (300, 6), (300, 0)):
            given = job(tmp_path, request=columns)
            pl.read_csv(tmp_path / "in.csv").with_columns(most=most).write_csv(tmp_path / "in.csv")
            assert run_job(given, server)["this_run"]["requests"]["sent"] == sent


def test_the_reservation_of_a_raised_request_is_its_own(tmp_path: Path) -> None:
    """With room for the first requests only, the run stops at the cap and never goes beyond it."""
    tables: dict[str, dict[str, Any]] = {
        "retry": {"max_tokens": [4_000]},
        "pricing": {"input_usd_per_million": 5.0, "output_usd_per_million": 5.0},
        "budget": {"usd": 0.01},
    }
    with background(Settings()) as sandbox:
        summary = run_job(job(tmp_path, **tables), Server(sandbox.base_url, "key", sandbox=True))
    assert (summary["exit_code"], summary["rows"]["pending"]) == (4, 6)
    assert summary["usd"]["settled"] + summary["usd"]["uncertain"] <= 0.01


@pytest.mark.parametrize(
    ("raises", "seen", "sent"),
    [
        ((), (), []),
        ((16, 8), (), []),
        ((64,), (), [64]),
        ((512, 64), (), [64, 512]),
        ((), (64,), []),
    ],
)
def test_the_chain_of_caps_is_finite(raises: tuple[int, ...], seen: tuple[int, ...], sent: list[int]) -> None:
    rows = ActiveRows(dataclasses.replace(plain_rows(raises=raises), seen=seen))
    following = rows.begin(Row(0, ROW))
    caps: list[int | None] = []
    while not isinstance(following, RowResult):
        assert following is not None
        (request,) = following
        caps.append(request.output_bound)
        assert request.row == ROW.digest
        following = rows.take(request, Completion("Yes", "max_tokens", cap=request.output_bound))
    assert caps == [16, *sent]
    assert following.status == INVALID


def test_an_answer_that_was_cut_where_the_context_ends_is_not_sent_again_with_more() -> None:
    cut = Completion("Yes", "model_context_window_exceeded", cap=5)
    state = plain_rows(raises=(64,), cap=16).state(ROW, {ROW.digest: cut}.get)
    assert (state.open, state.label_result is not None) == ((), True)


def test_a_whole_answer_under_a_cap_that_no_job_names_any_more_still_counts() -> None:
    (raised,) = _following(plain_rows(raises=(64,)), {ROW.digest: Completion("Y", "max_tokens", cap=16)})
    known = {
        ROW.digest: Completion("Y", "max_tokens", cap=16),
        raised.digest: Completion("Yes", "end_turn"),
    }
    state = dataclasses.replace(PLAIN, seen=(16, 64)).state(ROW, known.get)
    assert state.label_result is not None
    assert state.label_result.last == raised.digest


def _following(labelling: Any, known: dict[bytes, Completion]) -> tuple[Request, ...]:
    requests: tuple[Request, ...] = labelling.state(ROW, known.get).open
    return requests


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_thinks_needs_room_or_is_told_not_to(tmp_path: Path, stream: bool) -> None:
    with background(Settings(thinking=50)) as sandbox:
        server = Server(sandbox.base_url, "key", sandbox=True)
        more = {"stream": stream}
        summary = run_job(job(tmp_path, request=more | {"max_tokens": 50}), server)
        assert summary["reasons"] == {"truncated": {"rows": 6, "example": 1}}
        assert set(pl.read_parquet(tmp_path / "out.parquet")["output"]) == {""}
        assert sent_by(tmp_path, server, request=more | {"max_tokens": 400}) == (6, {"total": 6, "ok": 6})
        rows = pl.read_parquet(tmp_path / "out.parquet")
        assert min(rows["output_tokens"]) > 100
        assert not any("hmm" in text for text in rows["output"])
        off = more | {"max_tokens": 400, "extra": {"thinking": {"type": "disabled"}}}
        assert sent_by(tmp_path, server, request=off) == (6, {"total": 6, "ok": 6})
        assert max(pl.read_parquet(tmp_path / "out.parquet")["output_tokens"]) < 100
