"""flexllm with its client for the Messages API, without its limit on queries a second."""

import asyncio

from flexllm import LLMClient
from measured import measure


async def send_all(port: int, prompts: list[str], in_flight: int) -> int:
    async with LLMClient(
        provider="claude",
        model="abliterated-model",
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key="none",
        concurrency_limit=in_flight,
        max_qps=0,  # else 60 a second
    ) as client:
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        batch = await client.chat_batch(conversations, show_progress=False, max_tokens=64)
        return batch.success_count


measure(lambda port, prompts, in_flight: asyncio.run(send_all(port, prompts, in_flight)))
