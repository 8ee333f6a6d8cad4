"""error → gRPC status: the one table, and the rich form of it.

Every error of a call carries exactly one ErrorInfo (domain `alt-runner`), and beside it what fits: BadRequest for
descriptors and fields, RetryInfo where coming back helps, QuotaFailure, ResourceInfo.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc
import msgspec
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from runner.core import errors
from runner.core.findings import Finding

DOMAIN: Final = "alt-runner"
#: Seconds after which it makes sense to come back to a daemon that could not be reached or written.
RETRY_SOON: Final = 1.0

#: Most specific first.
CODES: Final[tuple[tuple[type[errors.RunnerError], grpc.StatusCode, str], ...]] = (
    (errors.InvalidDescriptor, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DESCRIPTOR"),
    (errors.InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    (errors.JobNotFound, grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"),
    (errors.RecordNotFound, grpc.StatusCode.NOT_FOUND, "RECORD_NOT_FOUND"),
    (errors.ArtifactNotFound, grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND"),
    (errors.EndpointNotFound, grpc.StatusCode.NOT_FOUND, "ENDPOINT_NOT_FOUND"),
    (errors.RegistrationRefused, grpc.StatusCode.FAILED_PRECONDITION, "REGISTRATION_REFUSED"),
    (errors.JobNotEnded, grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_ENDED"),
    (errors.JobHasEnded, grpc.StatusCode.FAILED_PRECONDITION, "JOB_HAS_ENDED"),
    (errors.JobUnreadable, grpc.StatusCode.FAILED_PRECONDITION, "JOB_UNREADABLE"),
    (errors.AlreadyAnswered, grpc.StatusCode.ALREADY_EXISTS, "ALREADY_ANSWERED"),
    (errors.NothingToRetry, grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_TO_RETRY"),
    (errors.RequestIdReused, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    (errors.QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    (errors.Draining, grpc.StatusCode.UNAVAILABLE, "DRAINING"),
    (errors.LedgerFull, grpc.StatusCode.UNAVAILABLE, "DISK_FULL"),
    (errors.LedgerUnavailable, grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE"),
    (errors.LedgerDamaged, grpc.StatusCode.DATA_LOSS, "LEDGER_DAMAGED"),
)

#: gRPC refuses trailers of more than 8 KiB by default, so a long list of findings is cut, and says so.
MAX_VIOLATION_BYTES: Final = 3 * 1024
#: Bytes of a message as it stands in a trailer, where other characters than ASCII's take three for each byte.
MAX_MESSAGE_BYTES: Final = 1024
#: The same for the path of a finding.
MAX_PATH_BYTES: Final = 512


class CallFailure(msgspec.Struct, frozen=True):
    """How a call fails, before it is put on the wire."""

    code: grpc.StatusCode
    reason: str
    message: str
    findings: tuple[Finding, ...] = ()
    #: Seconds, where coming back may help.
    retry_after: float | None = None
    metadata: dict[str, str] = {}


def failure_of(error: errors.RunnerError) -> CallFailure:
    """What a caller is told about an error."""
    code, reason = grpc.StatusCode.INTERNAL, "INTERNAL"
    for kind, kind_code, kind_reason in CODES:
        if isinstance(error, kind):
            code, reason = kind_code, kind_reason
            break
    retry_after = RETRY_SOON if code is grpc.StatusCode.UNAVAILABLE else None
    findings: tuple[Finding, ...] = ()
    metadata: dict[str, str] = {}
    match error:
        case errors.InvalidDescriptor() | errors.InvalidRequest():
            findings = tuple(error.findings)
            metadata = {"findings": str(len(findings))}
        case errors.NotFound():
            metadata = {error.kind: error.name}
        case errors.JobNotEnded() | errors.JobHasEnded() | errors.JobUnreadable() | errors.NothingToRetry():
            metadata = {"job_id": error.job_id}
        case errors.AlreadyAnswered():
            metadata = {"job_id": error.job_id, "task_id": error.task_id}
        case errors.RequestIdReused():
            metadata = {"request_id": error.request_id, "job_id": error.job_id}
        case errors.QueueFull():
            retry_after = error.retry_after
            metadata = {"queue": error.queue, "limit": str(error.limit)}
    metadata = {key: errors.brief(value) for key, value in metadata.items()}
    return CallFailure(code, reason, _cut(str(error), MAX_MESSAGE_BYTES), findings, retry_after, metadata)


def _cut(text: str, limit: int) -> str:
    size = 0
    for index, character in enumerate(text):
        size += 1 if " " <= character <= "~" else 3 * len(character.encode(errors="replace"))
        if size > limit:
            return f"{text[:index]}…"
    return text


def status_of(error: errors.RunnerError) -> grpc.Status:
    """The rich status of an error."""
    failure = failure_of(error)
    message = status_pb2.Status(
        code=code_pb2.Code.Value(failure.code.name),
        message=failure.message,
        details=list(map(_packed, _details(error, failure))),
    )
    return rpc_status.to_status(message)


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _details(error: errors.RunnerError, failure: CallFailure) -> Iterable[Message]:
    violations: list[error_details_pb2.BadRequest.FieldViolation] = []
    told = 0
    for finding in failure.findings:
        violation = _violation(finding)
        told += violation.ByteSize()
        if violations and told > MAX_VIOLATION_BYTES:
            break
        violations.append(violation)
    metadata = dict(failure.metadata)
    if len(violations) < len(failure.findings):
        metadata["findings_told"] = str(len(violations))
    yield error_details_pb2.ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata=metadata)
    if violations:
        yield error_details_pb2.BadRequest(field_violations=violations)
    if failure.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(round(failure.retry_after * 1e9))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if isinstance(error, errors.QueueFull):
        quota = error_details_pb2.QuotaFailure.Violation(subject=f"queue:{error.queue}", description=failure.message)
        yield error_details_pb2.QuotaFailure(violations=[quota])
    if isinstance(error, errors.NotFound):
        name = errors.brief(error.name)
        yield error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=name, description=failure.message)


def _violation(finding: Finding) -> error_details_pb2.BadRequest.FieldViolation:
    place = f"{finding.line}:{finding.column}: " if finding.line else ""
    hint = f" Did you mean `{finding.suggestion}`?" if finding.suggestion else ""
    return error_details_pb2.BadRequest.FieldViolation(
        field=_cut(finding.path, MAX_PATH_BYTES),
        reason=finding.reason,
        description=_cut(f"{place}{finding.message}{hint}", MAX_MESSAGE_BYTES),
    )
