"""The gRPC server: its methods, health, reflection, limits and ports."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import msgspec
from altrunner.v1 import admin_service_pb2 as admin_messages
from altrunner.v1 import job_service_pb2 as messages
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from runner.core.errors import RunnerError
from runner.engine.runner import Runner
from runner.ports import Clock, Fleet, Observer
from runner.rpc import calls
from runner.rpc.admin import AdminServicer
from runner.rpc.service import JobServicer

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

SERVICE: Final = messages.DESCRIPTOR.services_by_name["JobService"].full_name
ADMIN_SERVICE: Final = admin_messages.DESCRIPTOR.services_by_name["AdminService"].full_name
SERVICES: Final = (SERVICE, ADMIN_SERVICE)
#: v1 has the same messages as v1alpha under another name; grpcio-reflection ships the older name only.
REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"
#: Where the words of a method's name meet.
_SMALL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set about the gRPC port."""

    host: str
    #: 0 takes a free one.
    port: int
    max_message_bytes: int
    heartbeat_seconds: float
    #: 0: never.
    max_connection_age_seconds: float
    max_connection_age_grace_seconds: float
    reflection: bool
    #: Path of a socket to listen at instead, which the permissions of its directory guard; empty: none.
    socket: str = ""


class PortTaken(RunnerError):
    """The address cannot be listened on."""

    def __init__(self, address: str, why: str) -> None:
        self.address = address
        super().__init__(
            f"cannot listen on {address}: {why}; is another daemon running? Set `grpc.port` to use another port"
        )


class Server:
    """A listening server."""

    def __init__(
        self,
        server: grpc.aio.Server,
        address: str,
        port: int,
        health_servicer: health.aio.HealthServicer,
        admin: AdminServicer,
    ) -> None:
        self._server = server
        self._health = health_servicer
        self._admin = admin
        #: What clients call it: `host:port`, or `unix:PATH`.
        self.address = address
        self.port = port

    async def set_serving(self, *, serving: bool) -> None:
        """What `grpc.health.v1` answers, overall and for each service."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self._health.set(service, status)

    async def stop(self, *, grace: float) -> None:
        """Refuse new calls; give those under way `grace` seconds. Watchers of the fleet are sent away at once."""
        self._admin.close()
        await self._server.stop(grace)


@asynccontextmanager
async def listening(
    runner: Runner, options: ServerOptions, *, clock: Clock, observer: Observer, fleet: Fleet
) -> AsyncIterator[Server]:
    """A server that listens inside the context; NOT_SERVING until told otherwise.

    Raises PortTaken: if it cannot.
    """
    server = grpc.aio.server(options=_channel_options(options))
    servicer = JobServicer(runner, clock, heartbeat=options.heartbeat_seconds)
    admin = AdminServicer(fleet, clock, heartbeat=options.heartbeat_seconds)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE, _methods(servicer, observer)),
            grpc.method_handlers_generic_handler(ADMIN_SERVICE, admin_methods(admin, observer)),
        )
    )
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if options.reflection:
        _add_reflection(server)
    address = f"unix:{options.socket}" if options.socket else f"{options.host}:{options.port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortTaken(address, "the address is taken or not ours") from error
    listener = Server(server, address if options.socket else f"{options.host}:{port}", port, health_servicer, admin)
    await listener.set_serving(serving=False)
    await server.start()
    try:
        yield listener
    finally:
        await server.stop(0)


def _unary(method: Any, request: type, response: type, observer: Observer) -> Handler:
    return grpc.unary_unary_rpc_method_handler(
        calls.unary(method, observer),
        request_deserializer=request.FromString,  # type: ignore[attr-defined]  # every message has it
        response_serializer=response.SerializeToString,  # type: ignore[attr-defined]
    )


def _stream(method: Any, request: type, serialize: Callable[[Any], bytes], observer: Observer) -> Handler:
    return grpc.unary_stream_rpc_method_handler(
        calls.stream(method, observer),
        request_deserializer=request.FromString,  # type: ignore[attr-defined]
        response_serializer=serialize,
    )


def _methods(servicer: JobServicer, observer: Observer) -> dict[str, Handler]:
    unary, stream = functools.partial(_unary, observer=observer), functools.partial(_stream, observer=observer)
    return {
        "SubmitJob": unary(servicer.submit_job, messages.SubmitJobRequest, messages.SubmitJobResponse),
        "BatchSubmitJobs": unary(
            servicer.batch_submit_jobs, messages.BatchSubmitJobsRequest, messages.BatchSubmitJobsResponse
        ),
        # Stored form = wire form: the bytes of the ledger go out as they are.
        "WatchJob": stream(servicer.watch_job, messages.WatchJobRequest, bytes),
        "WatchJobs": stream(
            servicer.watch_jobs, messages.WatchJobsRequest, messages.WatchJobsResponse.SerializeToString
        ),
        "GetJob": unary(servicer.get_job, messages.GetJobRequest, messages.GetJobResponse),
        "ListJobs": unary(servicer.list_jobs, messages.ListJobsRequest, messages.ListJobsResponse),
        "CancelJob": unary(servicer.cancel_job, messages.CancelJobRequest, messages.CancelJobResponse),
        "PauseJob": unary(servicer.pause_job, messages.PauseJobRequest, messages.PauseJobResponse),
        "ResumeJob": unary(servicer.resume_job, messages.ResumeJobRequest, messages.ResumeJobResponse),
        "SignalJob": unary(servicer.signal_job, messages.SignalJobRequest, messages.SignalJobResponse),
        "RetryJob": unary(servicer.retry_job, messages.RetryJobRequest, messages.RetryJobResponse),
        "GetLastRecord": stream(
            servicer.get_last_record, messages.GetLastRecordRequest, messages.GetLastRecordResponse.SerializeToString
        ),
        "ReadArtifact": stream(
            servicer.read_artifact, messages.ReadArtifactRequest, messages.ReadArtifactResponse.SerializeToString
        ),
    }


def admin_methods(servicer: AdminServicer, observer: Observer) -> dict[str, Handler]:
    """Each method of the service, by the names that the contract gives it and its messages."""
    handlers = {}
    for method in admin_messages.DESCRIPTOR.services_by_name["AdminService"].methods:
        ours = getattr(servicer, _SMALL.sub("_", method.name).lower())
        request, response = (getattr(admin_messages, each.name) for each in (method.input_type, method.output_type))
        if method.server_streaming:
            handlers[method.name] = _stream(ours, request, response.SerializeToString, observer)
        else:
            handlers[method.name] = _unary(ours, request, response, observer)
    return handlers


def _add_reflection(server: grpc.aio.Server) -> None:
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1)
    servicer = reflection.aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(REFLECTION_V1, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handler,))


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    chosen = [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two daemons must never share a port by accident.
        ("grpc.so_reuseport", 0),
        # Clients of long watches keep their connection alive; by default a server calls that abuse.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
    if options.max_connection_age_seconds:
        chosen += [
            ("grpc.max_connection_age_ms", round(options.max_connection_age_seconds * 1000)),
            ("grpc.max_connection_age_grace_ms", round(options.max_connection_age_grace_seconds * 1000)),
        ]
    return chosen
