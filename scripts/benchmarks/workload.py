"""The descriptors that are measured."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec
from altrunner.v1 import job_service_pb2 as messages
from google.protobuf.timestamp_pb2 import Timestamp

SUBMIT: Final = "/altrunner.v1.JobService/SubmitJob"
BATCH: Final = "/altrunner.v1.JobService/BatchSubmitJobs"
BATCH_SIZE: Final = 500

_FAR: Final = datetime(2100, 1, 1, tzinfo=UTC)


def descriptor(tasks: int) -> bytes:
    """A plan of independent no-op tasks: `delay` of no seconds, which yields once and answers."""
    return msgspec.json.encode(
        {
            "id": f"noop-{tasks}",
            "version": "1.0",
            "created_at": "2025-04-26T19:32:00Z",
            "title": f"{tasks} tasks that do nothing",
            "tasks": [
                {"id": f"t{n}", "description": "nothing", "parameters": {"task_type": "delay", "seconds": 0}}
                for n in range(tasks)
            ],
        }
    )


def submission(tasks: int) -> messages.SubmitJobRequest:
    """A job that runs at once."""
    return messages.SubmitJobRequest(descriptor=descriptor(tasks), content_type="application/json")


def held(tasks: int) -> messages.SubmitJobRequest:
    """A job that is accepted and does not run: its `not_before` is far away.

    The same bytes serve for any number of calls, so there is no request id.
    """
    request = submission(tasks)
    stamp = Timestamp()
    stamp.FromDatetime(_FAR)
    request.not_before.CopyFrom(stamp)
    return request


def batch(tasks: int) -> messages.BatchSubmitJobsRequest:
    """BATCH_SIZE jobs that do not run."""
    return messages.BatchSubmitJobsRequest(requests=[held(tasks)] * BATCH_SIZE)
