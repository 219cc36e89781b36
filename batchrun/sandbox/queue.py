"""Requests that wait for the one model: answered one after the other, in the order in which they came."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from starlette.types import Receive

from batchrun.sandbox.delivery import until_disconnected
from batchrun.sandbox.errors import Rejection
from batchrun.sandbox.model import MODEL_NAME, Generation, Model
from batchrun.sandbox.payload import Prompt
from batchrun.sandbox.provider import Accepted, Provider, Response


class ModelQueue:
    """Puts a provider's keys, credits, limits and bill in front of a model."""

    def __init__(self, provider: Provider, model: Model) -> None:
        self._provider = provider
        self._model = model
        self._turn = asyncio.Lock()

    async def respond(
        self, headers: Mapping[bytes, bytes], body: bytes | None, receive: Receive
    ) -> Response | None:
        """The answer to an arriving request, in the bill already; None where the client didn't wait."""
        accepted = self._provider.receive(headers, body)
        if isinstance(accepted, Response):
            return accepted
        disconnection = asyncio.create_task(until_disconnected(receive))
        try:
            async with self._turn:
                if disconnection.done():
                    self._provider.abandon(accepted)
                    return None
                return await self._answer(accepted)
        finally:
            disconnection.cancel()

    async def _answer(self, accepted: Accepted) -> Response:
        try:
            # Before the model works for nothing; once the answer's tokens are known, `answer` checks again.
            self._provider.check_admission(accepted)
            generation = await self._generate(accepted.prompt)
        except Rejection as rejection:
            return self._provider.reject(accepted, rejection)
        prompt = replace(
            accepted.prompt, model=MODEL_NAME, input_tokens=generation.input_tokens, cache_marks=()
        )
        return self._provider.answer(replace(accepted, prompt=prompt), generation.completion)

    async def _generate(self, prompt: Prompt) -> Generation:
        try:
            return await asyncio.to_thread(self._model.generate, prompt, self._provider.max_tokens(prompt))
        except asyncio.CancelledError:
            # The server ends, and would wait for the thread.
            self._model.stop()
            raise
