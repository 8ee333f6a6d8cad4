"""How a call to the daemon can fail.

ClientError
├── Unreachable      no daemon answers there, within the client's patience
├── CallRefused      it answered, and the answer is no; carries code, reason and findings
└── StreamBroken     a watch was not what was promised; a defect to report
"""

from __future__ import annotations

import re
from typing import Final

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from runner.core.errors import RunnerError
from runner.core.findings import Finding

#: The trailer in which gRPC carries a google.rpc.Status.
DETAILS_KEY: Final = "grpc-status-details-bin"
#: A violation's description tells the place before its sentence, and what was meant after it.
_PLACE: Final = re.compile(r"(\d+):(\d+): ")
_MEANT: Final = re.compile(r" Did you mean `([^`]+)`\?$")
#: What gRPC says, in words that it shares with the system below, and what it means.
_LOSSES: Final = (
    (re.compile("refused", re.IGNORECASE), "nothing listens there"),
    (re.compile("dns|resol|name or service|domain name", re.IGNORECASE), "its name cannot be resolved"),
    (re.compile("unreachable|no route", re.IGNORECASE), "no way leads there"),
    (re.compile("time.?out|timed out|deadline", re.IGNORECASE), "it does not answer in time"),
    (re.compile("handshake|ssl|tls|http2|settings frame", re.IGNORECASE), "what listens there does not speak gRPC"),
)


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
        #: Everything that is wrong with the descriptor or the call, each with its place and what was probably meant.
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
            findings = tuple(_finding(entry.reason, entry.field, entry.description) for entry in bad.field_violations)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    message = error.details() or error.code().name
    return CallRefused(
        error.code(), message, reason=reason, findings=findings, retry_after=retry_after, metadata=metadata
    )


def _finding(reason: str, path: str, description: str) -> Finding:
    message, suggestion, line, column = description, "", 0, 0
    if found := _PLACE.match(message):
        line, column, message = int(found[1]), int(found[2]), message[found.end() :]
    if found := _MEANT.search(message):
        suggestion, message = found[1], message[: found.start()]
    return Finding(reason, path, message, suggestion, line, column)


def why_lost(error: grpc.aio.AioRpcError | TimeoutError) -> str:
    """Why there is no connection, as the end of a sentence: the daemon's own words, if it gave any."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return "it fell silent"
    told = error.details() or ""
    if said_why(error):
        return told
    return next((meaning for words, meaning in _LOSSES if words.search(told)), "the connection broke")


def said_why(error: grpc.aio.AioRpcError) -> bool:
    """Whether a daemon gave its reasons, rather than the connection breaking."""
    return bool(_details(error))


def _details(error: grpc.aio.AioRpcError) -> list:  # type: ignore[type-arg]  # of google.protobuf.Any, which has no types here
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return list(status_pb2.Status.FromString(value).details)
    return []
