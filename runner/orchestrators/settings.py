"""What an operator may set about AI orchestrators."""

from __future__ import annotations

import enum
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from runner.core.breaker import BreakerPolicy
from runner.core.secret import Secret

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Protocol(enum.StrEnum):
    """What an endpoint speaks."""

    ALTLAS = "altlas"
    OPENAI = "openai"


class EndpointSettings(Struct, frozen=True, kw_only=True):
    """One AI orchestrator."""

    #: What tasks (`parameters.endpoint`), metrics and records call it.
    name: str = "default"
    protocol: Protocol = Protocol.ALTLAS
    #: Base address: `http://127.0.0.1:8080`; a path is kept.
    url: str
    #: Sent as `Authorization: Bearer …`; empty: nothing is sent.
    api_key: Secret = Secret()
    #: The model for tasks that name none; empty: the endpoint's own choice (`openai` has none).
    model: str = ""
    #: Seconds for one whole call; a task's own time bounds it further.
    timeout_seconds: Seconds = 60.0
    #: Seconds of silence within an answer that has begun.
    idle_timeout_seconds: Seconds = 30.0
    #: Seconds for a connection to be made.
    connect_timeout_seconds: Seconds = 10.0
    #: Bytes of one answer.
    max_answer_bytes: Count = 8 * 1024 * 1024
    #: Calls, and so connections, under way at a time; further tasks wait and take no slot meanwhile. Keep it well below
    #: `engine.max_concurrent_tasks`, or an endpoint that hangs holds up every other task.
    max_connections: Count = 32
    #: Models with a circuit breaker of their own; the calls to any further ones share one.
    max_models: Count = 64

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username or parts.password or parts.query:
            msg = f"`url` of orchestrator `{self.name}` must hold no credentials and no query; use `api_key`"
            raise ValueError(msg)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = f"`url` of orchestrator `{self.name}` must be like http://host:port, it is `{parts.geturl()}`"
            raise ValueError(msg)


class OrchestratorSettings(Struct, frozen=True, kw_only=True):
    """All AI orchestrators; the first takes the tasks that name none."""

    endpoints: tuple[EndpointSettings, ...] = ()
    breaker: BreakerPolicy = BreakerPolicy()

    def __post_init__(self) -> None:
        names = [endpoint.name for endpoint in self.endpoints]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            msg = f"`endpoints` has several orchestrators named `{doubled[0]}`; give each its own `name`"
            raise ValueError(msg)
