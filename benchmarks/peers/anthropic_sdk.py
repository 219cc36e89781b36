"""The anthropic SDK with gather and a semaphore: what people write by hand."""

import asyncio

import anthropic
from measured import measure


async def send_all(port: int, prompts: list[str], in_flight: int) -> int:
    semaphore = asyncio.Semaphore(in_flight)

    async def ask(prompt: str) -> bool:
        async with semaphore:
            message = await client.messages.create(
                model="abliterated-model",
                max_tokens=64,
                messages=[{"role": "user", "content": prompt}],
            )
        return message.type == "message"

    async with anthropic.AsyncAnthropic(api_key="none", base_url=f"http://127.0.0.1:{port}") as client:
        return sum(await asyncio.gather(*map(ask, prompts)))


measure(lambda port, prompts, in_flight: asyncio.run(send_all(port, prompts, in_flight)))
