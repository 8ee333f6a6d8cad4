"""The AdminService: each method decodes, calls the Fleet, encodes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from operator import attrgetter
from typing import Final

from altrunner.v1 import admin_pb2, job_service_pb2
from altrunner.v1 import admin_service_pb2 as messages

from runner import frames
from runner.core.errors import EndpointNotFound
from runner.core.fleet import BreakerView, EndpointView
from runner.core.plan import Instant
from runner.ports import Clock, Fleet
from runner.rpc import admin_wire as wire
from runner.rpc.admin_wire import Key
from runner.rpc.calls import Context
from runner.rpc.following import Told, Waits, follow

#: What of a view is told at once when it changes; the rest are figures.
STEADY_BREAKER: Final = attrgetter("state", "reason")
STEADY_ENDPOINT: Final = attrgetter(
    "group", "url", "protocol", "source", "health", "health_error", "draining", "weight", "max_calls", "models"
)
#: Microseconds by which a time may have moved and is still the same: it may be the sum of two clocks, read each time.
SAME_TIME: Final = 500_000


def breakers_alike(one: BreakerView, other: BreakerView) -> bool:
    """Whether they differ in figures at most."""
    if STEADY_BREAKER(one) != STEADY_BREAKER(other):
        return False
    return _same_time(one.since, other.since) and _same_time(one.open_until, other.open_until)


def _same_time(one: Instant | None, other: Instant | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < SAME_TIME


def endpoints_alike(one: EndpointView, other: EndpointView) -> bool:
    """Whether they differ in figures at most."""
    return bool(STEADY_ENDPOINT(one) == STEADY_ENDPOINT(other))


class AdminServicer:
    """Shows and steers one daemon's endpoints and circuit breakers."""

    def __init__(self, fleet: Fleet, clock: Clock, *, heartbeat: float) -> None:
        self._fleet = fleet
        self._clock = clock
        #: Seconds.
        self._heartbeat = heartbeat
        self._waits = Waits()

    def close(self) -> None:
        """Send every watcher away with Draining."""
        self._waits.close()

    # ----------------------------------------------------------------------------------------- circuit breakers

    async def list_breakers(
        self, request: messages.ListBreakersRequest, context: Context
    ) -> messages.ListBreakersResponse:
        self._check(request.endpoints)
        found = ((key, wire.breaker(view)) for key, view in self._breakers(request.endpoints).items())
        breakers, token = wire.page(request, found)
        return messages.ListBreakersResponse(breakers=breakers, next_page_token=token)

    async def watch_breakers(
        self, request: messages.WatchBreakersRequest, context: Context
    ) -> AsyncGenerator[messages.WatchBreakersResponse, None]:
        self._check(request.endpoints)
        entries = follow(
            lambda: self._breakers(request.endpoints),
            breakers_alike,
            changed=self._fleet.changed,
            waits=self._waits,
            heartbeat=self._heartbeat,
            figures=wire.interval(request),
        )
        try:
            async for told in entries:
                response = messages.WatchBreakersResponse()
                for portion in wire.portions(map(wire.breaker, told.changed)):
                    if response.breakers:
                        yield response
                    response = messages.WatchBreakersResponse(breakers=portion)
                response.removed.extend(admin_pb2.BreakerKey(endpoint=key[0], model=key[1]) for key in told.removed)
                self._finish(response, told)
                yield response
        finally:
            await entries.aclose()

    async def set_breaker(self, request: messages.SetBreakerRequest, context: Context) -> messages.SetBreakerResponse:
        state = wire.settable(request.state)
        found = self._fleet.force(request.endpoint, list(dict.fromkeys(request.models)), state)
        return messages.SetBreakerResponse(breakers=map(wire.breaker, found))

    # ------------------------------------------------------------------------------------------------ endpoints

    async def list_endpoints(
        self, request: messages.ListEndpointsRequest, context: Context
    ) -> messages.ListEndpointsResponse:
        self._check(request.names)
        found = ((key, wire.endpoint(view)) for key, view in self._endpoints(request.names).items())
        endpoints, token = wire.page(request, found)
        return messages.ListEndpointsResponse(endpoints=endpoints, next_page_token=token)

    async def watch_endpoints(
        self, request: messages.WatchEndpointsRequest, context: Context
    ) -> AsyncGenerator[messages.WatchEndpointsResponse, None]:
        self._check(request.names)
        entries = follow(
            lambda: self._endpoints(request.names),
            endpoints_alike,
            changed=self._fleet.changed,
            waits=self._waits,
            heartbeat=self._heartbeat,
            figures=wire.interval(request),
        )
        try:
            async for told in entries:
                response = messages.WatchEndpointsResponse()
                for portion in wire.portions(map(wire.endpoint, told.changed)):
                    if response.endpoints:
                        yield response
                    response = messages.WatchEndpointsResponse(endpoints=portion)
                response.removed.extend(name for _, name in told.removed)
                self._finish(response, told)
                yield response
        finally:
            await entries.aclose()

    async def drain_endpoint(
        self, request: messages.DrainEndpointRequest, context: Context
    ) -> messages.DrainEndpointResponse:
        drained = self._fleet.drain(request.name, draining=True)
        return messages.DrainEndpointResponse(endpoint=wire.endpoint(drained))

    async def undrain_endpoint(
        self, request: messages.UndrainEndpointRequest, context: Context
    ) -> messages.UndrainEndpointResponse:
        called = self._fleet.drain(request.name, draining=False)
        return messages.UndrainEndpointResponse(endpoint=wire.endpoint(called))

    # -------------------------------------------------------------------------------------------- registrations

    async def register_endpoint(
        self, request: messages.RegisterEndpointRequest, context: Context
    ) -> messages.RegisterEndpointResponse:
        asked, seconds = wire.registration(request)
        view, lease = await self._fleet.register(asked, seconds=seconds)
        return messages.RegisterEndpointResponse(endpoint=wire.endpoint(view), lease=wire.lease(lease))

    async def renew_endpoint(
        self, request: messages.RenewEndpointRequest, context: Context
    ) -> messages.RenewEndpointResponse:
        renewed = await self._fleet.renew(request.name, request.lease_id)
        return messages.RenewEndpointResponse(lease=wire.lease(renewed))

    async def deregister_endpoint(
        self, request: messages.DeregisterEndpointRequest, context: Context
    ) -> messages.DeregisterEndpointResponse:
        await self._fleet.deregister(request.name, request.lease_id)
        return messages.DeregisterEndpointResponse()

    # ---------------------------------------------------------------------------------------------------- looks

    def _breakers(self, endpoints: Collection[str]) -> dict[Key, BreakerView]:
        found = self._fleet.breakers()
        return {(view.endpoint, view.model): view for view in found if not endpoints or view.endpoint in endpoints}

    def _endpoints(self, names: Collection[str]) -> dict[Key, EndpointView]:
        found = self._fleet.endpoints()
        return {(view.group, view.name): view for view in found if not names or view.name in names}

    def _check(self, names: Collection[str]) -> None:
        """Raises EndpointNotFound: for the first that is not there."""
        known = {view.name for view in self._fleet.endpoints()} if names else frozenset()
        for name in names:
            if name not in known:
                raise EndpointNotFound(name)

    def _finish(
        self,
        response: messages.WatchBreakersResponse | messages.WatchEndpointsResponse,
        told: Told[Key, BreakerView] | Told[Key, EndpointView],
    ) -> None:
        response.caught_up = told.first
        if not (told.first or told.changed or told.removed):
            response.heartbeat.CopyFrom(job_service_pb2.Heartbeat(time=frames.timestamp(self._clock.now())))
