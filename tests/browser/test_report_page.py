"""The report in a real browser: `make test-browser`, with Debian's chromium."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from batchrun.client.server import sandbox_for
from batchrun.job.file import load_job
from batchrun.runs.report.write import write_report
from batchrun.runs.run import run_job
from batchrun.sandbox import Sandbox, Settings
from tests.browser.conftest import Watched
from tests.looking.conftest import finish, sandbox

pytestmark = pytest.mark.browser
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

ROOT = Path(__file__).parents[2]
WIDTHS = (1280, 390)
BY = {"sentiment": "language", "tickets": "channel", "questions": "topic"}

Pages = dict[str, tuple[Path, dict[str, Any]]]

__all__ = ["sandbox"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The report of each example job after a run with the sandbox, and the run's summary."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("jobs", "sample_data"):
        shutil.copytree(ROOT / name, folder / name)
    made = {}
    for name in BY:
        job = load_job(folder / "jobs" / f"{name}.toml", sandbox=True)
        with sandbox_for(
            job, Settings(replies=folder / "sample_data" / "replies.toml", latency=0.02)
        ) as server:
            summary = run_job(job, server, quiet=True)
        path = folder / f"{name}.html"
        write_report(
            job, path, sandbox=True, by={"questions": "topic", "tickets": "channel"}.get(name, "language")
        )
        made[name] = (path, dict(summary))
    return made


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Path:
    finished = finish(tmp_path_factory.mktemp("hostile"), sandbox)
    write_report(finished.job, finished.folder / "page.html", sandbox=True, by="language")
    return finished.folder / "page.html"


@pytest.fixture(scope="module")
def browser(
    pages: Pages, hostile: Path, chromium: Callable[[], AbstractContextManager[Any]]
) -> Iterator[Any]:
    """Started after the runs that make the pages: its event loop holds this thread."""
    with chromium() as running:
        yield running


@pytest.mark.parametrize("name", BY)
def test_an_example_job_s_page_asks_for_nothing_and_complains_of_nothing(
    name: str, pages: Pages, watched: Watched
) -> None:
    path, summary = pages[name]
    page = watched.open(path.as_uri())
    assert watched.complaints == []
    assert watched.requests == [path.as_uri()]
    spend = page.locator("section.block", has=page.get_by_role("heading", name="Spend, USD", exact=True))
    spend.locator("details > summary").click()
    settled = spend.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert float([cell for cell in settled if cell != "–"][-1]) == pytest.approx(
        summary["usd"]["settled"], rel=0.001
    )
    assert page.locator(".tiles li").first.inner_text().split()[0] == f"{summary['rows']['ok']:,}"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_off_and_axe_finds_no_serious_violation(
    width: int, theme: Any, pages: Pages, browser: Any
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,
        bypass_csp=True,  # for axe alone
    )
    page = Watched(context.new_page()).open(pages["questions"][0].as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("details.row").first.evaluate("row => { row.open = true; }")
    found = axe.Axe().run(page).response["violations"]
    context.close()
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []


def test_hostile_texts_are_shown_and_do_nothing(hostile: Path, watched: Watched) -> None:
    page = watched.open(hostile.as_uri())
    page.locator("details.row").evaluate_all("rows => rows.forEach(row => { row.open = true; })")
    shown = page.locator("#read").inner_text()
    assert "<script>alert(1)</script>" in shown
    assert 'onerror="alert(2)"' in shown
    assert page.locator("img, iframe, object").count() == 0
    assert page.locator("h1").is_visible()  # a style sheet among the answers would hide it
    assert watched.complaints == []
    assert watched.requests == [hostile.as_uri()]


def test_the_policy_stops_a_script_that_is_not_the_page_s(hostile: Path, watched: Watched) -> None:
    page = watched.open(hostile.as_uri())
    page.evaluate(
        "() => { const added = document.createElement('script');"
        " added.textContent = 'document.title = \"taken over\"'; document.body.append(added); }"
    )
    assert page.title() == "out.parquet"
    assert any("Content Security Policy" in complaint for complaint in watched.complaints)


def test_the_filter_hides_rows_without_the_text(hostile: Path, watched: Watched) -> None:
    page = watched.open(hostile.as_uri())
    every = page.locator("details.row:visible").count()
    page.get_by_label("Show rows with").fill("HATE")
    assert page.locator("details.row:visible").count() == 1
    assert page.locator("#found").inner_text() == f"1 of {every} rows"
    page.get_by_label("Show rows with").fill("")
    assert page.locator("details.row:visible").count() == every


def test_a_cell_of_the_confusion_matrix_opens_its_row(hostile: Path, watched: Watched) -> None:
    page = watched.open(hostile.as_uri())
    page.locator('a[href="#disagree-1"]').click()
    page.locator("#disagree-1 pre").first.wait_for(state="visible")
    page = watched.open(f"{hostile.as_uri()}#failed-11")
    page.locator("#failed-11 .reason").wait_for(state="visible")


def test_the_page_says_all_of_it_without_scripts(hostile: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(hostile.as_uri())
    assert page.locator("svg.chart").first.is_visible()
    assert not page.locator(".filter").is_visible()
    page.locator("details.row > summary").first.click()
    page.locator("details.row pre").first.wait_for(state="visible")
    context.close()


def test_a_printed_page_has_the_texts_of_its_rows(hostile: Path, browser: Any, tmp_path: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(hostile.as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.locator("details.row pre").first.wait_for(state="visible")
    assert page.pdf(path=tmp_path / "page.pdf").startswith(b"%PDF")
    context.close()
