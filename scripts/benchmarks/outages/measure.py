"""`scripts/bench outages`: plays every scenario, a few at a time, and prints what users felt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import anyio
import msgspec

from scripts.benchmarks.outages.figures import FAIR, Figures, figures
from scripts.benchmarks.outages.play import Played, play
from scripts.benchmarks.outages.scenarios import SCENARIOS, Scenario, Times
from scripts.benchmarks.report import as_rows
from scripts.benchmarks.settings import Bench

#: The times of the defaults: the first opening of a breaker lasts 15 s.
FULL: Final = Times(before=15, outage=60, after=75, patience=60, open_period=15)
#: A fifth of them.
QUICK: Final = Times(before=4, outage=12, after=16, patience=30, open_period=3)
#: Settings that scale the breakers with `QUICK`.
_QUICK_SETTINGS: Final = {
    "orchestrator": {
        "breaker": {"window_seconds": 12, "open_seconds": 3, "open_cap_seconds": 60, "probe_wait_seconds": 0.4},
        "retry_budget": {"window_seconds": 2},
    },
    "retry": {"base_seconds": 0.1, "cap_seconds": 12},
    "endpoint": {"health_interval_seconds": 2, "warm_up_seconds": 2, "max_wait_seconds": 0.4},
}
#: Jobs a second on each endpoint.
_RATE: Final = 30.0
#: Plays at a time, each with a daemon of its own: more would compete for the processor.
_AT_A_TIME: Final = 2


async def measure(bench: Bench) -> list[Played]:
    """Every scenario, each on a daemon of its own, in the order of SCENARIOS."""
    played: dict[str, Played] = {}
    room = anyio.CapacityLimiter(_AT_A_TIME)

    async def one(scenario: Scenario) -> None:
        async with room:
            played[scenario.name] = await play(
                [scenario],
                QUICK if bench.quick else FULL,
                rate=_RATE,
                directory=bench.directory / scenario.name,
                settings=_QUICK_SETTINGS if bench.quick else {},
            )

    async with anyio.create_task_group() as plays:
        for scenario in SCENARIOS:
            plays.start_soon(one, scenario)
    return [played[scenario.name] for scenario in SCENARIOS]


def as_table(played: Sequence[Played]) -> str:
    """A Markdown table under a line that says how it was played."""
    times, rate = played[0].times, played[0].rate
    head = ("outage", "jobs lost", "calls wasted", "full speed after", "healthy load", "met")
    targets = ("target", "0", "share of the load", "one opening", f"≥ {FAIR:g}", "")
    rows = [_cells(found) for each in played for found in figures(each)]
    how = (
        f"{rate:g} jobs/s on each endpoint; {times.before:g} s before, {times.outage:g} s of outage,"
        f" {times.after:g} s after; {_AT_A_TIME} outages at a time, each with a daemon of its own"
    )
    return "\n".join([how, "", *as_rows([head, targets, *rows])])


def _cells(found: Figures) -> tuple[str, ...]:
    return (
        found.scenario.what,
        f"{found.lost}" + (f", {found.unended} of them not ended" if found.unended else ""),
        f"{found.wasted} = {found.waste:.1%} (≤ {found.scenario.most_wasted:.0%})",
        ("never" if found.recovery == math.inf else f"{found.recovery:.1f} s") + f" (≤ {found.open_period:.0f} s)",
        f"{found.fairness:.2f}",
        "no: " + ", ".join(found.misses) if found.misses else "yes",
    )


def as_values(played: Sequence[Played]) -> list[dict[str, Any]]:
    """The figures, for programs."""
    return [
        msgspec.to_builtins(found) | {"waste": found.waste, "misses": found.misses}
        for each in played
        for found in figures(each)
    ]
