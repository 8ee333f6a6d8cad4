"""How a call to the daemon can fail.

ClientError
├── Unreachable      no daemon answers there, within the client's patience
├── CallRefused      it answered, and the answer is no; carries code, reason and findings
└── StreamBroken     a watch was not what was promised; a defect to report
"""

from __future__ import annotations

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from runner.core.errors import RunnerError
from runner.core.findings import Finding

#: The trailer in which gRPC carries a google.rpc.Status.
DETAILS_KEY = "grpc-status-details-bin"


class ClientError(RunnerError):
    """Root of what the client raises."""


class Unreachable(ClientError):
    """No daemon answers there."""

    def __init__(self, target: str, why: str) -> None:
        self.target = target
        super().__init__(f"no daemon answers at {target}: {why}; start one with `alt-runner serve`")


class StreamBroken(ClientError):
    """A watch skipped an event without saying so, or ended before the terminal event."""


class CallRefused(ClientError):
    """The daemon said no."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        findings: tuple[Finding, ...] = (),
        retry_after: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        self.code = code
        #: UPPER_SNAKE, as in the daemon's documentation of errors.
        self.reason = reason
        #: Everything that is wrong with the descriptor or the call; `description` stands in `message`.
        self.findings = findings
        #: Seconds after which it is worth coming back.
        self.retry_after = retry_after
        self.metadata = metadata or {}
        super().__init__(message)


def refusal(error: grpc.aio.AioRpcError) -> CallRefused:
    """What a status of the daemon says."""
    reason, retry_after = "", None
    findings: tuple[Finding, ...] = ()
    metadata: dict[str, str] = {}
    for detail in _details(error):
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            findings = tuple(Finding(entry.reason, entry.field, entry.description) for entry in bad.field_violations)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    message = error.details() or error.code().name
    return CallRefused(
        error.code(), message, reason=reason, findings=findings, retry_after=retry_after, metadata=metadata
    )


def said_why(error: grpc.aio.AioRpcError) -> bool:
    """Whether a daemon gave its reasons, rather than the connection breaking."""
    return bool(_details(error))


def _details(error: grpc.aio.AioRpcError) -> list:  # type: ignore[type-arg]  # of google.protobuf.Any, which has no types here
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return list(status_pb2.Status.FromString(value).details)
    return []
