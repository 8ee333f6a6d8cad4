"""All endpoints of all AI orchestrators, as operators see and steer them, and as servers register themselves.

What tasks ask is its `directory`; what happens by itself is in `upkeep`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

import anyio
import msgspec

from runner.core.breaker import BreakerState
from runner.core.errors import EndpointNotFound, InvalidRequest, RegistrationRefused
from runner.core.findings import Finding
from runner.core.fleet import BreakerView, EndpointSource, EndpointView, Lease, Registration
from runner.core.secret import Secret
from runner.orchestrators.breakers import MICROS
from runner.orchestrators.directory import Directory
from runner.orchestrators.endpoint import Endpoint
from runner.orchestrators.model_lists import Speaker
from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings
from runner.orchestrators.surroundings import Surroundings
from runner.ports import Clock, Observer

#: Seconds that a lease lasts at least: heartbeats more often than every third of it would be load for nothing.
_SHORTEST_LEASE = 1.0


class Connected(msgspec.Struct, frozen=True):
    """An endpoint that can be spoken to."""

    speaker: Speaker
    #: Takes an API key to be sent from then on.
    take_key: Callable[[Secret], None]


class Opener(Protocol):
    """Opens what speaks to an endpoint; connects to nothing yet."""

    def __call__(self, settings: EndpointSettings, address: str | None) -> AbstractAsyncContextManager[Connected]:
        """`address`: the one of its host name that is meant, where it has several.

        Raises InvalidSettings: if the files of its TLS settings cannot be used.
        """


class Fleet:
    """The port of this name. Everything but opening and closing is synchronous and happens on the event loop."""

    def __init__(
        self,
        settings: OrchestratorSettings,
        opener: Opener,
        *,
        clock: Clock,
        observer: Observer,
        chance: Callable[[], float],
        new_id: Callable[[], str],
        time: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.settings = settings
        self._opener = opener
        self._clock = clock
        self._new_id = new_id
        surroundings = Surroundings(
            settings=settings,
            clock=clock,
            time=time,
            observer=observer,
            chance=chance,
            stir=self.stir,
            changed=self._tell,
        )
        self._with = surroundings
        self.directory = Directory(settings, surroundings)
        #: Set when somebody begins to wait in line.
        self.restless = anyio.Event()
        self._changed = anyio.Event()
        #: What each endpoint holds open.
        self._stacks: dict[Endpoint, AsyncExitStack] = {}
        #: By the name of the configured endpoint, the API keys that were taken over since the start.
        self._keys: dict[str, Secret] = {}
        #: Of registered endpoints, when their leases end, monotonic.
        self._lease_ends: dict[str, float] = {}
        #: One registration at a time: two of one name would open two endpoints.
        self._registering = anyio.Lock()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the endpoints of the settings, and close all there are at the end."""
        try:
            for configured in self.settings.endpoints:
                if not configured.every_address:
                    await self.add(configured, origin=configured.name, source=EndpointSource.CONFIGURED)
            yield
        finally:
            with anyio.CancelScope(shield=True):
                for stack in self._stacks.values():
                    await stack.aclose()

    def stir(self, now: float) -> None:
        """Call from the lines as many as may begin now."""
        # It happens with every call, and mostly there is no line.
        if self.directory.waiting_somewhere and self.directory.stir(now):
            self.restless.set()

    # ----------------------------------------------------------------------------------------------- operators

    def endpoints(self) -> list[EndpointView]:
        return [self._view(endpoint) for endpoint in self.directory.endpoints]

    def breakers(self) -> list[BreakerView]:
        return [view for endpoint in self.directory.endpoints for view in self._breakers(endpoint)]

    async def changed(self) -> None:
        await self._changed.wait()

    def force(self, endpoint: str, models: Collection[str], state: BreakerState) -> list[BreakerView]:
        found = self.directory.endpoint(endpoint)
        found.breakers.force(models, state, anyio.current_time())
        return [view for view in self._breakers(found) if not models or view.model in models]

    def drain(self, endpoint: str, *, draining: bool) -> EndpointView:
        found = self.directory.endpoint(endpoint)
        if found.draining is not draining:
            found.draining = draining
            self._with.observer.notice("endpoint_draining", endpoint=endpoint, draining=draining)
            if not draining:
                found.warm_up(anyio.current_time())
            self._tell()
            self.stir(anyio.current_time())
        return self._view(found)

    def renew_keys(self, settings: OrchestratorSettings) -> None:
        """Take over the API keys of settings that were read again; endpoints that refused theirs are asked again.

        Those that come later, because they register or their name gets an address, are called with them, too.
        """
        self._keys = {configured.name: configured.api_key for configured in settings.endpoints}
        for endpoint in self.directory.endpoints:
            if endpoint.origin in self._keys:
                endpoint.take_key(self._keys[endpoint.origin], anyio.current_time())

    def _view(self, endpoint: Endpoint) -> EndpointView:
        return endpoint.view(anyio.current_time(), self.directory.waiting(endpoint))

    def _breakers(self, endpoint: Endpoint) -> list[BreakerView]:
        waiting = self.directory.waiting
        return list(endpoint.breakers.views(anyio.current_time(), lambda model: waiting(endpoint, model)))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # -------------------------------------------------------------------------------------------- registration

    async def register(self, registration: Registration, *, seconds: float | None) -> tuple[EndpointView, Lease]:
        async with self._registering:
            return await self._register(registration, seconds)

    async def _register(self, registration: Registration, seconds: float | None) -> tuple[EndpointView, Lease]:
        template = self._template(registration)
        settings = _registered(registration, template)
        known = self._lease_ends.keys() & {registration.name}
        endpoint = self.directory.endpoint(registration.name) if known else None
        if endpoint is not None and endpoint.settings != settings:
            if endpoint.settings.url != settings.url:
                raise RegistrationRefused(
                    f"endpoint `{registration.name}` is registered at {endpoint.settings.url}; take another name, or"
                    " wait until its lease has ended"
                )
            await self.remove(endpoint)
            endpoint = None
        if endpoint is None:
            endpoint = await self.add(settings, origin=template.name, source=EndpointSource.REGISTERED)
            endpoint.warm_up(anyio.current_time())
            told = {"endpoint": endpoint.name, "group": endpoint.group, "url": settings.url}
            self._with.observer.notice("endpoint_registered", **told)
        lease = self._leased(endpoint, self._new_id(), seconds)
        return self._view(endpoint), lease

    async def renew(self, endpoint: str, lease_id: str) -> Lease:
        found, lease = self._held(endpoint, lease_id)
        return self._leased(found, lease.id, lease.seconds)

    async def deregister(self, endpoint: str, lease_id: str) -> None:
        found, _ = self._held(endpoint, lease_id)
        self._with.observer.notice("endpoint_deregistered", endpoint=endpoint)
        await self.remove(found)

    async def expire(self, now: float) -> float | None:
        """Forget the endpoints whose leases have ended. Answers when the next one ends, if there is one."""
        for name in [name for name, ends in self._lease_ends.items() if ends <= now]:
            # While another one was closed, it may have been renewed, or be gone.
            if self._lease_ends.get(name, math.inf) > now:
                continue
            self._with.observer.notice("endpoint_lease_ended", endpoint=name)
            await self.remove(self.directory.endpoint(name))
        return min(self._lease_ends.values(), default=None)

    def _template(self, registration: Registration) -> EndpointSettings:
        """The configured endpoint whose settings a registered one gets."""
        group, name = registration.group, registration.name
        members = [each for each in self.settings.endpoints if each.group_name == group]
        if not members:
            raise RegistrationRefused(f'there is no group `{group}`; configure an endpoint with `group = "{group}"`')
        templates = [each for each in members if each.takes_registrations]
        if not templates:
            raise RegistrationRefused(
                f"group `{group}` takes no registrations"
                f" (setting `orchestrator.endpoints[{members[0].name}].takes_registrations`)"
            )
        if name not in self._lease_ends:
            if self.directory.is_taken(name):
                raise RegistrationRefused(f"`{name}` is the name of another endpoint or group; take another one")
            most = self.settings.leases.max_endpoints
            if len(self._lease_ends) >= most:
                raise RegistrationRefused(
                    f"{most} endpoints are registered, as many as may be (setting `orchestrator.leases.max_endpoints`)"
                )
        return templates[0]

    def _leased(self, endpoint: Endpoint, lease_id: str, seconds: float | None) -> Lease:
        policy = self.settings.leases
        asked = policy.seconds if seconds is None else seconds
        lasting = max(_SHORTEST_LEASE, min(asked, policy.max_seconds))
        lease = Lease(id=lease_id, until=self._clock.now() + round(lasting * MICROS), seconds=lasting)
        endpoint.lease = lease
        self._lease_ends[endpoint.name] = anyio.current_time() + lasting
        return lease

    def _held(self, name: str, lease_id: str) -> tuple[Endpoint, Lease]:
        if name not in self._lease_ends:
            raise EndpointNotFound(name)
        endpoint = self.directory.endpoint(name)
        if endpoint.lease is None or endpoint.lease.id != lease_id:
            raise EndpointNotFound(name)
        return endpoint, endpoint.lease

    # ------------------------------------------------------------------------------------------ coming and going

    async def add(
        self, settings: EndpointSettings, *, origin: str, source: EndpointSource, address: str | None = None
    ) -> Endpoint:
        """Open an endpoint and call it from now on. Raises RegistrationRefused: if another one has its name."""
        stack = AsyncExitStack()
        connected = await stack.enter_async_context(self._opener(settings, address))
        if self.directory.has(settings.name):
            await stack.aclose()
            raise RegistrationRefused(f"`{settings.name}` is the name of another endpoint; take another one")
        endpoint = Endpoint(
            connected.speaker, settings, self._with, origin=origin, source=source, take_key=connected.take_key
        )
        if origin in self._keys:
            connected.take_key(self._keys[origin])
        self._stacks[endpoint] = stack
        self.directory.add(endpoint)
        return endpoint

    async def remove(self, endpoint: Endpoint) -> None:
        """Call an endpoint no more. What it holds open is closed once its calls have ended."""
        self._lease_ends.pop(endpoint.name, None)
        self.directory.remove(endpoint)
        endpoint.draining = True
        await self.close_idle()

    async def close_idle(self) -> None:
        """Close what endpoints hold open that were removed and have no calls under way any more."""
        known = set(self.directory.endpoints)
        for endpoint in [each for each in self._stacks if each not in known and not each.calls]:
            # Somebody else may have closed it meanwhile.
            stack = self._stacks.pop(endpoint, None)
            if stack is not None:
                await stack.aclose()


def _registered(registration: Registration, template: EndpointSettings) -> EndpointSettings:
    """Raises InvalidRequest: if the registration is wrong."""
    if not registration.name or not registration.name.isprintable():
        raise InvalidRequest(Finding("BAD_VALUE", "name", "a name is a word that can be printed"))
    told = {
        "name": registration.name,
        # The template's may be its own name, told nowhere.
        "group": template.group_name,
        "url": registration.url,
        "weight": registration.weight,
    }
    try:
        whole = msgspec.structs.asdict(template) | told
        return msgspec.convert(whole | {"models": registration.models or template.models}, EndpointSettings)
    except ValueError as error:
        raise InvalidRequest(Finding("BAD_VALUE", "url" if "url" in str(error) else "weight", str(error))) from error
