"""The servers of `benchmarks.limits`, each with the goals for it."""

from dataclasses import dataclass
from functools import partial

from benchmarks.limit_servers import (
    Bucket,
    Outage,
    Random,
    Server,
    Shared,
    Slots,
    Window,
)
from benchmarks.limit_simulation import Case


@dataclass(frozen=True, slots=True)
class Goal:
    """`goodput` at least, `refused` at most, both as shares."""

    goodput: float
    refused: float


Line = tuple[Case, Goal]


def lines() -> list[Line]:
    return [
        (Case("no limit", lambda _: Server(), 120), Goal(0.99, 0.0)),
        *_limits(),
        *_short_windows(),
        *_slots(),
        *_random(),
        *_random_and_limited(),
        *_changes(),
        *_outages(),
        (_growing_answers(), Goal(0.85, 0.05)),
    ]


def _of_a_minute(rate: float, **options: bool) -> dict[str, Server]:
    return {
        "fixed 60": Window(rate, fixed=True, **options),
        "sliding 60": Window(rate, **options),
        "bucket 1s": Bucket(rate, 1.0, **options),
        "bucket 10s": Bucket(rate, 10.0, **options),
        "bucket 60s": Bucket(rate, 60.0, **options),
    }


def _limits() -> list[Line]:
    found: list[Line] = []
    for per_minute in (600, 6_000):
        seconds = 600.0 if per_minute == 600 else 300.0
        for name in _of_a_minute(1.0):
            make = partial(_named, name, per_minute / 60)
            found += [
                (Case(f"{per_minute}/min {name}", make, seconds), Goal(0.95, 0.03)),
                (
                    Case(f"{per_minute}/min {name}, headers", partial(make, headers=True), seconds),
                    Goal(0.98, 0.002),
                ),
                (Case(f"{per_minute}/min {name}, given", make, seconds, per_minute), Goal(0.98, 0.002)),
            ]
    found.append(
        (Case("6000/min sliding 60, no wait", lambda _: Window(100.0, waits=False), 300), Goal(0.95, 0.03))
    )
    found.append(
        (
            Case("given 6000, server takes 600 sliding 60", lambda _: Window(10.0), 600, 6_000),
            Goal(0.95, 0.03),
        )
    )
    return found


def _named(name: str, rate: float, _: int, **options: bool) -> Server:
    return _of_a_minute(rate, **options)[name]


def _short_windows() -> list[Line]:
    found: list[Line] = []
    for per_minute in (600, 6_000):
        for window in (1.0, 10.0):
            for fixed in (False, True):
                for waits in (True, False) if window == 1 else (True,):
                    name = f"{per_minute}/min {'fixed' if fixed else 'sliding'} {window:g}"
                    make = partial(_window, per_minute / 60, window, fixed, waits)
                    name += "" if waits else ", no wait"
                    found.append((Case(name, make, 300), Goal(0.9, 0.05)))
    return found


def _window(rate: float, seconds: float, fixed: bool, waits: bool, _: int) -> Server:
    return Window(rate, seconds, fixed=fixed, waits=waits)


def _slots() -> list[Line]:
    return [
        (
            Case(f"{slots} concurrent{'' if waits else ', no wait'}", partial(_slot, slots, waits), 120),
            Goal(0.9, 0.1),
        )
        for slots in (8, 100)
        for waits in (True, False)
    ]


def _slot(slots: int, waits: bool, _: int) -> Server:
    return Slots(slots, waits=waits)


def _refusing(share: float, wait: float | None, seed: int) -> Server:
    return Random(share, wait, Server(), seed)


def _random() -> list[Line]:
    found = [
        (
            Case(f"random {share:.0%}, {_wait_text(wait)}", partial(_refusing, share, wait), 120),
            Goal(0.6, 0.6) if share == 0.5 else Goal(0.9, share + 0.02),
        )
        for share in (0.01, 0.05, 0.2, 0.5)
        for wait in (None, 1.0)
    ]
    found.append((Case("random 1%, wait 30", partial(_refusing, 0.01, 30.0), 600), Goal(0.9, 0.03)))
    for share in (0.01, 0.2):
        case = Case(f"given 6000 + random {share:.0%}, wait 1", partial(_refusing, share, 1.0), 300, 6_000)
        found.append((case, Goal(0.9, share + 0.02)))
    return found


def _wait_text(wait: float | None) -> str:
    return "no wait" if wait is None else f"wait {wait:g}"


def _random_and_limited() -> list[Line]:
    return (
        [
            (
                Case(f"random 20% + 600/min {name}", partial(_refusing_and, 0.2, name, 10.0), 600),
                Goal(0.85, 0.25),
            )
            for name in ("sliding 60", "bucket 10s", "fixed 60")
        ]
        + [
            (
                Case(
                    f"random {share:.0%} + 6000/min {name}", partial(_refusing_and, share, name, 100.0), 300
                ),
                Goal(0.85, share + 0.05),
            )
            for share, name in ((0.01, "sliding 60"), (0.2, "sliding 60"), (0.2, "bucket 10s"))
        ]
        + [
            (
                Case("random 1% + 6000/min sliding 60, headers", _refusing_beside_headers, 300),
                Goal(0.85, 0.06),
            )
        ]
    )


def _refusing_and(share: float, name: str, rate: float, seed: int) -> Server:
    return Random(share, 1.0, _of_a_minute(rate)[name], seed)


def _refusing_beside_headers(seed: int) -> Server:
    return Random(0.01, 1.0, Window(100.0, headers=True), seed)


_FALLS = [(0.0, 50.0), (200.0, 20.0), (400.0, 50.0)]
_GROWS = [(0.0, 20.0), (200.0, 120.0)]


def _changes() -> list[Line]:
    goal = Goal(0.85, 0.05)
    return [
        (Case("shared 6000/min sliding 60", lambda _: Shared(Window(100.0), 100.0), 600), Goal(0.85, 0.08)),
        (
            Case("shared 6000/min bucket 10s", lambda _: Shared(Bucket(100.0, 10.0), 100.0), 600),
            Goal(0.85, 0.08),
        ),
        (Case("3000/min falls to 40%, back, sliding 60", lambda _: Window(_FALLS), 600), goal),
        (Case("3000/min falls to 40%, back, bucket 10s", lambda _: Bucket(_FALLS, 10.0), 600), goal),
        (Case("1200/min grows sixfold, sliding 60", lambda _: Window(_GROWS), 400), goal),
        (Case("1200/min grows sixfold, bucket 10s", lambda _: Bucket(_GROWS, 10.0), 400), goal),
    ]


def _outages() -> list[Line]:
    inner = {
        "no limit": lambda _: Server(),
        "600/min sliding 60": lambda _: Window(10.0),
        "6000/min bucket 10s": lambda _: Bucket(100.0, 10.0),
        "6000/min fixed 1": lambda _: Window(100.0, 1.0, fixed=True),
        "8 concurrent": lambda _: Slots(8),
        "random 5%": lambda seed: _refusing(0.05, 1.0, seed),
        "random 20% + 600/min": lambda seed: _refusing_and(0.2, "sliding 60", 10.0, seed),
    }
    return [
        (
            Case(f"outage of 60 s: {name}", lambda seed, make=make: Outage(make(seed), 40.0, 60.0), 200),
            Goal(0.85, 0.3),
        )
        for name, make in inner.items()
    ]


def _growing_answers() -> Case:
    return Case(
        "200k tokens/min given, answers grow 30-fold",
        lambda _: Window(200_000 / 60, tokens=True),
        400,
        tokens_per_minute=200_000,
        tokens=lambda now: 10 if now < 200 else 300,
        worst_tokens=1_000,
    )
