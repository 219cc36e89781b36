"""What a row's labelling needs of an answer."""

from batchrun.labelling import Reply
from batchrun.wire.messages import answer_text, decode_message


def read_reply(answer: bytes, run: int) -> Reply:
    """The reply in the body of an answer that a run has got. Raises MessageError where it is no message."""
    message = decode_message(answer)
    return Reply(answer_text(message), message.stop_reason == "max_tokens", run)
