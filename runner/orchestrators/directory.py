"""The endpoints there are at this moment, and the Routers by which tasks ask them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import anyio

from runner.core.errors import EndpointNotFound
from runner.orchestrators.endpoint import Endpoint
from runner.orchestrators.router import Router
from runner.orchestrators.settings import OrchestratorSettings
from runner.orchestrators.surroundings import Surroundings


class Directory(Mapping[str, Router]):
    """Routers by the names that tasks may use: those of groups, in the order of the settings, then those of endpoints.

    A group that has no endpoint at the moment is there all the same: its tasks wait.
    """

    def __init__(self, settings: OrchestratorSettings, surroundings: Surroundings) -> None:
        self._max_models = max((endpoint.max_models for endpoint in settings.endpoints), default=1)
        self._with = surroundings
        self._groups: dict[str, dict[str, Endpoint]] = {endpoint.group_name: {} for endpoint in settings.endpoints}
        self._endpoints: dict[str, Endpoint] = {}
        #: Checks of descriptors add to it on other threads: it is walked as a copy.
        self._routers: dict[str, Router] = {}
        self._leases = settings.leases
        self._come_by_themselves = any(each.takes_registrations or each.every_address for each in settings.endpoints)
        #: Endpoints that left, and until when they are expected back, monotonic.
        self._expected: dict[str, float] = {}
        #: Until when an endpoint of any name may be one that has yet to come.
        self._settling_until = -math.inf
        #: Whether somebody may stand in a line.
        self.waiting_somewhere = False

    # ------------------------------------------------------------------------------------------ for handlers

    def __getitem__(self, name: str) -> Router:
        if not self.is_taken(name) and not self._awaits(name):
            raise KeyError(name)
        router = self._routers.get(name)
        if router is None:
            router = self._routers[name] = Router(
                name, self, self._with, max_models=self._max_models, joined=self._joined
            )
        return router

    def __iter__(self) -> Iterator[str]:
        yield from self._groups
        yield from (name for name in self._endpoints if name not in self._groups)

    def __len__(self) -> int:
        return len(self._groups.keys() | self._endpoints.keys())

    def _awaits(self, name: str) -> bool:
        """Whether an endpoint may be about to come, or to come back: whoever names it waits rather than fails.

        On any thread, as descriptors are checked on any.
        """
        until = max(self._settling_until, self._expected.get(name, -math.inf))
        if until == -math.inf or self._with.time() >= until:
            return False
        return name in self._expected or name in self._routers or len(self._routers) < self._leases.max_endpoints

    # ------------------------------------------------------------------------------------------- for Routers

    def of(self, name: str) -> Sequence[Endpoint]:
        """Those of a group, or the one of that name."""
        if name in self._groups:
            return tuple(self._groups[name].values())
        return (self._endpoints[name],) if name in self._endpoints else ()

    def knowing(self, wanted: str) -> Sequence[Endpoint]:
        """Those of all groups that are known to serve a model, by its name, an alias or a label."""
        return [endpoint for endpoint in self._endpoints.values() if endpoint.catalogue.known(wanted)]

    # -------------------------------------------------------------------------------------------- for the fleet

    @property
    def endpoints(self) -> list[Endpoint]:
        """All, by group and name."""
        return sorted(self._endpoints.values(), key=lambda endpoint: (endpoint.group, endpoint.name))

    def endpoint(self, name: str) -> Endpoint:
        """Raises EndpointNotFound."""
        try:
            return self._endpoints[name]
        except KeyError:
            raise EndpointNotFound(name) from None

    def has(self, name: str) -> bool:
        """Whether there is an endpoint of that name."""
        return name in self._endpoints

    def is_taken(self, name: str) -> bool:
        """Whether an endpoint or a group has that name."""
        return name in self._groups or name in self._endpoints

    def holds(self, endpoint: Endpoint) -> bool:
        """Whether it is among them."""
        return self._endpoints.get(endpoint.name) is endpoint

    def settle(self) -> None:
        """The daemon has just started: servers that had registered have yet to do so anew, and names to be resolved."""
        if self._come_by_themselves:
            self._settling_until = self._with.time() + self._leases.seconds

    def add(self, endpoint: Endpoint) -> None:
        self._expected.pop(endpoint.name, None)
        self._endpoints[endpoint.name] = endpoint
        self._groups.setdefault(endpoint.group, {})[endpoint.name] = endpoint
        self._changed()

    def remove(self, endpoint: Endpoint) -> None:
        """It gets no new calls. Whoever names it waits for it, as long as for a heartbeat at most, and then is told."""
        del self._endpoints[endpoint.name]
        del self._groups[endpoint.group][endpoint.name]
        now = self._with.time()
        for name in [name for name, until in self._expected.items() if until <= now]:
            del self._expected[name]
            self._routers.pop(name, None)
        if endpoint.name not in self._groups:
            self._expected[endpoint.name] = now + self._leases.seconds
        self._changed()

    def learn(self, endpoint: Endpoint, models: tuple[str, ...]) -> None:
        """Take over which models an endpoint says that it serves."""
        if endpoint.catalogue.learn(models):
            self._changed()

    def _changed(self) -> None:
        for router in tuple(self._routers.values()):
            router.forget_targets()
        self._with.changed()
        self._with.stir(anyio.current_time())

    def waiting(self, endpoint: Endpoint, model: str | None = None) -> int:
        """Those in line for an endpoint, and for one of its models."""
        return sum(router.waiting(endpoint, model) for router in tuple(self._routers.values()))

    def stir(self, now: float) -> bool:
        """Call as many as may begin now. Answers whether somebody waits still."""
        waiting = [router.stir(now) for router in tuple(self._routers.values())]
        self.waiting_somewhere = any(waiting)
        return self.waiting_somewhere

    def _joined(self) -> None:
        self.waiting_somewhere = True
        self._with.stir(anyio.current_time())
