"""What an operator may set about the HTTP port and its verdicts on health."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class HttpSettings(Struct, frozen=True, kw_only=True):
    """The HTTP port: metrics and health."""

    #: Whether the port is opened at all.
    enabled: bool = True
    #: Address to listen on.
    host: str = "127.0.0.1"
    #: Port to listen on; 0 takes a free one and tells which.
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    #: Seconds for all checks of `/readyz` together; a check that takes longer has failed.
    check_timeout_seconds: Annotated[float, Meta(gt=0)] = 2.0
    #: Seconds requests under way have to finish when the daemon stops.
    shutdown_grace_seconds: Annotated[int, Meta(ge=0)] = 2


class HealthSettings(Struct, frozen=True, kw_only=True):
    """When the daemon calls itself ready."""

    #: Bytes that must be free on the disk of `data_dir`.
    min_free_bytes: Annotated[int, Meta(ge=0)] = 64 * 1024 * 1024
    #: Seconds the claim loop may be silent before it counts as stalled.
    stall_seconds: Annotated[float, Meta(gt=0)] = 10.0
