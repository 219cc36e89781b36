"""What a notebook shows: a result as a table, and a run's progress as a bar."""

import re
import sys
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import batchrun
from batchrun.amounts import usd_figure
from batchrun.runs.observers import notebook
from batchrun.runs.result_html import summary_html
from tests.python_api.jobs import JOB

HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """The names of all elements of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)


def cells(html: str) -> dict[str, str]:
    found = re.findall(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td></tr>", html)
    return {unescape(name): unescape(text) for name, text in found}


def test_a_result_shows_the_numbers_of_its_summary(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\none\ntwo\n[sandbox:flag hate]\n")
    tables = JOB | {
        "input": {"path": str(tmp_path / "in.csv")},
        "output": {"path": str(tmp_path / "out.csv")},
    }
    tables["request"] = {**JOB["request"], "max_tokens": 600, "flagged_categories": ["hate"]}
    result = batchrun.run(tables, settings={"budget.usd": 2.5}, sandbox=True)
    shown, summary = cells(result._repr_html_()), result.summary
    assert shown["rows"] == "2 ok, 1 failed of 3"
    assert shown["USD"] == f"{usd_figure(summary['usd']['settled'])} of 2.5"
    assert shown["tokens"] == f"{summary['tokens']['input']:,} in, {summary['tokens']['output']:,} out"
    assert shown["requests"] == "3 sent, 0 of them retries"
    assert shown["reasons"] == "1 content_flagged (first: row 3)"
    assert shown["output"] == str(tmp_path / "out.csv")
    assert shown["end"].startswith(summary["reason"])


def test_texts_of_a_summary_are_never_markup() -> None:
    rows = {"total": 2, "ok": 1, "invalid": 0, "failed": 1, "pending": 0}
    summary = {
        "rows": rows,
        "requests": {"sent": 2, "retried": 0},
        "tokens": {"input": 1, "output": 1},
        "usd": {"settled": 0.0, "uncertain": 0.5, "budget": None},
        "reasons": {HOSTILE: {"rows": 1, "example": 2}},
        "evaluation": {"score": HOSTILE, "estimate": 0.5, "interval": [0.25, 0.75], "n": 2},
        "output": HOSTILE,
        "output_written": True,
        "reason": HOSTILE,
        "next_step": HOSTILE,
    }
    html = summary_html(summary)
    assert Tags(html).names == {"table", "tbody", "tr", "th", "td"}
    assert cells(html)[HOSTILE] == "0.5, 95 % interval 0.25 to 0.75, of 2 rows"
    assert cells(html)["USD"] == "0, at most 0.5 more uncertain"


class Handle:
    """What IPython returns for a display that can be updated."""

    def __init__(self, first: str) -> None:
        self.shown = [first]

    def update(self, html: str) -> None:
        self.shown.append(html)


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """A notebook's kernel, by the little of IPython that the bar uses."""
    made: list[Handle] = []

    def display(html: str, *, display_id: bool) -> Handle:
        assert display_id
        made.append(Handle(html))
        return made[-1]

    shell, module = ModuleType("IPython"), ModuleType("IPython.display")
    vars(shell)["get_ipython"] = lambda: SimpleNamespace(kernel="here")
    vars(module).update(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return made


def test_progress_in_a_notebook_is_one_bar_that_ends_full(
    tmp_path: Path, handles: list[Handle], capsys: Any
) -> None:
    tables = JOB | {"output": {"path": str(tmp_path / "out.csv")}}
    (tmp_path / "in.csv").write_text("text\none\ntwo\n")
    batchrun.run(tables | {"input": {"path": str(tmp_path / "in.csv")}}, sandbox=True, progress=True)
    (handle,) = handles
    assert '<progress style="width:100%" value="2" max="2">' in handle.shown[-1]
    assert "2 of 2 rows (100%)" in handle.shown[-1]
    assert Tags(handle.shown[-1]).names == {"progress", "pre"}
    assert "rows" not in capsys.readouterr().err


def test_the_bar_is_updated_while_the_run_is_going_on(
    handles: list[Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "SECONDS_BETWEEN_UPDATES", 0.01)
    monkeypatch.setattr(notebook, "status_lines", lambda *_: ["<b>now</b>"])
    progress = SimpleNamespace(rows=None, done=0)
    monkeypatch.setattr(notebook, "RateMeter", lambda *_: None)
    view: Any = SimpleNamespace(progress=progress)
    with notebook.bar(view):
        progress.rows, progress.done = 8, 3
        until = time.monotonic() + 10
        while not any('value="3" max="8"' in shown for shown in handles[0].shown):
            assert time.monotonic() < until
            time.sleep(0.01)
    assert handles[0].shown[0] == '<progress style="width:100%"></progress><pre>&lt;b&gt;now&lt;/b&gt;</pre>'


def test_without_a_kernel_there_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not notebook.in_notebook()
    shell = ModuleType("IPython")
    vars(shell)["get_ipython"] = lambda: None
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert not notebook.in_notebook()
