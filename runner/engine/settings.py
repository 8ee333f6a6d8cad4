"""What an operator may set about the engine: its limits, its patience, and its queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import Meta, Struct

from runner.core.control import ControlLimits

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]

DEFAULT_QUEUE: Final = "default"


class QueueSettings(Struct, frozen=True, kw_only=True):
    """The limits of one queue."""

    #: Jobs of this queue that may run at a time on one daemon.
    concurrency: Count = 1000
    #: Jobs that may wait in this queue; beyond that a submission gets RESOURCE_EXHAUSTED.
    max_queued: Count = 1_000_000


class EngineSettings(Struct, frozen=True, kw_only=True):
    """The limits and the patience of the engine."""

    #: Attempts that may run at a time in this daemon, over all jobs.
    max_concurrent_tasks: Count = 64
    #: Jobs that may run at a time in this daemon; the others wait in the ledger.
    max_running_jobs: Count = 1000
    #: Jobs that may wait beside those: for jobs of their own tasks (`job`), or because all that is left of them is
    #: parked, backs off, or waits for a person. Further ones count among them.
    max_waiting_jobs: Count = 10_000
    #: Jobs above a job that a task runs, at most; 0: tasks run no jobs.
    max_job_depth: Annotated[int, Meta(ge=0, le=100)] = 8
    #: Seconds for one attempt of a task that sets no time of its own.
    default_task_timeout_seconds: Seconds = 300.0
    #: Attempts after the first for a task that sets no number of its own, 0–255.
    default_retries: Annotated[int, Meta(ge=0, le=255)] = 0
    #: Times an attempt may be lost with its daemon before its task fails: a task that kills daemons must end.
    max_lost_attempts: Count = 10
    #: Times a job's plan or events may turn out to be unreadable before it is set aside: until a daemon starts anew,
    #: perhaps another version, it is claimed only to be ended. Between two tries `lease_seconds` pass.
    max_replay_failures: Count = 3
    #: Seconds a claim holds without being renewed; then another daemon takes the job over.
    lease_seconds: Annotated[float, Meta(ge=1)] = 15.0
    #: Seconds between two looks for work when nothing wakes the daemon.
    poll_seconds: Seconds = 1.0
    #: Seconds a cancelled task has to stop by itself before it is killed.
    cancel_grace_seconds: Annotated[float, Meta(ge=0)] = 5.0
    #: Seconds running tasks have to finish when the daemon shuts down; then their jobs are given back.
    drain_grace_seconds: Annotated[float, Meta(ge=0)] = 20.0
    #: Head start, in seconds of waiting, that each step of priority gives a job.
    ageing_seconds: Annotated[float, Meta(ge=0)] = 60.0
    #: Bytes of a task's output that stand in its event, at most 524288; a larger output becomes an artifact.
    inline_output_bytes: Annotated[int, Meta(ge=1, le=512 * 1024)] = 256 * 1024
    #: Bytes of outputs that stand in the events of one job together; after that, outputs over 1 KiB become artifacts.
    inline_job_bytes: Count = 2 * 1024 * 1024
    #: Bytes of a task's output beyond which the attempt fails.
    max_output_bytes: Count = 16 * 1024 * 1024
    #: Bytes that all tasks of a job may leave together; an attempt that would pass it fails.
    max_job_output_bytes: Count = 256 * 1024 * 1024
    #: Bytes of the files, left by other tasks, that the references of one task reach into.
    max_referenced_bytes: Count = 4 * 1024 * 1024
    #: Rounds of one loop; a loop that would have more fails.
    max_loop_rounds: Count = 10_000
    #: Bodies inside of bodies while a job runs, those of functions that call each other among them.
    max_body_depth: Annotated[int, Meta(ge=1, le=100)] = 50
    #: Tasks that may come into being in one job, those of all rounds and calls.
    max_job_tasks: Count = 50_000
    #: Bytes of the value of one variable.
    max_variable_bytes: Count = 256 * 1024
    #: Bytes of outputs that one condition, loop or call may look at before it decides.
    max_looked_at_bytes: Count = 64 * 1024 * 1024
    #: Characters of the id of an instance that runs others, with which the ids of all of them begin.
    max_instance_id: Count = 1_000
    #: Tokens that all AI calls of a job may take together, where neither submitter nor descriptor says; 0: no bound.
    default_token_budget: Annotated[int, Meta(ge=0)] = 0
    #: Tokens that an answer is taken to cost before it is there, where the task sets no `max_tokens`; for budgets.
    default_answer_tokens: Count = 1024
    #: Bytes of descriptors that are remembered decoded, for those who submit the same ones again with other inputs.
    #: It takes nine times the memory. A descriptor larger than a sixteenth of it is not remembered; 0: none is.
    remembered_descriptor_bytes: Annotated[int, Meta(ge=0)] = 1024 * 1024
    #: Jobs in one BatchSubmitJobs.
    max_batch: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    #: Whether a job may name a queue that `queues` does not; it then has the limits of `queues.default`.
    allow_undefined_queues: bool = True

    @property
    def control_limits(self) -> ControlLimits:
        """How far control flow may go."""
        return ControlLimits(
            max_rounds=self.max_loop_rounds,
            max_depth=self.max_body_depth,
            max_tasks=self.max_job_tasks,
            max_variable_bytes=self.max_variable_bytes,
            max_looked_at_bytes=self.max_looked_at_bytes,
            max_id=self.max_instance_id,
        )

    def __post_init__(self) -> None:
        if self.inline_output_bytes > self.max_output_bytes:
            msg = "`inline_output_bytes` is more than `max_output_bytes`"
            raise ValueError(msg)
        if self.max_output_bytes > self.max_job_output_bytes:
            msg = "`max_output_bytes` is more than `max_job_output_bytes`"
            raise ValueError(msg)
        if self.poll_seconds >= self.lease_seconds:
            msg = "`poll_seconds` must be less than `lease_seconds`, or leases end between two looks"
            raise ValueError(msg)


def queue_limits(queues: Mapping[str, QueueSettings], name: str) -> QueueSettings:
    """The limits of a queue: its own, else those of `default`."""
    found = queues.get(name) or queues.get(DEFAULT_QUEUE)
    return found or QueueSettings()
