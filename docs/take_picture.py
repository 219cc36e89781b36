"""Takes docs/report.png, the top of a report: `make picture`.

The run is of jobs/labels.toml against a sandbox that refuses, fails and takes its time; no model answers.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from batchrun.client.server import sandbox_for
from batchrun.job.file import load_job
from batchrun.runs.report.write import write_report
from batchrun.runs.run import run_job
from batchrun.sandbox import Settings

ROOT = Path(__file__).parent.parent
SETTINGS = ['evaluation={expected="gold", metric="choice"}', "limits.concurrency=24", "budget.usd=0.2"]
FAULTS = {"429": 0.02, "500": 0.02, "reset-after": 0.005}
VIEW: dict[str, Any] = {"width": 1100, "height": 1120}


def write_page(folder: Path) -> Path:
    """Runs the job in the folder, and returns its page."""
    for name in ("jobs", "sample_data"):
        shutil.copytree(ROOT / name, folder / name)
    job = load_job(folder / "jobs" / "labels.toml", SETTINGS, sandbox=True)
    replies = folder / "sample_data" / "replies.toml"
    with sandbox_for(job, Settings(replies=replies, latency=0.5, latency_sigma=0.4, faults=FAULTS)) as server:
        run_job(job, server, quiet=True)
    write_report(job, folder / "page.html", sandbox=True, by="language")
    return folder / "page.html"


async def take_picture(page: Path, picture: Path) -> None:
    async with async_playwright() as started:
        browser = await started.chromium.launch(executable_path=shutil.which("chromium"))
        shown = await browser.new_page(viewport=VIEW, color_scheme="light")
        await shown.goto(page.as_uri())
        await shown.screenshot(path=picture)
        await browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(take_picture(write_page(Path(folder)), ROOT / "docs" / "report.png"))
