"""protobuf ↔ the views of the fleet."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar

import msgspec
from altrunner.v1 import admin_pb2
from altrunner.v1 import admin_service_pb2 as messages
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from runner import frames
from runner.core.breaker import BreakerState
from runner.core.errors import InvalidRequest
from runner.core.findings import Finding
from runner.core.fleet import BreakerView, EndpointHealth, EndpointSource, EndpointView, Lease, Registration
from runner.rpc.wire import MAX_BYTES

Sent = TypeVar("Sent", bound=Message)
#: What views are told apart and sorted by.
Key = tuple[str, str]

BREAKER_STATES: Final = {state: admin_pb2.BreakerState.Value(f"BREAKER_STATE_{state.name}") for state in BreakerState}
SOURCES: Final = {source: admin_pb2.EndpointSource.Value(f"ENDPOINT_SOURCE_{source.name}") for source in EndpointSource}
HEALTHS: Final = {health: admin_pb2.EndpointHealth.Value(f"ENDPOINT_HEALTH_{health.name}") for health in EndpointHealth}
#: What may be set by hand.
SETTABLE: Final = {number: state for state, number in BREAKER_STATES.items() if state is not BreakerState.HALF_OPEN}
MAX_PAGE: Final = 1_000
#: Seconds.
SHORTEST_INTERVAL: Final = 0.1


class Paged(Protocol):
    """A request for a page."""

    page_size: int
    page_token: str


def breaker(view: BreakerView) -> admin_pb2.Breaker:
    message = admin_pb2.Breaker(
        endpoint=view.endpoint,
        model=view.model,
        state=BREAKER_STATES[view.state],
        reason=view.reason,
        calls=view.calls,
        failed_calls=view.failed,
        slow_calls=view.slow,
        waiting_tasks=view.waiting,
    )
    frames.stamp(message.since, view.since)
    if view.open_until is not None:
        frames.stamp(message.open_until, view.open_until)
    return message


def endpoint(view: EndpointView) -> admin_pb2.Endpoint:
    message = admin_pb2.Endpoint(
        name=view.name,
        group=view.group,
        url=view.url,
        protocol=view.protocol,
        source=SOURCES[view.source],
        health=HEALTHS[view.health],
        health_error=view.health_error,
        draining=view.draining,
        weight=view.weight,
        warmth=view.warmth,
        calls=view.calls,
        max_calls=view.max_calls,
        waiting_tasks=view.waiting,
        unreached_tries=view.unreached,
        models=view.models,
    )
    if view.lease_until is not None:
        frames.stamp(message.lease_until, view.lease_until)
    return message


def lease(granted: Lease) -> admin_pb2.EndpointLease:
    message = admin_pb2.EndpointLease(lease_id=granted.id)
    frames.stamp(message.until, granted.until)
    message.duration.FromNanoseconds(round(granted.seconds * 1e9))
    return message


def registration(request: messages.RegisterEndpointRequest) -> tuple[Registration, float | None]:
    """What is registered, and the seconds that its lease is to last, if it says so. Raises InvalidRequest."""
    seconds = None
    if request.HasField("lease_duration"):
        seconds = _seconds(request.lease_duration)
        if seconds <= 0:
            raise InvalidRequest(Finding("OUT_OF_RANGE", "lease_duration", "a lease lasts longer than 0 s"))
    weight = request.weight if request.HasField("weight") else 1.0
    asked = Registration(
        name=request.name, group=request.group, url=request.url, weight=weight, models=tuple(request.models)
    )
    return asked, seconds


def settable(number: int) -> BreakerState:
    """The state that is to be set. Raises InvalidRequest: if it cannot be."""
    state = SETTABLE.get(admin_pb2.BreakerState.ValueType(number))
    if state is None:
        words = ", ".join(sorted(each.name for each in SETTABLE.values()))
        raise InvalidRequest(Finding("OUT_OF_RANGE", "state", f"what can be set is {words}"))
    return state


def interval(request: Any) -> float | None:
    """Seconds between figures, or None for none. Raises InvalidRequest."""
    if not request.HasField("figures_interval"):
        return None
    seconds = _seconds(request.figures_interval)
    if seconds < SHORTEST_INTERVAL:
        raise InvalidRequest(Finding("OUT_OF_RANGE", "figures_interval", f"{SHORTEST_INTERVAL:g} s at least"))
    return seconds


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def page(request: Paged, found: Iterable[tuple[Key, Sent]]) -> tuple[list[Sent], str]:
    """The page that is asked for, in the order of the keys, and the token of the next one or "".

    Raises InvalidRequest.
    """
    if not 0 <= request.page_size <= MAX_PAGE:
        raise InvalidRequest(Finding("OUT_OF_RANGE", "page_size", f"0 to {MAX_PAGE}"))
    after = _key(request.page_token) if request.page_token else None
    left = sorted((each for each in found if after is None or each[0] > after), key=lambda each: each[0])
    shown = next(portions([message for _, message in left[: request.page_size or MAX_PAGE]]), [])
    return shown, _token(left[len(shown) - 1][0]) if len(shown) < len(left) else ""


def portions(all_of_them: Iterable[Sent]) -> Iterator[list[Sent]]:
    """Messages in portions that each fit into a response."""
    portion: list[Sent] = []
    size = 0
    for message in all_of_them:
        size += message.ByteSize()
        if portion and size > MAX_BYTES:
            yield portion
            portion, size = [], message.ByteSize()
        portion.append(message)
    if portion:
        yield portion


def _token(key: Key) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode()


def _key(token: str) -> Key:
    try:
        key: Key = msgspec.json.decode(base64.b64decode(token, altchars=b"-_", validate=True), type=Key)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(Finding("BAD_PAGE_TOKEN", "page_token", "this is no page token of ours")) from error
    return key
