"""The Python client: async, typed, and calm when the connection is not.

    async with Client("127.0.0.1:50051") as client:
        submitted = await client.submit(Path("digest.alt").read_bytes())
        async for event in client.watch(submitted.job.job_id):
            print(event.sequence, event.WhichOneof("event"))
        record = await client.record(submitted.job.job_id)

Messages are those of `altrunner.v1`, whose `.proto` files document every field.
"""

from runner.client.client import Client
from runner.client.errors import CallRefused, ClientError, StreamBroken, Unreachable

__all__ = ["CallRefused", "Client", "ClientError", "StreamBroken", "Unreachable"]
