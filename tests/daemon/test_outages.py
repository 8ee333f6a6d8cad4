"""Whole outages, played on simulated orchestrators against a real daemon: what users feel of them.

All at once, and in seconds: every time of the breakers is scaled down with the outages. `scripts/bench outages` plays
them one by one with the times of the defaults, and judges by the figures that are aimed at.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from scripts.benchmarks.outages.figures import figures
from scripts.benchmarks.outages.play import play
from scripts.benchmarks.outages.scenarios import SCENARIOS, Times

TIMES: Final = Times(before=1.5, outage=3.0, after=2.5, patience=15.0, open_period=0.5)
#: Jobs a second on each endpoint.
RATE: Final = 12.0
#: Those of the defaults, thirty times as quick.
SETTINGS: Final = {
    "orchestrator": {
        "breaker": {
            "window_seconds": 2.0,
            "minimum_calls": 5,
            "open_seconds": TIMES.open_period,
            "open_cap_seconds": 10.0,
            "probe_wait_seconds": 0.1,
        },
        "retry_budget": {"window_seconds": 1.0},
    },
    "retry": {"base_seconds": 0.05, "cap_seconds": 2.0},
    "endpoint": {"health_interval_seconds": 0.3, "warm_up_seconds": 0.3, "max_wait_seconds": 0.1},
}
#: In one run of this test on a busy machine a healthy load's ends may fall to either side of a border.
FAIR: Final = 0.75


async def test_nothing_is_lost_in_any_outage_and_nobody_else_feels_it(tmp_path: Path) -> None:
    """Each endpoint's outage ends before the load does; by then it is at full speed again."""
    alone = [scenario for scenario in SCENARIOS if scenario.endpoints == 1 and not scenario.trouble.key]
    played = await play(alone, TIMES, rate=RATE, directory=tmp_path / "var", settings=SETTINGS)
    felt = {found.scenario.name: found for found in figures(played)}
    assert {name: found.lost for name, found in felt.items()} == dict.fromkeys(felt, 0)
    assert [name for name, found in felt.items() if found.recovery == math.inf] == []
    assert [name for name, found in felt.items() if found.fairness < FAIR] == []
    # Without breakers each job would call in vain again and again: several times the load.
    assert {name: found.wasted for name, found in felt.items() if found.waste > 1.0} == {}
