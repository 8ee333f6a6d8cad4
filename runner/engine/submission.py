"""A submission on its way in: checked as a whole, decoded, and made ready to be committed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

import msgspec

from runner import frames
from runner.core import budgets
from runner.core.alt import DescriptorLimits
from runner.core.alt.media import Format, format_of
from runner.core.alt.report import Report, Unreadable
from runner.core.errors import InvalidRequest, RunnerError
from runner.core.events import JobAccepted, JobState, Recorded
from runner.core.findings import Finding
from runner.core.job import JobSummary, NewJob
from runner.core.plan import Instant, JobId, Plan, Priority, every_task
from runner.engine.descriptors import Descriptors
from runner.engine.family import FAMILY
from runner.engine.settings import DEFAULT_QUEUE, EngineSettings, QueueSettings

MICROS: Final = 1_000_000
#: Bytes of YAML or TOML that take longer to decode than others should wait.
SLOW_BYTES: Final = 4 * 1024
MAX_REQUEST_ID: Final = 128
#: Queues that a message names.
MAX_NAMED: Final = 10
MAX_LABELS: Final = 32
MAX_LABEL_KEY: Final = 63
MAX_LABEL_VALUE: Final = 255
TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """What a submitter sends, free of its wire form."""

    descriptor: bytes
    #: Recognised from the bytes where empty.
    content_type: str = ""
    request_id: str = ""
    #: None for the descriptor's.
    priority: Priority | None = None
    queue: str = DEFAULT_QUEUE
    labels: dict[str, str] = {}
    not_before: Instant | None = None
    deadline: Instant | None = None
    #: A JSON object, or empty.
    inputs: bytes = b""
    #: None for the descriptor's.
    fail_fast: bool | None = None
    #: Tokens that its AI calls may take together; None for the descriptor's, else the setting's.
    token_budget: int | None = None
    #: What is wrong with the request itself and has no place above.
    problems: tuple[Finding, ...] = ()
    #: W3C trace context of the submitter, or empty. Not part of the body that a request id stands for.
    traceparent: str = ""


class Prepared(msgspec.Struct, frozen=True):
    """A submission for the ledger, and what was odd about it."""

    job: NewJob
    #: What the job's frames hold: JobAccepted, and what it takes over from a job that it retries.
    events: tuple[Recorded, ...]
    warnings: tuple[Finding, ...]

    @property
    def due(self) -> Instant | None:
        """When somebody has to look at the job; None: now."""
        summary = self.job.summary
        if summary.not_before is None or summary.not_before <= summary.created_at:
            return None
        return min(summary.not_before, summary.deadline or summary.not_before)


def prepare(
    submission: Submission,
    *,
    job_id: JobId,
    now: Instant,
    descriptors: Descriptors,
    settings: EngineSettings,
    queues: Mapping[str, QueueSettings],
) -> Prepared:
    """Decode and check everything.

    Raises InvalidRequest: if a field of the call is wrong; names each.
    Raises InvalidDescriptor: if the `.alt` is wrong; names all that is.
    """
    problems = list(_problems(submission, now=now, settings=settings, queues=queues))
    if problems:
        raise InvalidRequest(*problems)
    read = descriptors.read(submission.descriptor, submission.content_type)
    plan = _overridden(read.plan, submission, settings)
    encoded = read.packed if plan is read.plan else msgspec.msgpack.encode(plan)
    if plan.has_variables and (too_large := list(_large_values(plan, settings))):
        raise InvalidRequest(*too_large)
    if read.inputs and (missing := sorted(read.inputs - _inputs(submission).keys())):
        raise InvalidRequest(
            *(
                Finding("MISSING_INPUT", f"inputs.{name}", f"the descriptor refers to `${{inputs.{name}}}`; pass it")
                for name in missing
            )
        )
    event = JobAccepted(plan.title, len(plan.tasks), submission.queue, plan.priority, read.warnings)
    accepted = Recorded(1, now, event)
    summary = _summary(submission, plan, read.sha256, job_id=job_id, now=now)
    job = _new_job(submission, summary, encoded, accepted, settings=settings)
    return Prepared(job, (accepted,), read.warnings)


def is_slow(submission: Submission) -> bool:
    """Whether decoding would hold up the event loop: YAML and TOML take some milliseconds for a few KiB."""
    if len(submission.descriptor) <= SLOW_BYTES:
        return False
    try:
        chosen = format_of(submission.descriptor, submission.content_type, Report(DescriptorLimits()))
    except Unreadable:
        return False
    return chosen in {Format.YAML, Format.TOML}


def repeated(
    submission: Submission, refusal: RunnerError, *, job_id: JobId, now: Instant, settings: EngineSettings
) -> Prepared | None:
    """A submission that is refused now, unless the ledger knows it: a repetition succeeds whatever has changed since.

    None if it cannot have been accepted before.
    """
    if not 0 < len(submission.request_id) <= MAX_REQUEST_ID or submission.problems:
        return None
    plan = Plan(dialect="", alt_id="", version="", title="", created_at=0, tasks=())
    accepted = Recorded(1, now, JobAccepted("", 0, submission.queue, plan.priority))
    summary = _summary(submission, plan, "", job_id=job_id, now=now)
    job = _new_job(submission, summary, b"", accepted, settings=settings)
    return Prepared(msgspec.structs.replace(job, refusal=refusal), (accepted,), ())


def _large_values(plan: Plan, settings: EngineSettings) -> Iterator[Finding]:
    """Variables that begin with more than a variable may hold."""
    limit = settings.max_variable_bytes
    for variable in chain(plan.variables, *(task.variables for task in every_task(plan))):
        size = len(msgspec.json.encode(variable.value))
        if size > limit:
            message = f"{size} bytes are more than setting `engine.max_variable_bytes` allows ({limit})"
            yield Finding("VALUE_TOO_LARGE", f"variables.{variable.name}", message)


def _overridden(plan: Plan, submission: Submission, settings: EngineSettings) -> Plan:
    if submission.priority is not None:
        plan = msgspec.structs.replace(plan, priority=submission.priority)
    if submission.fail_fast is not None:
        plan = msgspec.structs.replace(plan, fail_fast=submission.fail_fast)
    budget = submission.token_budget or budgets.told_in(plan.metadata) or settings.default_token_budget
    return msgspec.structs.replace(plan, token_budget=budget) if budget else plan


def _summary(submission: Submission, plan: Plan, sha256: str, *, job_id: JobId, now: Instant) -> JobSummary:
    return JobSummary(
        id=job_id,
        alt_id=plan.alt_id,
        title=plan.title,
        state=JobState.QUEUED,
        priority=plan.priority,
        queue=submission.queue,
        labels=submission.labels,
        request_id=submission.request_id,
        created_at=now,
        started_at=None,
        ended_at=None,
        not_before=submission.not_before,
        deadline=submission.deadline,
        progress=0.0,
        last_sequence=1,
        error=None,
        cancel_requested=False,
        task_count=len(plan.tasks),
        descriptor_sha256=sha256,
    )


def _new_job(
    submission: Submission, summary: JobSummary, encoded: bytes, accepted: Recorded, *, settings: EngineSettings
) -> NewJob:
    return NewJob(
        summary=summary,
        rank=rank(summary, settings),
        request_sha256=_fingerprint(submission) if submission.request_id else b"",
        descriptor=submission.descriptor,
        content_type=submission.content_type,
        plan=encoded,
        inputs=submission.inputs,
        # One that is not well-formed is ignored, as the specification asks (W3C Trace Context, 3.2.2).
        traceparent=submission.traceparent if trace_id_of(submission.traceparent) else own_traceparent(summary.id),
        frames=(frames.encode([accepted]),),
    )


def rank(job: JobSummary, settings: EngineSettings) -> Instant:
    """Where a job stands in its queue, lowest first: when it can be claimed, less a head start for its priority."""
    head_start = round(job.priority * settings.ageing_seconds * MICROS)
    return max(job.created_at, job.not_before or job.created_at) - head_start


def _fingerprint(submission: Submission) -> bytes:
    """SHA-256 of what a request id stands for: all but the trace, which differs from try to try."""
    body = msgspec.structs.asdict(submission) | {"traceparent": "", "labels": dict(sorted(submission.labels.items()))}
    # Of what came in later versions nothing is said where nothing was: who repeats a submission to a newer daemon
    # must find the job.
    if submission.token_budget is None:
        del body["token_budget"]
    return hashlib.sha256(msgspec.msgpack.encode(body)).digest()


def own_traceparent(job_id: JobId) -> str:
    """Trace context for a submitter who has none: the trace's id is the job's, so that one finds the other."""
    trace_id = job_id.replace("-", "")
    return f"00-{trace_id}-{trace_id[-16:]}-01"


def trace_id_of(traceparent: str) -> str:
    """The trace's id, or "" if the text is no trace context."""
    found = TRACEPARENT.fullmatch(traceparent)
    return found[1] if found else ""


def _inputs(submission: Submission) -> dict[str, Any]:
    return msgspec.json.decode(submission.inputs, type=dict[str, Any]) if submission.inputs else {}


def _problems(
    submission: Submission, *, now: Instant, settings: EngineSettings, queues: Mapping[str, QueueSettings]
) -> Iterator[Finding]:
    yield from submission.problems
    if problem := request_id_problem(submission.request_id):
        yield problem
    if not NAME.fullmatch(submission.queue):
        yield Finding(
            "BAD_NAME", "queue", "1 to 63 letters, digits, `.`, `_`, `-`, `/`, beginning with a letter or digit"
        )
    elif not settings.allow_undefined_queues and submission.queue not in queues:
        known = ", ".join(sorted(queues)[:MAX_NAMED]) or "none"
        known += ", …" if len(queues) > MAX_NAMED else ""
        yield Finding("UNKNOWN_QUEUE", "queue", f"there is no queue `{submission.queue}`; defined are: {known}")
    yield from _label_problems(submission.labels)
    if submission.token_budget is not None and not 1 <= submission.token_budget <= budgets.MOST_TOKENS:
        yield Finding("OUT_OF_RANGE", "token_budget", "a token budget is at least 1; leave it out for none of your own")
    if submission.deadline is not None and submission.deadline <= now:
        yield Finding("OUT_OF_RANGE", "deadline", "the deadline has passed already")
    if None not in (submission.deadline, submission.not_before) and submission.not_before >= submission.deadline:  # type: ignore[operator]  # neither is None
        yield Finding("OUT_OF_RANGE", "not_before", "the job could not start before its deadline")
    try:
        _inputs(submission)
    except (msgspec.MsgspecError, RecursionError) as error:
        yield Finding("BAD_TYPE", "inputs_json", f"not a JSON object: {error}")


def request_id_problem(request_id: str) -> Finding | None:
    """What is wrong with a request id."""
    if len(request_id) > MAX_REQUEST_ID:
        message = f"at most {MAX_REQUEST_ID} characters; it has {len(request_id)}"
        return Finding("TOO_LONG", "request_id", message)
    if "\0" in request_id:
        return Finding("BAD_NAME", "request_id", "a NUL is no character of a name")
    return None


def _label_problems(labels: Mapping[str, str]) -> Iterator[Finding]:
    if len(labels) > MAX_LABELS:
        yield Finding("TOO_MANY", "labels", f"at most {MAX_LABELS} labels; there are {len(labels)}")
    for key, value in labels.items():
        if not NAME.fullmatch(key):
            yield Finding(
                "BAD_NAME", f"labels.{key[:80]}", f"a key is 1 to {MAX_LABEL_KEY} letters, digits, `.`, `_`, `-`, `/`"
            )
        if len(value) > MAX_LABEL_VALUE:
            yield Finding("TOO_LONG", f"labels.{key[:80]}", f"a value has at most {MAX_LABEL_VALUE} characters")
        if key in FAMILY:
            yield Finding("RESERVED", f"labels.{key}", "only the runner sets it, for jobs that tasks run")
        if "\0" in value:
            yield Finding("BAD_NAME", f"labels.{key[:80]}", "a value holds no NUL: no database stores one in a text")
