"""The outages that are played, as data: what happens to an endpoint, when, and what its users may feel of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """How long everything lasts, seconds."""

    #: Of load before the outage: the other side of what is compared.
    before: float
    outage: float
    #: Of load after it.
    after: float
    #: That the last jobs have to end in once no more are offered.
    patience: float
    #: The first opening of a breaker.
    open_period: float

    @property
    def begin(self) -> float:
        """When the outage begins, from the first job on."""
        return self.before

    @property
    def end(self) -> float:
        return self.before + self.outage

    @property
    def offered_until(self) -> float:
        return self.end + self.after


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with an endpoint."""

    #: It does not listen: connections are refused, and those that there were are cut.
    down: bool = False
    #: It wants another key than the daemon has, until the daemon is given it.
    key: bool = False
    #: Fields of the simulator's Behaviour.
    behaviour: Mapping[str, Any] = {}
    #: `Retry-After`, as a share of the first opening of a breaker; 0: not told.
    retry_after: float = 0.0

    def changes(self, times: Times) -> dict[str, Any]:
        """The fields of Behaviour that change."""
        told = {"retry_after_seconds": self.retry_after * times.open_period} if self.retry_after else {}
        return {**self.behaviour, **told}


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One outage."""

    name: str
    #: A few words for tables and plots.
    what: str
    trouble: Trouble
    #: How often the trouble comes; between its visits the endpoint is well for as long.
    visits: int = 1
    #: Endpoints of the group; the first one has the trouble.
    endpoints: int = 1
    #: Calls that may fail, as a share of the load during the outage.
    most_wasted: float = 0.02

    @property
    def sick(self) -> str:
        """The endpoint that has the trouble."""
        return self.members[0]

    @property
    def members(self) -> tuple[str, ...]:
        if self.endpoints == 1:
            return (self.name,)
        return tuple(f"{self.name}-{number}" for number in range(1, self.endpoints + 1))

    def stretches(self, times: Times) -> list[tuple[float, float]]:
        """When the trouble is there: from, to."""
        length = times.outage / (2 * self.visits - 1)
        return [(times.begin + 2 * n * length, times.begin + (2 * n + 1) * length) for n in range(self.visits)]


SCENARIOS: Final = (
    Scenario(name="blackout", what="blackout: connections refused", trouble=Trouble(down=True)),
    Scenario(
        name="brown-out",
        what="brown-out: 20 times as slow",
        trouble=Trouble(behaviour={"slow_factor": 20.0}),
    ),
    Scenario(
        name="errors",
        what="30 % of calls fail",
        trouble=Trouble(behaviour={"error_rate": 0.3}),
        # Nothing is down: three tenths fail of the first calls and of their repetitions, which is 3 ÷ 7, and chance.
        most_wasted=0.5,
    ),
    Scenario(
        name="wave-of-429",
        what="a wave of 429, Retry-After",
        trouble=Trouble(behaviour={"error_rate": 1.0, "error_status": 429}, retry_after=2 / 3),
    ),
    Scenario(name="one-of-three", what="one dead endpoint of three", trouble=Trouble(down=True), endpoints=3),
    Scenario(name="flapping", what="flapping: down, up, down, …", trouble=Trouble(down=True), visits=6),
    Scenario(name="poisoned", what="poisoned: 200 with garbage", trouble=Trouble(behaviour={"garbage": True})),
    Scenario(name="wrong-key", what="a wrong key, then the right one", trouble=Trouble(key=True)),
)
#: The endpoint that is always well, and the load on it.
HEALTHY: Final = "healthy"
