"""The live page in a real browser, beside a run and after it: `make test-browser`, with Debian's chromium."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchrun.sandbox import Sandbox
from tests.browser.conftest import Watched
from tests.looking.conftest import ROWS, finish, sandbox, write_job

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

__all__ = ["sandbox"]
WIDTHS = (1280, 390)
PATHS = ("", "job/1/", "job/1/rows", "job/1/row/21")


def command(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A command that runs until it ends, or is interrupted by whoever leaves its block."""
    return subprocess.Popen(
        [sys.executable, "-m", "batchrun", *arguments], cwd=folder, stdout=subprocess.PIPE, text=True
    )


@contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Path:
    """A folder with a finished job, whose texts are hostile, and one that was never run."""
    folder = tmp_path_factory.mktemp("jobs")
    finish(folder, sandbox)
    text = (folder / "job.toml").read_text().replace("out.parquet", "never.parquet")
    (folder / "never.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with ended(command(folder, "view", ".", "--no-browser")) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@pytest.fixture(scope="module")
def browser(address: str, chromium: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    with chromium() as running:
        yield running


def test_pages_ask_for_their_own_files_alone_and_complain_of_nothing(address: str, watched: Watched) -> None:
    for path in PATHS:
        page = watched.open(address + path)
        page.wait_for_selector("h1")
        page.wait_for_timeout(1_200)  # one look of the script
    assert watched.complaints == []
    assert [url for url in watched.requests if not url.startswith(address)] == []


def test_hostile_texts_are_shown_and_do_nothing(address: str, watched: Watched) -> None:
    page = watched.open(f"{address}job/1/row/21")
    assert "<script>alert(1)</script>" in page.locator("main").inner_text()
    page = watched.open(f"{address}job/1/rows?text=%3Cscript")
    assert "<script>alert(1)</script>" in page.locator("table.rows").inner_text()
    assert page.locator("img, iframe, object").count() == 0
    assert page.locator("h1").is_visible()
    assert watched.complaints == []


def test_rows_are_filtered_sorted_and_paged(address: str, watched: Watched) -> None:
    expect = playwright.expect
    page = watched.open(f"{address}job/1/rows")
    lines, facts = page.locator("table.rows tbody tr"), page.locator(".facts")
    expect(lines).to_have_count(50)
    page.get_by_role("link", name="Next").click()
    expect(lines).to_have_count(ROWS - 50)
    page.locator("select[name=status]").select_option("failed")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("table.rows tbody th")).to_have_text(["11"])
    page.locator("table.rows tbody th a").click()
    expect(page.locator("h1")).to_contain_text("Row 11")
    page.locator("nav.pages").get_by_role("link", name="Rows").click()
    expect(facts).to_contain_text("1 of 60 rows")
    assert "status=failed" in page.url
    page.get_by_role("link", name="All rows").click()
    page.get_by_role("link", name="cost", exact=True).click()
    expect(page.locator("th.cost_usd")).to_have_attribute("aria-sort", "ascending")
    page.locator("select[name=column]").select_option("language")
    page.locator("input[name=value]").fill("de")
    page.get_by_role("button", name="Show").click()
    expect(facts).to_contain_text("15 of 60 rows")
    page.locator(".chips a").click()
    expect(facts).to_contain_text("60 rows, 1–50 shown")


def test_a_job_is_reached_by_the_keyboard_alone(address: str, watched: Watched) -> None:
    page = watched.open(address)
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").endswith("job.toml"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#run")
    assert re.search(r"/job/1/$", page.url)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_off_and_axe_finds_no_serious_violation(
    width: int, theme: Any, address: str, browser: Any
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,
        bypass_csp=True,  # for axe alone
    )
    page = Watched(context.new_page()).page
    for path in PATHS:
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        found = axe.Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == [], path
    context.close()


def test_a_running_job_s_page_changes_by_itself_and_stops_it(browser: Any, tmp_path: Path) -> None:
    write_job(tmp_path, limits={"concurrency": 1})
    run = command(tmp_path, "run", "job.toml", "--quiet", "--sandbox", "--sandbox-latency", "0.5")
    with ended(run), ended(command(tmp_path, "view", "job.toml", "--no-browser")) as viewing:
        assert viewing.stdout is not None
        context = browser.new_context()
        watched = Watched(context.new_page())
        page = watched.open(viewing.stdout.readline().strip())
        page.get_by_text("A run is going on.").wait_for(timeout=20_000)
        first = page.locator(".tiles").inner_text()
        page.wait_for_function("text => document.querySelector('.tiles').innerText !== text", arg=first)
        page.locator("#run svg.chart").first.wait_for()
        page.get_by_text("Change this run").click()
        page.get_by_role("button", name="Stop the run").click()
        run.wait(timeout=20)
        page.get_by_text("rows pending").first.wait_for(timeout=20_000)
        page.locator("#read").wait_for(timeout=20_000)
        assert not page.locator("#control").is_visible()
        assert watched.complaints == []
        context.close()
