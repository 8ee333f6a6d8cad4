"""Whole outages, played on simulated orchestrators against a real daemon: what users feel of them.

All at once, and in seconds: every time of the breakers is scaled down with the outages. `scripts/bench outages` plays
them one by one with the times of the defaults, and judges by the figures that are aimed at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scripts.benchmarks.outages.figures import figures
from scripts.benchmarks.outages.play import play
from scripts.benchmarks.outages.scenarios import SCENARIOS, Times

TIMES: Final = Times(before=1.5, outage=2.5, after=1.5, patience=20.0, open_period=0.5)
#: Jobs a second on each endpoint.
RATE: Final = 10.0
#: Those of the defaults, thirty times as quick.
SETTINGS: Final = {
    "orchestrator": {
        "breaker": {
            "window_seconds": 2.0,
            "minimum_calls": 5,
            # Of the few calls that there are in a stretch of the flapping one.
            "consecutive_failures": 3,
            "open_seconds": TIMES.open_period,
            "open_cap_seconds": 2.0,
            "probe_wait_seconds": 0.1,
        },
        "retry_budget": {"window_seconds": 1.0, "per_second": 10.0},
    },
    "retry": {"base_seconds": 0.2, "cap_seconds": 2.0},
    "endpoint": {"health_interval_seconds": 0.3, "warm_up_seconds": 0.3, "max_wait_seconds": 0.1},
}
#: Share of its throughput that is asked of the healthy load here: in seconds, and on a busy machine, many a job's end
#: falls to the other side of a border.
FAIR: Final = 0.5


async def test_nothing_is_lost_in_any_outage_and_nobody_else_feels_it(tmp_path: Path) -> None:
    """The load goes on after each outage, and every job has ended a few seconds after the last one was offered."""
    played = await play(SCENARIOS, TIMES, rate=RATE, directory=tmp_path / "var", settings=SETTINGS)
    felt = {found.scenario.name: found for found in figures(played)}
    assert {name: found.unended for name, found in felt.items() if found.unended} == {}
    assert {name: found.lost for name, found in felt.items() if found.lost} == {}
    assert [name for name, found in felt.items() if found.fairness < FAIR] == []
    # Without breakers each job would call in vain again and again: several times the load.
    assert {name: found.wasted for name, found in felt.items() if found.waste > 0.75} == {}
