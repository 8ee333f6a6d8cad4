"""A fleet that tests steer: it keeps what it is told, and calls nobody."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Final

import anyio
from msgspec.structs import replace

from runner.core.breaker import BreakerState
from runner.core.errors import EndpointNotFound, InvalidRequest, RegistrationRefused
from runner.core.findings import Finding
from runner.core.fleet import BreakerView, EndpointHealth, EndpointSource, EndpointView, Lease, Registration
from runner.core.plan import Instant

#: 2026-11-22T12:03:06Z in microseconds.
NOON: Final = 1_795_348_986 * 1_000_000
SECOND: Final = 1_000_000


def breaker(endpoint: str, model: str = "", state: BreakerState = BreakerState.CLOSED, **more: Any) -> BreakerView:
    return BreakerView(endpoint=endpoint, model=model, state=state, since=NOON, **more)


def endpoint(name: str, group: str = "main", **more: Any) -> EndpointView:
    return EndpointView(
        name=name,
        group=group,
        url=f"http://{name}:8080",
        protocol="altlas",
        source=EndpointSource.CONFIGURED,
        health=EndpointHealth.HEALTHY,
        max_calls=32,
        **more,
    )


class PlayedFleet:
    """Implements `runner.ports.Fleet`."""

    def __init__(self, *views: EndpointView | BreakerView) -> None:
        self._endpoints = {view.name: view for view in views if isinstance(view, EndpointView)}
        self._breakers = {(view.endpoint, view.model): view for view in views if isinstance(view, BreakerView)}
        self._leases: dict[str, Lease] = {}
        self._changed = anyio.Event()
        #: Registrations and renewals so far, and how many wait for a change.
        self.registered, self.renewed, self.waiting = 0, 0, 0
        #: Somebody began to wait; the last one stopped.
        self.awaited, self.left = anyio.Event(), anyio.Event()
        #: Seconds of a lease that asks for no other.
        self.seconds = 30.0

    def endpoints(self) -> list[EndpointView]:
        return list(self._endpoints.values())

    def breakers(self) -> list[BreakerView]:
        return list(self._breakers.values())

    async def changed(self) -> None:
        self.waiting += 1
        self.awaited.set()
        try:
            await self._changed.wait()
        finally:
            self.waiting -= 1
            if not self.waiting:
                self.left.set()

    def force(self, endpoint: str, models: Collection[str], state: BreakerState) -> list[BreakerView]:
        self._named(endpoint)
        chosen = models or [model for name, model in self._breakers if name == endpoint]
        views = [breaker(endpoint, model, state) for model in chosen]
        self.put(*views)
        return views

    def drain(self, endpoint: str, *, draining: bool) -> EndpointView:
        view = replace(self._named(endpoint), draining=draining)
        self.put(view)
        return view

    async def register(self, registration: Registration, *, seconds: float | None) -> tuple[EndpointView, Lease]:
        if registration.weight <= 0:
            raise InvalidRequest(Finding("OUT_OF_RANGE", "weight", "more than 0"))
        if registration.group == "closed":
            raise RegistrationRefused("group `closed` takes no registrations; set `takes_registrations`")
        self.registered += 1
        lease = self._lease(f"lease-{self.registered}", seconds or self.seconds)
        self._leases[registration.name] = lease
        view = replace(
            endpoint(registration.name, registration.group),
            url=registration.url,
            source=EndpointSource.REGISTERED,
            weight=registration.weight,
            models=registration.models,
            lease_until=lease.until,
        )
        self.put(view)
        return view, lease

    async def renew(self, endpoint: str, lease_id: str) -> Lease:
        lease = self._leases.get(endpoint)
        if lease is None or lease.id != lease_id:
            raise EndpointNotFound(endpoint)
        self.renewed += 1
        self._leases[endpoint] = self._lease(lease_id, lease.seconds)
        self._wake()
        return self._leases[endpoint]

    async def deregister(self, endpoint: str, lease_id: str) -> None:
        if endpoint not in self._leases or self._leases[endpoint].id != lease_id:
            raise EndpointNotFound(endpoint)
        self.forget(endpoint)

    # ---------------------------------------------------------------------------------------------- what tests do

    def put(self, *views: EndpointView | BreakerView) -> None:
        """Replace what there is of these names, and tell it."""
        self.put_quietly(*views)
        self._wake()

    def put_quietly(self, *views: EndpointView | BreakerView) -> None:
        """Figures change without anybody being told."""
        for view in views:
            if isinstance(view, EndpointView):
                self._endpoints[view.name] = view
            else:
                self._breakers[view.endpoint, view.model] = view

    def forget(self, name: str) -> None:
        """As a daemon that was restarted, or whose lease ended."""
        self._endpoints.pop(name)
        self._leases.pop(name, None)
        self._breakers = {key: view for key, view in self._breakers.items() if key[0] != name}
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _named(self, name: str) -> EndpointView:
        if name not in self._endpoints:
            raise EndpointNotFound(name)
        return self._endpoints[name]

    @staticmethod
    def _lease(lease_id: str, seconds: float) -> Lease:
        now: Instant = time.time_ns() // 1_000
        return Lease(id=lease_id, until=now + round(seconds * SECOND), seconds=seconds)
