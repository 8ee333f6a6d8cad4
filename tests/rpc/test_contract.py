"""The contract: numbers that are kept, and requests that hold what no client of ours sends."""

from __future__ import annotations

from altrunner.v1 import job_pb2
from altrunner.v1 import job_service_pb2 as messages

from runner.core.events import JobState, TaskState, WaitReason
from runner.core.plan import Priority


def test_the_numbers_of_the_core_are_those_of_the_wire() -> None:
    for mine, theirs, prefix in (
        (JobState, job_pb2.JobState, "JOB_STATE_"),
        (TaskState, job_pb2.TaskState, "TASK_STATE_"),
        (Priority, job_pb2.Priority, "PRIORITY_"),
        (WaitReason, job_pb2.WaitReason, "WAIT_REASON_"),
    ):
        wire = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
        assert {member.name: member.value for member in mine} == wire


def test_job_states_from_4_on_are_terminal() -> None:
    assert [state.value for state in JobState if state.terminal] == [4, 5, 6, 7]
    assert job_pb2.JOB_STATE_PAUSED == 3


def test_what_is_to_run_can_be_told_in_other_ways_later() -> None:
    source = messages.SubmitJobRequest.DESCRIPTOR.oneofs_by_name["source"]
    assert [field.name for field in source.fields] == ["descriptor"]
