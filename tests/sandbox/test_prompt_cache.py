"""Prompt caching: what is read and written, and what it costs."""

from typing import Any

import pytest

from batchrun.sandbox.bill import charge_for
from batchrun.sandbox.prompt_cache import NO_CACHE, CacheMark, CacheUse, PromptCache
from tests.sandbox.conftest import Start, body

MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def block(text: str, mark: dict[str, Any] | None = None) -> dict[str, Any]:
    plain = {"type": "text", "text": text}
    return plain if mark is None else {**plain, "cache_control": mark}


def marks(*given: tuple[bytes, int, Any]) -> list[CacheMark]:
    return [CacheMark(*one) for one in given]


def test_a_prefix_is_written_once_and_read_until_its_lifetime_ends() -> None:
    cache, both = PromptCache(), marks((b"a", 100, "1h"), (b"b", 150, "5m"))
    assert cache.look_up(both, 0.0) == CacheUse(0, 50, 100)
    cache.keep(both, 0.0, begins=2.0)
    assert cache.look_up(both, 1.0) == CacheUse(0, 50, 100), "the response has not begun"
    assert cache.look_up(both, 2.0) == CacheUse(150)
    assert cache.look_up(both, 301.9) == CacheUse(150)
    assert cache.look_up(both, 302.0) == CacheUse(100, 50)
    assert cache.look_up(both, 3_602.0) == CacheUse(0, 50, 100)
    assert cache.look_up(marks((b"a", 100, "1h"), (b"c", 130, "5m")), 2.0) == CacheUse(100, 30)


def test_a_read_makes_it_last_and_a_later_writer_does_not_delay_it() -> None:
    cache, one = PromptCache(), marks((b"a", 100, "5m"))
    cache.keep(one, 0.0, begins=1.0)
    cache.keep(one, 0.5, begins=9.0)
    assert cache.look_up(one, 1.0).read == 100
    cache.keep(one, 250.0, begins=251.0)
    assert cache.look_up(one, 550.0).read == 100


def test_prices_by_kind() -> None:
    assert charge_for(100, 10, CacheUse(20, 30, 40)).nano_usd == (
        (10 + 10) * 5_000 + 20 * 500 + 30 * 6_250 + 40 * 10_000
    )
    assert charge_for(100, 10) == charge_for(100, 10, NO_CACHE)


def usage_of(answer: Any) -> tuple[int, int, int, int]:
    usage = answer.json()["usage"]
    by_lifetime = usage["cache_creation"]
    written = by_lifetime["ephemeral_5m_input_tokens"], by_lifetime["ephemeral_1h_input_tokens"]
    assert usage["cache_creation_input_tokens"] == sum(written)
    return usage["input_tokens"], usage["cache_read_input_tokens"], *written


def test_bodies_that_share_a_marked_beginning(start: Start) -> None:
    sandbox = start(replies=None)
    system = [block("You label reviews."), block("One word.", HOUR)]
    plain = sandbox.ask(body("good", system=[block("You label reviews."), block("One word.")])).json()[
        "usage"
    ]
    assert plain.keys() == {"input_tokens", "output_tokens"}
    marked = 3 + 3 + 5 + 3  # the request, the system prompt's framing, and its tokens
    assert usage_of(sandbox.ask(body("good", system=system))) == (
        plain["input_tokens"] - marked,
        0,
        0,
        marked,
    )
    assert usage_of(sandbox.ask(body("bad", system=system)))[1:] == (marked, 0, 0)
    assert usage_of(sandbox.ask(body("bad", system=system), key="another"))[1:] == (0, 0, marked)
    total = sandbox.total()
    assert (total["cache_read_tokens"], total["cache_write_tokens"]) == (marked, 2 * marked)
    costs = (total["input_tokens"] + total["output_tokens"] - 3 * marked) * 5_000
    assert total["nano_usd"] == costs + marked * 500 + 2 * marked * 10_000


def test_a_mark_at_the_top_stands_for_the_whole_prompt(start: Start) -> None:
    sandbox = start()
    first = usage_of(sandbox.ask(body("Hello there.", cache_control=MARK)))
    assert first[:2] == (0, 0)
    assert usage_of(sandbox.ask(body("Hello there.", cache_control=MARK, max_tokens=3))) == (
        0,
        first[2],
        0,
        0,
    )


@pytest.mark.parametrize("mark", [{"type": "ephemeral", "ttl": "2h"}, {"type": "eternal"}, {}])
def test_a_mark_that_is_not_one_is_refused(start: Start, mark: dict[str, Any]) -> None:
    answer = start().ask(body("a", system=[block("b", mark)]))
    assert answer.status_code == 400
    assert "system.0.cache_control" in answer.json()["error"]["message"]
