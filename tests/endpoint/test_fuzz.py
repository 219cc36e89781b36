"""Some hundred cases of `fuzz`; `make prove` runs a million others."""

import asyncio

import pytest

from batchrun.exchange import Response

from . import fuzz


def test_no_bytes_and_no_cuts_make_a_partial_answer_or_an_exception() -> None:
    async def check() -> None:
        for number in range(600):
            try:
                fuzz.check_case(number)
            except Exception as error:
                error.add_note(f"case {number}")
                raise

    asyncio.run(check())


@pytest.mark.parametrize("is_reused", [False, True])
def test_answer_that_came_with_a_cancellation_is_kept_and_the_next_exchange_too(is_reused: bool) -> None:
    async def check() -> None:
        pool = fuzz.Pool()
        connection = fuzz.connection(pool)
        reader, ended = fuzz.sent(connection, 1)
        connection.data_received(fuzz.answer(1))
        assert reader.outcome is not None
        if is_reused:
            other, still_running = fuzz.sent(connection, 2)
        assert connection.cut_short(ended)
        if is_reused:
            connection.data_received(fuzz.answer(2))
            assert isinstance(other.outcome, Response)
            assert still_running.done()

    asyncio.run(check())


def test_cancelled_exchange_leaves_a_closed_connection() -> None:
    async def check() -> None:
        connection = fuzz.connection(fuzz.Pool())
        reader, ended = fuzz.sent(connection, 1)
        connection.data_received(fuzz.answer(1)[:-1])
        assert not connection.cut_short(ended)
        assert connection.closed
        assert reader.outcome is None

    asyncio.run(check())


def test_bytes_before_any_request_close_the_connection() -> None:
    async def check() -> None:
        connection = fuzz.connection(fuzz.Pool())
        connection.data_received(b"220 ready\r\n")
        assert not connection.is_usable()

    asyncio.run(check())


def test_a_partial_answer_that_is_accepted_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = fuzz.message(1).replace(b"end", b"", 1)
    monkeypatch.setattr(fuzz, "_framed", lambda *_: b"HTTP/1.1 200 OK\r\n\r\n" + cut)

    async def check() -> None:
        for number in range(600):
            fuzz.check_case(number)

    with pytest.raises(AssertionError):
        asyncio.run(check())
