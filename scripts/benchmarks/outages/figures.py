"""What users felt of an outage, in numbers."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from scripts.benchmarks.outages.play import Played
from scripts.benchmarks.outages.scenarios import HEALTHY, Scenario

#: Share of the rate at which jobs are offered that counts as full speed: they come in batches, and end in them.
_FULL: Final = 0.9
#: Share of it below which a load stands still again.
_STILL: Final = 0.5
#: Share of a healthy load's throughput that must be left.
FAIR: Final = 0.95


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario of one play."""

    scenario: Scenario
    #: Jobs on the endpoint while it had its trouble.
    load: float
    #: Jobs, those on healthy endpoints among them, that were accepted and did not succeed.
    lost: int
    #: Those of them that had not ended when nobody waited for them any longer.
    unended: int
    #: Calls to the endpoint that failed and tries that never reached it, in the whole play, whoever made them good.
    wasted: int
    #: Seconds from the end of the trouble until as many jobs end as are offered, and go on to; else infinite.
    recovery: float
    #: Throughput of the load on a healthy endpoint, during the trouble, as a share of that before it.
    fairness: float
    #: Seconds of `recovery` that are allowed: those of the opening under way, a first one's at least. Before it ends, a
    #: breaker that only calls could tell better does not know better.
    open_period: float

    @property
    def waste(self) -> float:
        return self.wasted / self.load

    @property
    def misses(self) -> tuple[str, ...]:
        """The columns whose target is not met."""
        verdicts = {
            "lost": self.lost == 0,
            "wasted": self.waste <= self.scenario.most_wasted,
            "full speed": self.recovery <= self.open_period,
            "healthy": self.fairness >= FAIR,
        }
        return tuple(name for name, met in verdicts.items() if not met)


def figures(played: Played) -> list[Figures]:
    """Those of every scenario of a play."""
    times = played.times
    healthy = [end.at for end in played.ends if end.load == HEALTHY and end.succeeded]
    # The first ones end when their calls have taken their time.
    before = _rate(healthy, times.begin / 4, times.begin)
    return [
        Figures(
            scenario=scenario,
            load=played.rate * times.outage,
            lost=_lost(played, scenario.name) + _lost(played, HEALTHY),
            unended=_unended(played, scenario.name) + _unended(played, HEALTHY),
            wasted=_wasted(played, scenario),
            recovery=_recovery(played, scenario.name),
            fairness=_rate(healthy, times.begin, times.end) / before if before else 0.0,
            open_period=max(times.open_period, played.openings.get(scenario.name, 0.0)),
        )
        for scenario in played.scenarios
    ]


def _lost(played: Played, load: str) -> int:
    return played.offered[load] - sum(end.load == load and end.succeeded for end in played.ends)


def _unended(played: Played, load: str) -> int:
    return played.offered[load] - sum(end.load == load for end in played.ends)


def _wasted(played: Played, scenario: Scenario) -> int:
    """Calls that came and went unseen by the endpoint, as it fell ill, are known to the records alone."""
    return max(played.samples[-1].in_vain(scenario.members), len(played.in_vain.get(scenario.name, ())))


def _recovery(played: Played, load: str) -> float:
    """When a stretch of time begins that has its share of ends, and none comes after it that has hardly any.

    Whoever was called back in a burst, and then stands still, is not at full speed.
    """
    times = played.times
    ends = [end.at for end in played.ends if end.load == load and end.succeeded]
    stretch = max(1.0, times.open_period / 5)
    step = stretch / 10
    recovered = math.inf
    for number in reversed(range(math.floor((times.after - stretch) / step + 1))):
        since = times.end + number * step
        rate = _rate(ends, since, since + stretch)
        if rate < _STILL * played.rate:
            break
        if rate >= _FULL * played.rate:
            recovered = number * step
    return recovered


def _rate(ends: list[float], since: float, until: float) -> float:
    return sum(since <= end < until for end in ends) / (until - since)
