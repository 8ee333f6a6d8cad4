"""The Python client: async, typed, and calm when the connection is not.

    async with Client("127.0.0.1:50051") as client:
        submitted = await client.submit(Path("digest.alt").read_bytes())
        async for event in client.watch(submitted.job.job_id):
            print(event.sequence, event.WhichOneof("event"))
        record = await client.record(submitted.job.job_id)

A server that is an endpoint for the daemon's AI tasks announces itself, and is called for as long as it is there:

    async with client.register("gpu-7", group="gpus", url="http://10.0.0.7:8080"):
        await serve()

Messages are those of `altrunner.v1`, whose `.proto` files document every field.
"""

from runner.client.client import Client
from runner.client.errors import CallRefused, ClientError, StreamBroken, Unreachable

__all__ = ["CallRefused", "Client", "ClientError", "StreamBroken", "Unreachable"]
