"""A second process beside a run whose lock file was deleted, by the real command."""

from tests.acceptance.command import Place, as_options, ended, paused, until

ROWS = 24


def test_a_second_run_ends_with_75_and_the_first_one_goes_on(slow_place: Place) -> None:
    place = slow_place
    place.texts(*(f"text {n}" for n in range(ROWS)))
    with place.start("run", "job.toml", *as_options(["limits.concurrency=8"])) as process:
        until(lambda: place.requests >= 6)
        next((place.folder / "out.run").glob("*lock*")).unlink()
        with paused(process):
            second = place.run("limits.concurrency=8")
        assert second.code == 75, second.err
        assert "Another run of this output is going on" in second.err
        first = ended(process)
    assert first.code == 0, first.err
    assert "damage" not in first.err
    assert place.requests == ROWS
    assert place.column("status").count("ok") == ROWS
