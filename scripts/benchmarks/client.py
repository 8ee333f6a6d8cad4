"""One process of the load generator that stands in for h2load. `python -m scripts.benchmarks.client ORDER`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import grpc.aio
import msgspec

from scripts.benchmarks.load import Order, Report


async def carry_out(order: Order, body: bytes) -> Report:
    """Make the calls. Raises AioRpcError: if one of them fails."""
    took, left = [], order.count
    async with grpc.aio.insecure_channel(order.target) as channel:
        await channel.channel_ready()
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(order.method)

        async def caller() -> None:
            nonlocal left
            while left:
                left -= 1
                began = time.perf_counter()
                await call(body)
                took.append(time.perf_counter() - began)

        began = time.monotonic()
        async with asyncio.TaskGroup() as callers:
            for _ in range(order.in_flight):
                callers.create_task(caller())
        return Report(began, time.monotonic(), tuple(took))


if __name__ == "__main__":
    order = msgspec.json.decode(sys.argv[1], type=Order)
    report = asyncio.run(carry_out(order, Path(order.body).read_bytes()))
    sys.stdout.write(msgspec.json.encode(report).decode())
