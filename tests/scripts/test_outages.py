"""The figures of outages say what was seen."""

from __future__ import annotations

import math

import msgspec
import pytest

from scripts.benchmarks.outages.figures import Figures, figures
from scripts.benchmarks.outages.load import End
from scripts.benchmarks.outages.play import Played, Sample
from scripts.benchmarks.outages.scenarios import HEALTHY, SCENARIOS, Scenario, Times, Trouble

TIMES = Times(before=10.0, outage=20.0, after=20.0, patience=1.0, open_period=5.0)
SCENARIO = Scenario(name="sick", what="sick", trouble=Trouble(down=True))
RATE = 10.0


def ends(load: str, since: float, until: float, rate: float = RATE) -> tuple[End, ...]:
    """Jobs that succeeded, evenly."""
    return tuple(End(load, since + n / rate, succeeded=True) for n in range(round((until - since) * rate)))


#: The endpoint was down, its jobs ended in the two seconds after 32, and the healthy ones felt nothing.
PLAYED = Played(
    scenarios=(SCENARIO,),
    times=TIMES,
    rate=RATE,
    offered={"sick": 500, HEALTHY: 500},
    ends=(
        *ends(HEALTHY, 0, 50),
        *ends("sick", 0, 10),
        *ends("sick", 32, 34, 110),
        *ends("sick", 34, 50, 11.25),
    ),
    samples=(Sample(50.0, {"sick": 3, HEALTHY: 0}),),
    in_vain={"sick": (10.0, 10.1, 12.0, 15.0)},
    log=(),
)


def figured(played: Played) -> Figures:
    [found] = figures(played)
    return found


def test_an_outage_that_nobody_felt_misses_nothing() -> None:
    found = figured(PLAYED)
    assert (found.lost, found.wasted, found.fairness) == (0, 4, 1.0)
    assert found.recovery == pytest.approx(1.1, abs=0.15)
    assert found.waste == 4 / 200
    assert found.misses == ()


def test_a_job_that_failed_or_never_ended_is_lost() -> None:
    failed = msgspec.structs.replace(PLAYED.ends[-1], succeeded=False)
    found = figured(msgspec.structs.replace(PLAYED, ends=(*PLAYED.ends[:-1], failed)))
    assert (found.lost, found.unended, found.misses) == (1, 0, ("lost",))
    found = figured(msgspec.structs.replace(PLAYED, ends=PLAYED.ends[:-2]))
    assert (found.lost, found.unended, found.misses) == (2, 2, ("lost",))


def test_what_never_comes_back_to_full_speed_has_no_recovery() -> None:
    burst = tuple(end for end in PLAYED.ends if end.load == HEALTHY or end.at < 35)
    found = figured(msgspec.structs.replace(PLAYED, ends=burst))
    assert found.recovery == math.inf
    assert "full speed" in found.misses


def test_a_healthy_load_that_slows_down_was_treated_unfairly() -> None:
    slowed = tuple(end for end in PLAYED.ends if end.load != HEALTHY or not 20 <= end.at < 25)
    found = figured(msgspec.structs.replace(PLAYED, ends=slowed))
    assert found.fairness == pytest.approx(0.75)
    assert "healthy" in found.misses


def test_calls_that_failed_are_counted_by_whoever_knows_of_more() -> None:
    seen = (Sample(50.0, {"sick": 10, HEALTHY: 0}),)
    found = figured(msgspec.structs.replace(PLAYED, samples=seen))
    assert (found.wasted, found.misses) == (10, ("wasted",))


def test_tries_that_another_endpoint_made_good_are_wasted_as_calls_that_failed_are() -> None:
    """They are in no record; those of other endpoints do not count here."""
    seen = (Sample(50.0, {"sick": 3, HEALTHY: 0}, {"sick": 6, HEALTHY: 70}),)
    assert figured(msgspec.structs.replace(PLAYED, samples=seen)).wasted == 9
    assert figured(msgspec.structs.replace(PLAYED, samples=seen, in_vain={"sick": (10.0,) * 10})).wasted == 10


def test_a_trouble_that_comes_and_goes_fills_the_outage_and_is_there_at_both_of_its_ends() -> None:
    stretches = msgspec.structs.replace(SCENARIO, visits=3).stretches(TIMES)
    assert stretches == [(10.0, 14.0), (18.0, 22.0), (26.0, 30.0)]


def test_names_of_scenarios_and_endpoints_are_unique() -> None:
    names = [member for scenario in SCENARIOS for member in scenario.members]
    assert len({*names, HEALTHY}) == len(names) + 1
