"""The run's folder is deleted or renamed under a run, by the real command."""

import shutil

import pytest

from tests.acceptance.command import Place, as_options, ended, until

ROWS = 40


@pytest.mark.parametrize("harm", ["deleted", "renamed"])
def test_the_run_stops_and_the_same_command_pays_for_nothing_again(slow_place: Place, harm: str) -> None:
    place = slow_place
    place.texts(*(f"text {n}" for n in range(ROWS)))
    with place.start("run", "job.toml", *as_options(["limits.concurrency=4"])) as process:
        until(lambda: place.requests >= 6)
        folder = place.folder / "out.run"
        if harm == "deleted":
            shutil.rmtree(folder)
        else:
            folder.rename(place.folder / "elsewhere")
        done = ended(process)
    assert done.code == 1, done.err
    assert "was deleted, moved or replaced" in done.err
    assert "Traceback" not in done.err
    sent = place.requests
    assert sent < ROWS / 2
    assert place.command("export", "job.toml", "--salvage").code == 0
    assert place.column("status").count("ok") == sent
    assert place.run("limits.concurrency=40").code == 0
    assert place.requests == ROWS
