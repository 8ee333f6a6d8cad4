"""The other side of P8: aiohttp, and nothing else, calls an orchestrator. `python -m scripts.benchmarks.caller ORDER`.

Tells its rate on standard output when it is done.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import msgspec
import uvloop


class Order(msgspec.Struct, frozen=True):
    """What is to be called, and how often."""

    url: str
    count: int
    in_flight: int


async def rate(order: Order) -> float:
    """Calls a second, all answered. Raises ClientError: if one is not."""
    left = order.count
    body = msgspec.json.encode({"request_id": "bare", "prompt": "How are you?"})
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:

        async def caller() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                headers = {"Content-Type": "application/json"}
                async with session.post(f"{order.url}/api/v1/generate", data=body, headers=headers) as response:
                    msgspec.json.decode(await response.read())

        began = time.perf_counter()
        async with asyncio.TaskGroup() as callers:
            for _ in range(order.in_flight):
                callers.create_task(caller())
        return order.count / (time.perf_counter() - began)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        print(json.dumps(loop.run(rate(msgspec.json.decode(sys.argv[1], type=Order)))))
