"""The yardstick: nothing but the requests, by the fastest HTTP client, on the event loop of batchrun."""

import asyncio
import json

import uvloop
from measured import measure
from pyreqwest.client import ClientBuilder


async def send_all(port: int, prompts: list[str], in_flight: int) -> int:
    url = f"http://127.0.0.1:{port}/v1/messages"
    waiting = iter(prompts)
    answers = 0

    async def work() -> None:
        nonlocal answers
        for prompt in waiting:
            body = {
                "model": "abliterated-model",
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": 64,
            }
            request = client.post(url).header("content-type", "application/json")
            response = await request.body_bytes(json.dumps(body).encode()).build().send()
            answers += json.loads((await response.bytes()).to_bytes())["type"] == "message"

    async with ClientBuilder().http1_only().pool_max_idle_per_host(in_flight).build() as client:
        await asyncio.gather(*[work() for _ in range(in_flight)])
    return answers


measure(lambda port, prompts, in_flight: uvloop.run(send_all(port, prompts, in_flight)))
