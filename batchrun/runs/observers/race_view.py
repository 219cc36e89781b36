"""What a race is known to be while it goes on, and the display's text for it."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchrun.amounts import usd_text
from batchrun.rows.observer import Observer
from batchrun.runs.observers.progress_lines import (
    Part,
    duration,
    fitted,
    pace_parts,
    spend_of,
    stopping_lines,
)
from batchrun.runs.observers.rates import RateMeter
from batchrun.runs.observers.view import MakeObserver, View
from batchrun.text import columns_of, padded, single_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrun.evaluation.race_report import Standing


@dataclass(frozen=True, slots=True)
class Turn:
    """The `rows` that a candidate gets in a round, and the run that sends them."""

    place: int
    rows: int
    view: View
    meter: RateMeter

    @property
    def done(self) -> int:
        """Returns how many of the rows have ended."""
        return self.view.progress.answers + self.view.progress.failed


@dataclass(frozen=True, slots=True)
class Known:
    """The `standings` at the last reading, and the `turns` since then in their order, by place."""

    standings: "Sequence[Standing]" = ()
    turns: dict[int, Turn] = field(default_factory=dict)

    def rows(self, place: int) -> int:
        """Returns the rows that a candidate was sent so far."""
        turn = self.turns.get(place)
        return self.standings[place].rows + (turn.done if turn else 0)

    def nano_usd(self, place: int) -> int:
        turn = self.turns.get(place)
        return spend_of(turn.view).nano_usd if turn else self.standings[place].nano_usd


@dataclass(slots=True)
class RaceView:
    """A race in progress: another thread may read it. `population` rows decide; `nano_usd` is the cap."""

    population: int = 0
    nano_usd: int = 0
    rounds: int = 0
    known: Known = field(default_factory=Known)
    rows_before: int = 0
    started: float = field(default_factory=time.monotonic)

    def begun(self, population: int, nano_usd: int, standings: "Sequence[Standing]") -> None:
        self.population, self.nano_usd, self.started = population, nano_usd, time.monotonic()
        self.known = Known(standings)
        self.rows_before = sum(each.rows for each in standings)

    def looked(self, standings: "Sequence[Standing]") -> None:
        self.known = Known(standings)  # in one step: what the turns have sent is in the standings now

    def turn_of(self, place: int, rows: int) -> MakeObserver:
        """Returns what makes the observer of the run that sends a candidate's rows of a round."""

        def begin(view: View) -> Observer:
            known, meter = self.known, RateMeter(view.progress, time.monotonic())
            self.known = Known(known.standings, {**known.turns, place: Turn(place, rows, view, meter)})
            return Observer()

        return begin


def race_lines(race: RaceView, width: int) -> list[str]:
    """Returns the display's lines; `width` in columns, 0 for lines of any length."""
    known, now = race.known, time.monotonic()
    if not known.standings:
        return ["reading the tables ..."]
    turn = next(reversed(known.turns.values()), None)
    if turn is not None and turn.view.progress.stopping_for and turn.view.progress.in_flight:
        return [*map(single_line, stopping_lines(turn.view.progress, now)), fitted(_money(race, now), width)]
    names = [single_line(each.name) for each in known.standings]
    longest = max(map(columns_of, names), default=0)
    room = max(width - longest - 2, 1) if width else 0
    lines = [
        f"{padded(name, longest)}  {fitted(_candidate(race, place), room)}"
        for place, name in enumerate(names)
    ]
    return [fitted(_turn(race, turn, now), width), *lines, fitted(_money(race, now), width)]


def _turn(race: RaceView, turn: Turn | None, now: float) -> list[Part]:
    if turn is None or (turn.done >= turn.rows and not turn.view.progress.in_flight):
        return [Part("reading the journals ...", 0)]
    name = single_line(race.known.standings[turn.place].name)
    head = f"round {race.rounds}: {turn.done:,} of {turn.rows:,} row{'s' if turn.rows > 1 else ''} for {name}"
    speed = turn.meter.read(now, turn.view.limiter.pace.requests_per_minute)
    return [Part(head, -1), *pace_parts(turn.view, speed, now)]


def _candidate(race: RaceView, place: int) -> list[Part]:
    standing = race.known.standings[place]
    score = [] if standing.score is None else [Part(f"score {standing.score:.3f}", 1)]
    return [
        Part(f"{race.known.rows(place):,} of {race.population:,} rows", 0),
        *score,
        Part(usd_text(race.known.nano_usd(place)), 3),
        *([Part(standing.note, 2)] if standing.note else []),
    ]


def _money(race: RaceView, now: float) -> list[Part]:
    known = race.known
    places = range(len(known.standings))
    spent = sum(map(known.nano_usd, places))
    views = [turn.view for turn in known.turns.values()]
    reserved = sum(view.ledger.reserved.nano_usd for view in views)
    parts = [Part(f"spent {usd_text(spent)} + {usd_text(reserved)} reserved of {usd_text(race.nano_usd)}", 0)]
    if views and views[0].server.sandbox:
        parts.append(Part("sandbox: nothing is paid", 2))
    seconds = seconds_to_go(race, spent, now)
    if seconds is not None:
        parts.append(Part(f"at most {duration(seconds)} to go", 1))
    return parts


def seconds_to_go(race: RaceView, spent: int, now: float) -> float | None:
    """Returns the time to the last row or to the cap, at the race's pace so far; None while it is unknown.

    It is a bound: a race ends earlier once it is decided.
    """
    known = race.known
    places = range(len(known.standings))
    rows = sum(map(known.rows, places))
    sent, elapsed = rows - race.rows_before, now - race.started
    if sent <= 0 or elapsed <= 0:
        return None
    left = sum(race.population - known.rows(place) for place in places if not known.standings[place].given_up)
    by_cap = (race.nano_usd - spent) * rows / spent if spent else left
    return max(0.0, min(left, by_cap)) * elapsed / sent
