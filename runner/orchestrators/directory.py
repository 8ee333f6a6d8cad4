"""The endpoints there are at this moment, and the Routers by which tasks ask them."""

from __future__ import annotations

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
        self._routers: dict[str, Router] = {}
        #: Whether somebody may stand in a line.
        self.waiting_somewhere = False

    # ------------------------------------------------------------------------------------------ for handlers

    def __getitem__(self, name: str) -> Router:
        if name not in self._groups and name not in self._endpoints:
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

    def holds(self, endpoint: Endpoint) -> bool:
        """Whether it is among them."""
        return self._endpoints.get(endpoint.name) is endpoint

    def add(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint.name] = endpoint
        self._groups.setdefault(endpoint.group, {})[endpoint.name] = endpoint
        self._changed()

    def remove(self, endpoint: Endpoint) -> None:
        """It gets no new calls; whoever waits in line for it alone comes when its patience ends, and is told."""
        del self._endpoints[endpoint.name]
        del self._groups[endpoint.group][endpoint.name]
        if endpoint.name not in self._groups:
            self._routers.pop(endpoint.name, None)
        self._changed()

    def learn(self, endpoint: Endpoint, models: tuple[str, ...]) -> None:
        """Take over which models an endpoint says that it serves."""
        if endpoint.catalogue.learn(models):
            self._changed()

    def _changed(self) -> None:
        for router in self._routers.values():
            router.forget_targets()
        self._with.changed()
        self._with.stir(anyio.current_time())

    def waiting(self, endpoint: Endpoint, model: str | None = None) -> int:
        """Those in line for an endpoint, and for one of its models."""
        return sum(router.waiting(endpoint, model) for router in self._routers.values())

    def stir(self, now: float) -> bool:
        """Call as many as may begin now. Answers whether somebody waits still."""
        waiting = [router.stir(now) for router in self._routers.values()]
        self.waiting_somewhere = any(waiting)
        return self.waiting_somewhere

    def _joined(self) -> None:
        self.waiting_somewhere = True
        self._with.stir(anyio.current_time())
