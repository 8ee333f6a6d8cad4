"""A client that has nothing but the address: what grpcurl does."""

from __future__ import annotations

import json
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2

pytestmark = pytest.mark.anyio

DESCRIPTOR = {
    "id": "reflected",
    "version": "1.0",
    "title": "Sent by a client without stubs",
    "created_at": "2026-01-01T00:00:00Z",
    "tasks": [{"id": "only", "description": "the only task"}],
}


class Reflected:
    """Learns a server's services from the server."""

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._channel = channel
        self._ask: Any = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self._pool = descriptor_pool.DescriptorPool()

    async def services(self) -> set[str]:
        answer = await self._answer(reflection_pb2.ServerReflectionRequest(list_services=""))
        return {service.name for service in answer.list_services_response.service}

    async def learn(self, symbol: str) -> None:
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        await self._add((await self._answer(asked)).file_descriptor_response.file_descriptor_proto)

    async def _add(self, files: list[bytes]) -> None:
        for data in files:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            for name in file.dependency:
                asked = reflection_pb2.ServerReflectionRequest(file_by_filename=name)
                await self._add((await self._answer(asked)).file_descriptor_response.file_descriptor_proto)
            self._pool.Add(file)

    async def _answer(self, request: Any) -> Any:
        call = self._ask(iter([request]))
        return await call.read()

    def message(self, name: str) -> type[Message]:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def method(self, name: str, *, stream: bool) -> Any:
        found = self._pool.FindServiceByName("altrunner.v1.JobService").FindMethodByName(name)
        make = self._channel.unary_stream if stream else self._channel.unary_unary
        return make(
            f"/altrunner.v1.JobService/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(found.output_type).FromString,
        )


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_a_client_with_only_the_address_submits_and_watches_to_the_end(daemon: Any, version: str) -> None:
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        server = Reflected(channel, version)
        assert {"altrunner.v1.JobService", "grpc.health.v1.Health"} <= await server.services()
        await server.learn("altrunner.v1.JobService")
        submit: Any = server.message("altrunner.v1.SubmitJobRequest")
        watch: Any = server.message("altrunner.v1.WatchJobRequest")
        accepted = await server.method("SubmitJob", stream=False)(submit(descriptor=json.dumps(DESCRIPTOR).encode()))
        kinds = [
            event.WhichOneof("event")
            async for response in server.method("WatchJob", stream=True)(watch(job_id=accepted.job.job_id))
            for event in response.events
        ]
        assert (kinds[0], kinds[-1]) == ("job_accepted", "job_succeeded")
