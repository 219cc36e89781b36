"""The frames between coordinator and worker: whole in any pieces, bounded, every value as it was."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.settings import EndpointSettings
from batchrun.exchange import (
    BillingStatus,
    CacheUsage,
    Completion,
    Failure,
    FailureAction,
    RateLimits,
    Response,
)
from batchrun.workers import frames

SOME_FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=20)


@given(SOME_FRAMES, st.integers(1, 400))
def test_frames_come_out_as_they_went_in_whatever_the_pieces(
    given_frames: list[tuple[int, bytes]], length: int
) -> None:
    stream = b"".join(frames.frame(kind, payload) for kind, payload in given_frames)
    reader = frames.FrameReader(300)
    pieces = [stream[start : start + length] for start in range(0, len(stream), length)]
    assert [found for piece in pieces for found in reader.feed(piece)] == given_frames


def test_a_frame_over_the_bound_is_refused_before_its_bytes_have_come() -> None:
    reader = frames.FrameReader(100)
    assert list(reader.feed(frames.frame(frames.BEAT, b"x" * 100))) == [(frames.BEAT, b"x" * 100)]
    with pytest.raises(frames.FrameError):
        list(reader.feed(frames.frame(frames.BEAT, b"x" * 101)[:5]))


def test_the_bound_may_change_between_two_frames_of_one_piece() -> None:
    reader = frames.FrameReader(10)
    found = []
    for kind, _ in reader.feed(frames.frame(1, b"x") + frames.frame(2, b"x" * 50)):
        found.append(kind)
        reader.most = 50
    assert found == [1, 2]


def test_a_response_keeps_every_value_on_its_way() -> None:
    limits = RateLimits(10, 9, 0.5, None, 100, None)
    completion = Completion(
        "text \U0001f600", "end_turn", None, "msg_1", "model", 3, 64, CacheUsage(1, 2, 1, 1)
    )
    response = Response(b'{"a": "\xff"}', 1, None, 2**62, 3, -4, 0.25, None, limits, completion)
    assert frames.decode_responses(frames.encode([(7, response), (8, response)])) == [
        (7, response),
        (8, response),
    ]


def test_a_failure_keeps_every_value_on_its_way() -> None:
    failure = Failure(
        "code", "a message", FailureAction.SLOW_DOWN, BillingStatus.NO, 429, 1.5, 0.1, RateLimits(1), True
    )
    assert frames.decode_failures(frames.encode([(7, failure)])) == [(7, failure)]


def test_the_settings_reach_the_worker_with_the_key() -> None:
    settings = EndpointSettings("https://a", "sk-key", "x-api-key", {"b": "c"}, 1.0, 2.0, 3, 4, True, True)
    assert frames.decode_welcome(frames.encode(frames.Welcome(settings, 5.0))).settings == settings


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_raise_nothing_but_value_errors(payload: bytes) -> None:
    for decode in (
        frames.decode_hello,
        frames.decode_welcome,
        frames.decode_requests,
        frames.decode_responses,
        frames.decode_failures,
        frames.decode_begun,
        frames.decode_fault,
        frames.decode_text,
        frames.decode_clock,
    ):
        try:
            decode(payload)
        except ValueError:
            continue


def test_a_hello_of_a_later_version_is_still_read() -> None:
    hello = frames.decode_hello(msgspec.msgpack.encode(["token", "99.0", "host", 1, "what comes later"]))
    assert (hello.token, hello.version) == ("token", "99.0")


def test_an_age_is_what_a_frame_took_longer_than_the_quickest() -> None:
    offset = frames.ClockOffset(theirs=1_000.0, ours=5.0)
    assert offset.age(1_010.0, 15.0) == pytest.approx(0.0)
    assert offset.age(1_011.0, 16.2) == pytest.approx(0.2)
    assert offset.age(1_012.0, 29.0) == pytest.approx(12.0)


def test_a_clock_that_drifts_makes_no_frame_look_old() -> None:
    offset = frames.ClockOffset(0.0, 0.0)
    drift = 1.001
    assert max(offset.age(float(second), second * drift) for second in range(100_000)) < 1


def test_frames_held_up_together_are_old_each_by_itself() -> None:
    offset = frames.ClockOffset(0.0, 0.0)
    for second in range(200):
        offset.age(float(second), float(second))
    assert [offset.age(200.0 + n, 500.0) for n in range(3)] == pytest.approx([300.0, 299.0, 298.0])


def test_the_largest_response_fits_into_a_frame_behind_others() -> None:
    settings = EndpointSettings("https://a", max_answer_bytes=10_000)
    body = b'{"text": "' + b"\xff" * 9_988 + b'"}'
    largest = Response(body, 1, 1, completion=Completion("\N{REPLACEMENT CHARACTER}" * 9_988))
    small = Response(b"x" * 100, 1, 1, completion=Completion("x" * 90))
    before = [(number, small) for number in range(frames.BATCH_BYTES // 200)]
    assert len(frames.encode([*before, (2**62, largest)])) <= frames.largest_responses(settings)


def test_the_largest_body_fits_into_a_frame_behind_others() -> None:
    before = [(number, True, b"x" * 40) for number in range(frames.BATCH_BYTES // 40)]
    others = len(frames.encode((1.0, [*before, (2**62, True, b"")])))
    assert others + frames.LARGEST_BODY <= frames.LARGEST_REQUESTS
