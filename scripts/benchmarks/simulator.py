"""A simulated orchestrator, as a process of its own. `python -m scripts.benchmarks.simulator BEHAVIOUR`, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec
import uvloop

from runner.orchestrators.simulated import SimulatorSettings, run
from runner.orchestrators.simulation import Behaviour


async def _tell(url: str) -> None:
    print(json.dumps({"url": url}), flush=True)


if __name__ == "__main__":
    settings = SimulatorSettings(behaviour=msgspec.json.decode(sys.argv[1], type=Behaviour))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(run(settings, _tell))
