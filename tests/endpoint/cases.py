"""What servers send in the place of a plain message, and what is right. A new case is a line in `CASES`.

A case is a body as it comes, its text (None: broken, to be sent again), and the tokens and nano-USD that it
is booked at. The request behind it had 96 bytes and max_tokens 100, at 5 USD per million tokens.
"""

import json
from dataclasses import dataclass

from batchrun.amounts import Amount
from batchrun.engine.pricing import PriceList

from .test_streaming import BLOCK, START, event

PRICES = PriceList(5 * 10**9, 5 * 10**9)
RESERVED = PRICES.worst_case(96, 100)
BROKEN = None


@dataclass(frozen=True)
class Case:
    name: str
    body: bytes
    text: str | None = "yes"
    tokens: tuple[int | None, int | None] = (20, 5)
    booked: Amount = Amount(125_000, 0, 25, 1)  # noqa: RUF009  # frozen


PLAIN = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "yes"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 20, "output_tokens": 5},
}
NO_TOKENS = {"input_tokens": 0, "output_tokens": 0}
THOUGHT = {"type": "thinking", "thinking": "no"}
REPLACED = "\N{REPLACEMENT CHARACTER}"
SMILE = "\U0001f642"
GOOD = {"type": "text", "text": "yes"}
AT_RESERVATION = Amount(RESERVED.nano_usd, RESERVED.credits, RESERVED.tokens, 1)


def plain(**changes: object) -> bytes:
    return json.dumps({**PLAIN, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in PLAIN.items() if key != name}).encode()


def usage(name: str, counts: object, tokens: tuple[int | None, int | None]) -> Case:
    return Case(f"usage: {name}", plain(usage=counts), tokens=tokens, booked=AT_RESERVATION)


def cost(stated: str, nano_usd: int = 125_000) -> Case:
    body = plain()[:-1] + b', "estimated_cost_usd": ' + stated.encode() + b"}"
    return Case(f"cost: {stated}", body, booked=Amount(nano_usd, 0, 25, 1))


def blocks(name: str, *content: object) -> Case:
    return Case(f"blocks: {name}", plain(content=list(content)))


def stream(name: str, *events: bytes, **expected: object) -> Case:
    return Case(f"stream: {name}", b"".join(events), **{"tokens": (14, 5), "booked": _at(14, 5), **expected})  # type: ignore[arg-type]


def _at(input_tokens: int, output_tokens: int) -> Amount:
    tokens = input_tokens + output_tokens
    return Amount(tokens * 5_000, 0, tokens, 1)


def text(piece: object, index: object = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})


def end(*counts: object, reason: str = "end_turn") -> bytes:
    stops = event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": counts[-1]})
    return b"".join([event("message_delta", usage={"output_tokens": n}) for n in counts[:-1]]) + stops


STOP = event("message_stop")
ERROR = event("error", error={"type": "x"})
NULL_BLOCK = event("content_block_start", index=0, content_block=None)
OUTPUT_TEXT = event("content_block_start", index=0, content_block={"type": "output_text", "text": ""})
THINKING = event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""})
NO_START = event("message_start", message={**PLAIN, "content": [], "usage": NO_TOKENS})
RAW_HALVES = [
    b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": '
    b'{"type": "text_delta", "text": "' + half + b'"}}\n\n'
    for half in (b"\xf0\x9f", b"\x99\x82")
]

CASES = [
    Case("plain", plain()),
    Case("usage: floats", plain(usage={"input_tokens": 20.0, "output_tokens": 5.0})),
    Case("usage: fractions", plain(usage={"input_tokens": 19.2, "output_tokens": 4.5})),
    Case("usage: words", plain(usage={"input_tokens": "20", "output_tokens": " 5 "})),
    Case("usage: an odd detail", plain(usage={**PLAIN["usage"], "service_tier": {"x": [None]}})),  # type: ignore[dict-item]
    usage("negative input", {"input_tokens": -3, "output_tokens": 5}, (None, 5)),
    usage("negative output", {"input_tokens": 20, "output_tokens": -1}, (20, None)),
    usage("true", {"input_tokens": True, "output_tokens": 5}, (None, 5)),
    usage("prose", {"input_tokens": "many", "output_tokens": 5}, (None, 5)),
    usage("absurd", {"input_tokens": 10**400, "output_tokens": 5}, (None, 5)),
    usage("a list", [20, 5], (None, None)),
    usage("text", "20 + 5", (None, None)),
    usage("null", None, (None, None)),
    usage("a cache read in words", {**PLAIN["usage"], "cache_read_input_tokens": "hit"}, (None, 5)),  # type: ignore[dict-item]
    usage("zeros", {"input_tokens": 0, "output_tokens": 0}, (None, None)),
    usage("no input", {"input_tokens": 0, "output_tokens": 5}, (None, 5)),
    usage("no output", {"input_tokens": 20, "output_tokens": 0}, (20, None)),
    usage("empty", {}, (None, None)),
    usage("missing", None, (None, None)),
    *(cost(stated) for stated in ("0", "0.0", "-0.0", "1e-30")),
    *(cost(stated) for stated in ('"free"', "-1", "true", "NaN", "1e400", "Infinity", "[]", "null", '""')),
    cost("0.0004", 400_000),
    cost('"0.0004"', 400_000),
    Case("credits in words", plain(estimated_credits_used="one", remaining_credits={"left": 5})),
    Case("id: a number", plain(id=12345)),
    Case("id: an object", plain(id={"x": 1})),
    Case("model: a list", plain(model=["m"])),
    Case("stop reason: a number", plain(stop_reason=5)),
    Case("stop reason: a list", plain(stop_reason=["end_turn"])),
    Case("content: a string", plain(content="yes")),
    Case("content: one object", plain(content=GOOD)),
    Case("content: strings", plain(content=["yes"])),
    Case("content: none", plain(content=[]), text=""),
    Case("content: null", plain(content=None), text=""),
    Case("content: missing", without("content"), text=BROKEN),
    Case("content: a number", plain(content=5), text=BROKEN),
    blocks("null", None, GOOD),
    blocks("untyped", {"x": 1}, GOOD),
    blocks("untyped with text", {"text": "no"}, GOOD),
    blocks("type of another type", {"type": 5, "text": "no"}, GOOD),
    blocks("unknown", {"type": "new", "text": "no"}, GOOD),
    blocks("text of null", {"type": "text", "text": None}, GOOD),
    blocks("text of another type", GOOD, {"type": "text", "text": 5}),
    blocks("a number", 7, GOOD),
    blocks("output_text", {"type": "output_text", "text": "yes"}),
    blocks("output_text after thinking", THOUGHT, {"type": "output_text", "text": "yes"}),
    blocks("all untyped", {"text": "yes"}),
    Case("only thinking", plain(content=[{"type": "thinking", "thinking": "no"}]), text=""),
    Case("only a text of null", plain(content=[{"type": "text", "text": None}]), text=BROKEN),
    Case("type: missing", without("type")),
    Case("type: null", plain(type=None)),
    Case("type: another", plain(type="completion")),
    Case("type: error", plain(type="error"), text=BROKEN),
    Case("tail: line breaks", b"\r\n" + plain() + b"\n\n"),
    Case("tail: byte order mark", b"\xef\xbb\xbf" + plain()),
    Case("tail: garbage", plain() + b"garbage"),
    Case("tail: garbage around", b"garbage" + plain() + b"}garbage"),
    Case("tail: twice", plain() + plain(id="msg_2")),
    Case("tail: NULs", plain() + b"\0\0"),
    Case("UTF-16", json.dumps(PLAIN).encode("utf-16")),
    Case("NaN in a field", plain()[:-1] + b', "x": NaN, "y": [-Infinity, 1e999]}'),
    Case("a string that is not UTF-8", plain().replace(b"yes", b"y\xffs"), text=f"y{REPLACED}s"),
    Case("a field that is not UTF-8", plain().replace(b'"m"', b'"\xe9"')),
    Case("a control character", plain().replace(b"yes", b"y\ne\x01s"), text="y\ne\x01s"),
    Case("half a surrogate pair", plain().replace(b"yes", b"\\ud83dyes"), text=f"{REPLACED}yes"),
    Case("cut in half", plain()[: len(plain()) // 2], text=BROKEN),
    Case("cut before its last brace", plain()[:-1], text=BROKEN),
    Case("cut, with a message inside", b'{"a": {"content": "no", "b": ' + plain()[:-3], text=BROKEN),
    Case("another object", b'{"ok": true}', text=BROKEN),
    Case("a page", b"<html>" + plain() + b"</html>"),
    Case("a page without", b"<html><body>busy</body></html>", text=BROKEN),
    Case("nothing", b"", text=BROKEN),
    Case("blanks", b" \r\n", text=BROKEN),
    stream("plain", START, BLOCK, text("yes"), end(5), STOP),
    stream("without message_stop", START, BLOCK, text("yes"), end(5)),
    stream("with half of message_stop", START, BLOCK, text("yes"), end(5), STOP[:20]),
    stream("garbage at its end", START, BLOCK, text("yes"), end(5), b"data: {garbage\n\n"),
    stream("an error at its end", START, BLOCK, text("yes"), end(5), ERROR),
    stream("without its last blank line", START, BLOCK, text("yes"), end(5)[:-1]),
    stream("closed before message_delta", START, BLOCK, text("yes"), text=BROKEN),
    stream("closed within message_delta", START, BLOCK, text("yes"), end(5)[:-4], text=BROKEN),
    stream("an error in its midst", START, BLOCK, text("y"), ERROR, end(5), text=BROKEN),
    stream("a lost piece", START, BLOCK, text("y"), b"data: {\n\n", text("es"), end(5), text=BROKEN),
    stream("without block start", START, text("yes"), end(5)),
    stream("a block of null", START, NULL_BLOCK, text("yes"), end(5)),
    stream("without indexes", START, event("content_block_start", content_block=GOOD | {"text": ""}),
           text("y", None), text("es", None), end(5)),
    stream("one index for two blocks", START, THINKING,
           event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "no"}),
           event("content_block_stop", index=0), BLOCK, text("yes"), end(5)),
    stream("text in a thinking block's index", START, THINKING,
           event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "no"}),
           text("yes"), end(5)),
    stream("pieces of null", START, BLOCK, text(None), text("yes"), end(5)),
    stream("output_text", START, OUTPUT_TEXT, text("yes"), end(5)),
    stream("a pair split over two deltas", START, BLOCK, text("\ud83d"), text("\ude42"), end(5), text=SMILE),
    stream("a character split over two deltas", START, BLOCK, *RAW_HALVES, end(5), text=SMILE),
    stream("a byte order mark", b"\xef\xbb\xbf", START, BLOCK, text("yes"), end(5)),
    stream("usage in words", START, BLOCK, text("yes"), end("5")),
    stream("a float", START, BLOCK, text("yes"), end(5.0)),
    stream("no final count", START, BLOCK, text("yes"), end(None), tokens=(14, None), booked=AT_RESERVATION),
    stream("a final count of 0", START, BLOCK, text("yes"), end(0), tokens=(14, None), booked=AT_RESERVATION),
    stream("zeros", NO_START, BLOCK, text("yes"), end(0), tokens=(None, None), booked=AT_RESERVATION),
    stream("a cost of 0", START, BLOCK, text("yes"), event("message_delta", estimated_cost_usd=0), end(5)),
    stream("counts that grow", START, BLOCK, text("yes"), end(1, 3, 5)),
    stream("counts that stay", START, BLOCK, text("yes"), end(5, 5)),
    stream("counts of pieces", START, BLOCK, text("yes"), end(2, 1, 2)),
    stream("counts of pieces in words", START, BLOCK, text("yes"), end("2", 1.0, "2")),
    stream("a total, then zeros", START, BLOCK, text("yes"), end(3, 5, 0)),
    stream("no start", BLOCK, text("yes"), end(5), tokens=(None, 5), booked=AT_RESERVATION),
]  # fmt: skip
