"""The endpoints of AI orchestrators and their circuit breakers, as operators see them and servers announce them."""

from __future__ import annotations

import enum

import msgspec

from runner.core.breaker import BreakerState
from runner.core.plan import Instant


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit breaker, as an operator sees it."""

    endpoint: str
    #: Empty for the endpoint's own choice; `*` is shared by the models beyond `max_models`.
    model: str
    state: BreakerState
    #: When it entered its state.
    since: Instant
    #: Until when it refuses calls; None where it does not, or until it is reset.
    open_until: Instant | None = None
    #: Why it opened, a sentence; empty where it is closed.
    reason: str = ""
    #: In the window that the next decision rests on.
    calls: int = 0
    failed: int = 0
    slow: int = 0
    #: Tasks that wait for it.
    waiting: int = 0


class EndpointSource(enum.StrEnum):
    """How an endpoint came to be known."""

    #: It stands in the settings.
    CONFIGURED = "configured"
    #: An address of a configured host name.
    DNS = "dns"
    #: It registered itself, and lives as long as its lease.
    REGISTERED = "registered"


class EndpointHealth(enum.StrEnum):
    """What the probes in the background say."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, as an operator sees it."""

    name: str
    #: Endpoints of one group stand in for each other.
    group: str
    url: str
    #: `altlas`, `openai` or `anthropic`.
    protocol: str
    source: EndpointSource
    health: EndpointHealth
    #: What the last health check that failed said.
    health_error: str = ""
    #: It gets no new calls; those under way finish.
    draining: bool = False
    #: Its share of the calls, beside the others of its group.
    weight: float = 1.0
    #: 0 to 1: the part of its weight that it has while it is warmed up.
    warmth: float = 1.0
    #: Calls under way, and how many may be.
    calls: int = 0
    max_calls: int = 0
    #: Tasks that wait for it.
    waiting: int = 0
    #: Second calls that it got for one that took long elsewhere, since it is known.
    hedges: int = 0
    #: Repetitions, hedges among them, that its retry budget held back since it is known.
    held_back: int = 0
    #: Tries to call it that never reached it since it is known, whether or not another endpoint made them good.
    unreached: int = 0
    #: The models that it is known to serve; empty where that is not known.
    models: tuple[str, ...] = ()
    #: When it is forgotten unless it is heard of; None where it is not registered.
    lease_until: Instant | None = None


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that announces itself. Protocol, key, limits are those that its group is configured with."""

    name: str
    group: str
    url: str
    weight: float = 1.0
    models: tuple[str, ...] = ()


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A registered endpoint's right to be called."""

    #: Proves to `renew` and `deregister` that it is the same one.
    id: str
    until: Instant
    #: Seconds it lasts from each renewal.
    seconds: float
