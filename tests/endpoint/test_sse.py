"""The reader of event streams against the WHATWG rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.client.sse import Event, EventReader


def read(*chunks: bytes) -> list[Event]:
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"data: a\n\n", [Event("message", "a")], id="unnamed"),
        pytest.param(b"event: x\ndata: a\n\n", [Event("x", "a")], id="named"),
        pytest.param(b"event: x\r\ndata: a\r\n\r\n", [Event("x", "a")], id="CRLF"),
        pytest.param(b"event: x\rdata: a\r\r", [Event("x", "a")], id="CR"),
        pytest.param(b"event: x\rdata: a\n\r\n", [Event("x", "a")], id="mixed line ends"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [Event("message", "a")], id="byte order mark"),
        pytest.param(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("message", "a")], id="no second mark"),
        pytest.param(b"data: a\ndata: b\n\n", [Event("message", "a\nb")], id="two lines of data"),
        pytest.param(b"data:a\ndata:  b\n\n", [Event("message", "a\n b")], id="one space is taken off"),
        pytest.param(b"data\ndata\n\n", [Event("message", "\n")], id="field without a colon"),
        pytest.param(b"data:\n\n", [Event("message", "")], id="empty data is data"),
        pytest.param(b": ping\n\n:\ndata: a\n\n", [Event("message", "a")], id="comments"),
        pytest.param(
            b"event: x\n\ndata: a\n\n", [Event("message", "a")], id="a name without data is dropped"
        ),
        pytest.param(b"id: 1\nretry: 5\nfoo: b\ndata: a\n\n", [Event("message", "a")], id="other fields"),
        pytest.param(b"Data: a\n\n", [], id="field names are case-sensitive"),
        pytest.param(b"event: x\nevent: y\ndata: a\n\n", [Event("y", "a")], id="the last name counts"),
        pytest.param(b"data: a: b\n\n", [Event("message", "a: b")], id="colons in values"),
        pytest.param(b"data: a\n", [], id="unfinished event"),
        pytest.param(b"data: a\n\ndata: b", [Event("message", "a")], id="unfinished line"),
        pytest.param(
            "data: 🙂\u2028é\n\n".encode(), [Event("message", "🙂\u2028é")], id="U+2028 ends no line"
        ),
    ],
)
def test_streams_are_read_by_the_rules_wherever_they_are_cut(stream: bytes, events: list[Event]) -> None:
    assert read(stream) == events
    assert read(*[stream[i : i + 1] for i in range(len(stream))]) == events
    for cut in range(len(stream)):
        assert read(stream[:cut], b"", stream[cut:]) == events


def test_event_that_ends_in_cr_is_not_held_back() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\r\r") == [Event("message", "a")]
    assert reader.feed(b"\ndata: b\r\n\r") == [Event("message", "b")]
    assert reader.feed(b"\n") == []


def test_bytes_that_are_not_utf8_are_kept_until_their_other_half_comes() -> None:
    assert [each.data.encode(errors="surrogateescape") for each in read(b"data: \xff\n\n")] == [b"\xff"]


@pytest.mark.parametrize("stream", [b"data: a\n", b"data: a", b"event: message\ndata: a\r\n"])
def test_an_event_that_the_end_cuts_off_can_be_had(stream: bytes) -> None:
    reader = EventReader()
    assert reader.feed(stream) == []
    assert (reader.rest(), reader.rest()) == (Event("message", "a"), None)


LINES = st.sampled_from(
    [
        b"data: a",
        b"data",
        b"event: x",
        b": c",
        b"",
        b"\n",
        b"\r",
        b"\r\n",
        b"\xef\xbb\xbf",
        "é".encode(),
        b"\xff",
    ]
)


@given(st.lists(LINES | st.binary(max_size=4)).map(b"".join), st.data())
def test_events_do_not_depend_on_the_cuts(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = read(stream)
    assert read(*chunks) == whole
