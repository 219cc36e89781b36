"""async-batch-llm with its own client for servers that speak OpenAI's protocol."""

import asyncio

from async_batch_llm import llm, process_prompts
from measured import measure


async def send_all(port: int, prompts: list[str], in_flight: int) -> int:
    model = llm("openai-compatible:abliterated-model", base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    batch = await process_prompts(model, prompts, concurrency=in_flight)
    return sum(result.success for result in batch.results)


measure(lambda port, prompts, in_flight: asyncio.run(send_all(port, prompts, in_flight)))
