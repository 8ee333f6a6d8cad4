"""A workflow on an engine: inputs flow along its edges, and nodes wait as they say between attempts."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from runner.core.errors import AttemptError
from runner.core.events import AttemptStarted, JobSucceeded
from runner.engine.submission import Submission
from runner.ports import Attempt, Outcome
from tests.engine.stage import Stage, times

pytestmark = pytest.mark.timeout(30)


def workflow(*nodes: dict[str, Any], edges: list[tuple[str, str]], **fields: Any) -> Submission:
    descriptor = {
        "id": "alt",
        "version": "1.0",
        "name": "Akış",
        "nodes": [{"type": "action", "piece_type": "scripted", **node} for node in nodes],
        "edges": [{"source_node_id": source, "target_node_id": target} for source, target in edges],
    }
    return Submission(descriptor=json.dumps(descriptor).encode(), **fields)


async def parameters(attempt: Attempt) -> Outcome:
    """Give back what came in."""
    await anyio.lowlevel.checkpoint()
    return Outcome(output=dict(attempt.parameters))


async def test_a_node_gets_the_merged_output_of_those_before_it() -> None:
    async def left(_: Attempt) -> Outcome:
        return Outcome(output={"left": 1, "both": "left"})

    async def right(_: Attempt) -> Outcome:
        return Outcome(output={"both": "right"})

    async def number(_: Attempt) -> Outcome:
        return Outcome(output=7)

    stage = Stage()
    stage.troupe.scripts = {"start": parameters, "l": left, "r": right, "n": number, "end": parameters}
    submission = workflow(
        {"id": "start", "type": "trigger", "piece_type": "manual_trigger"},
        {"id": "l"},
        {"id": "r"},
        {"id": "n"},
        {"id": "end", "config": {"prompt": "p"}},
        edges=[("start", "l"), ("start", "r"), ("start", "n"), ("l", "end"), ("n", "end"), ("r", "end")],
        inputs=b'{"x": [1]}',
    )
    async with stage.engine() as engine:
        job = (await engine.runner.submit(submission)).job.id
        history = await engine.end(job)
    assert isinstance(history[-1].event, JobSucceeded)
    results = (await stage.record(job))["task_results"]
    assert results["start"]["output"] == {"input": {"x": [1]}}
    assert results["end"]["output"]["input"] == {"left": 1, "both": "right", "n": 7}


async def test_a_large_output_reaches_the_next_node_whole() -> None:
    """One that the ledger keeps as an artifact."""
    text = "ş" * 400_000

    async def large(_: Attempt) -> Outcome:
        return Outcome(output=text)

    async def measure(attempt: Attempt) -> Outcome:
        return Outcome(output=len(attempt.parameters["input"]))

    stage = Stage()
    stage.troupe.scripts = {"a": large, "b": measure}
    async with stage.engine() as engine:
        job = (await engine.runner.submit(workflow({"id": "a"}, {"id": "b"}, edges=[("a", "b")]))).job.id
        await engine.end(job)
    assert (await stage.record(job))["task_results"]["b"]["output"] == len(text)


async def test_a_node_waits_between_its_attempts_as_long_as_it_says() -> None:
    async def fail(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        raise AttemptError("BUSY", "later", retryable=True)

    stage = Stage()
    stage.troupe.scripts["a"] = fail
    node = {"id": "a", "config": {"max_retries": 2, "retry_delay_seconds": 90, "prompt": "p"}}
    async with stage.engine() as engine:
        history = await engine.end((await engine.runner.submit(workflow(node, edges=[]))).job.id)
    assert times(history, AttemptStarted) == [0.0, 90.0, 180.0]
