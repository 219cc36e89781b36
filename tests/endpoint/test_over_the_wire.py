"""The tables of odd bodies and of refusals, as a raw server sends them."""

from dataclasses import replace

import pytest

from .cases import CASES, Case
from .refusals import REFUSALS, Refusal
from .test_cases import check
from .wire_server import always, answer_from, failure_from, once, response

pytestmark = pytest.mark.anyio

JSON, EVENTS = b"content-type: application/json\r\n", b"content-type: text/event-stream\r\n"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_an_odd_body_is_read_and_booked(case: Case, stream: bool) -> None:
    for headers in (JSON, EVENTS):
        script = always(response(case.body, headers))
        if case.text is None:
            failure = await failure_from(script, stream=stream)
            assert failure.action != "stop_run"
            assert "yes" not in failure.message
        else:
            check(case, await answer_from(script, stream=stream))


@pytest.mark.parametrize("case", [case for case in CASES if case.text], ids=lambda case: case.name)
async def test_a_whole_message_counts_whatever_its_framing_says(case: Case) -> None:
    too_long = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (JSON, len(case.body) + 50, case.body)
    unended = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (
        len(case.body),
        case.body,
    )
    for raw in (too_long, unended):
        check(case, await answer_from(once(raw)))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
async def test_a_refusal_is_whose_fault_it_is(refusal: Refusal, stream: bool) -> None:
    failure = await failure_from(
        always(response(refusal.body, refusal.headers, refusal.status)), stream=stream
    )
    assert (failure.action, failure.billing) == (refusal.action, refusal.billing)


@pytest.mark.parametrize(
    "refusal", [case for case in REFUSALS if case.name.startswith("200: ")], ids=lambda case: case.name
)
async def test_an_error_event_is_its_types(refusal: Refusal) -> None:
    event = replace(refusal, body=b"event: error\ndata: " + refusal.body + b"\n\n")
    failure = await failure_from(always(response(event.body, EVENTS)), stream=True)
    assert failure.action == refusal.action
