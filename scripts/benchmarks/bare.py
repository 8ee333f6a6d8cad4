"""The other side: a grpc.aio server whose handlers do next to nothing. `python -m scripts.benchmarks.bare DATABASE`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from scripts.benchmarks.durable import DurableLoop

SERVICE: Final = "bench.Bare"
EMPTY: Final = f"/{SERVICE}/Empty"
COMMIT: Final = f"/{SERVICE}/Commit"
ONE: Final = f"/{SERVICE}/One"

_Context = grpc.aio.ServicerContext[bytes, bytes]


async def serve(database: Path) -> None:
    """Serve until killed; tell the address on standard output as the daemon does."""
    with DurableLoop(database) as loop:

        async def empty(_: bytes, __: _Context) -> bytes:
            return b""

        async def commit(_: bytes, __: _Context) -> bytes:
            loop.commit()
            return b""

        async def one(_: bytes, __: _Context) -> AsyncIterator[bytes]:
            yield b""

        # Without serialisers, not even protobuf stands between the handler and the wire.
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Empty": grpc.unary_unary_rpc_method_handler(empty),
            "Commit": grpc.unary_unary_rpc_method_handler(commit),
            "One": grpc.unary_stream_rpc_method_handler(one),
        }
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(json.dumps({"grpc": f"127.0.0.1:{port}"}), flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
