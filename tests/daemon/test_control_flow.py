"""A loop of five thousand rounds with a condition in each, through kill -9: the same rounds, each done once."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runner.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(110)]

ROUNDS = 5_000
#: Rounds that ask the orchestrator; the others wait for a moment.
ASKING = 600

DESCRIPTOR = {
    "id": "flow",
    "version": "2.0",
    "timestamp": "2026-01-01T00:00:00Z",
    "command": "Beş bin kayıt",
    "segments": [
        {
            "id": "each",
            "content": "each of them",
            "loop": {"type": "for_each", "variable": "entry", "iterable": "${inputs.entries}", "body": ["check"]},
            "metadata": {"parallel": True, "max_parallel": 100},
        },
        {
            "id": "check",
            "content": "is it one to ask about?",
            "condition": {
                "condition": {"operator": "lt", "left": "entry.number", "right": ASKING},
                "if_body": ["ask"],
                "else_body": ["rest"],
            },
        },
        {"id": "ask", "task_type": "ai_prompt", "content": "What of ${variables.entry.number}?"},
        {
            "id": "rest",
            "task_type": "delay",
            "content": "a moment",
            "parameters": [{"name": "duration_seconds", "value": 0.001}],
        },
    ],
}
#: Those to ask about stand between others, so that a kill meets both.
ENTRIES = [{"number": number * 7 % ROUNDS} for number in range(ROUNDS)]


async def test_a_loop_of_five_thousand_rounds_survives_kills_in_the_middle(
    launch: Any, orchestrator: Any, free_port: int, tmp_path: Path
) -> None:
    settings = {"grpc.port": free_port, "log.level": "warning"}
    kinds: Counter[tuple[str, str]] = Counter()
    seen: list[int] = []
    job_id = ""
    for reached in (50, 400, 0):
        async with launch(**settings) as daemon, Client(daemon.target) as client:
            if not job_id:
                inputs = json.dumps({"entries": ENTRIES}).encode()
                job_id = (await client.submit(json.dumps(DESCRIPTOR).encode(), inputs_json=inputs)).job.job_id
            if reached:
                await orchestrator.reached(reached)
                assert await daemon.end(signal.SIGKILL) == -signal.SIGKILL
            else:
                async for event in client.watch(job_id):
                    seen.append(event.sequence)
                    kind = str(event.WhichOneof("event"))
                    kinds[kind, getattr(getattr(event, kind), "task_id", "")] += 1
                record = json.loads(await client.record(job_id))

    assert seen == list(range(1, len(seen) + 1))
    names = {f"each[{round_}]/check" for round_ in range(ROUNDS)}
    asked = {f"each[{round_}]/check/ask" for round_, entry in enumerate(ENTRIES) if entry["number"] < ASKING}
    rested = {f"{name}/rest" for name in names} - {name.replace("/ask", "/rest") for name in asked}
    assert len(asked) == ASKING
    assert kinds["body_started", "each"] == ROUNDS
    assert {name for kind, name in kinds if kind == "body_started"} == names | {"each"}
    assert all(
        count == 1 for (kind, name), count in kinds.items() if kind in ("attempt_succeeded", "control_succeeded")
    )
    assert {name for kind, name in kinds if kind == "attempt_succeeded"} == asked | rested
    assert {name for kind, name in kinds if kind == "task_skipped"} == (
        {f"{name}/ask" for name in names} | {f"{name}/rest" for name in names}
    ) - asked - rested
    # A call more than once only where its attempt was lost with a daemon, and never after its answer was kept.
    assert all(
        calls <= kinds["attempt_started", key.removeprefix(f"{job_id}/")] <= 3
        for key, calls in orchestrator.calls.items()
    )
    assert record["status"] == "success"
    assert record["task_results"].keys() == asked | rested | names | {"each"} | {
        name for kind, name in kinds if kind == "task_skipped"
    }
    assert len(list((tmp_path / "var" / "last").glob("**/last_*.json"))) == 1
