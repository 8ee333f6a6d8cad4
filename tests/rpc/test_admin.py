"""The AdminService over a real channel, in front of a fleet that tests steer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from altrunner.v1 import admin_pb2, admin_service_pb2_grpc
from altrunner.v1 import admin_service_pb2 as messages
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec.structs import replace

from runner.core.breaker import BreakerState
from runner.core.fleet import EndpointHealth, EndpointSource
from runner.rpc.admin_wire import BREAKER_STATES, HEALTHS, SOURCES
from tests.rpc.fleet import NOON, SECOND, PlayedFleet, breaker, endpoint
from tests.rpc.test_reflection import Reflected
from tests.rpc.test_service import details, refused

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

OPEN = replace(
    breaker("a", "large", BreakerState.OPEN, calls=20, failed=12, slow=3, waiting=7),
    open_until=NOON + 14 * SECOND,
    reason="12 of 20 calls failed",
)


def a_fleet() -> PlayedFleet:
    return PlayedFleet(endpoint("b"), endpoint("a"), breaker("b"), OPEN, breaker("a", "fast"))


@asynccontextmanager
async def serving(start: Any, fleet: PlayedFleet, **options: Any) -> AsyncIterator[Any]:
    async with (
        start(fleet=fleet, **options) as daemon,
        grpc.aio.insecure_channel(daemon.target) as channel,
    ):
        daemon.admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        yield daemon


async def violation(call: Any) -> tuple[str, str]:
    """The field that is wrong, and why."""
    error = await refused(call)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    first = details(error)["BadRequest"].field_violations[0]
    return first.field, first.reason


# --------------------------------------------------------------------------------------------------------- lists


async def test_breakers_are_listed_by_endpoint_and_model_with_all_that_is_known(start: Any) -> None:
    async with serving(start, a_fleet()) as daemon:
        found = (await daemon.admin.ListBreakers(messages.ListBreakersRequest())).breakers
        assert [(each.endpoint, each.model) for each in found] == [("a", "fast"), ("a", "large"), ("b", "")]
        large = found[1]
        assert (large.state, large.reason) == (admin_pb2.BREAKER_STATE_OPEN, "12 of 20 calls failed")
        assert (large.calls, large.failed_calls, large.slow_calls, large.waiting_tasks) == (20, 12, 3, 7)
        assert large.open_until.ToMicroseconds() - large.since.ToMicroseconds() == 14 * SECOND
        assert not found[0].HasField("open_until")
        only = await daemon.admin.ListBreakers(messages.ListBreakersRequest(endpoints=["b"]))
        assert [each.endpoint for each in only.breakers] == ["b"]


async def test_pages_join_to_the_whole(start: Any) -> None:
    fleet = PlayedFleet(*(endpoint(f"e{number}", group=f"g{number % 2}") for number in range(5)))
    async with serving(start, fleet) as daemon:
        seen, token = [], ""
        while True:
            request = messages.ListEndpointsRequest(page_size=2, page_token=token)
            answer = await daemon.admin.ListEndpoints(request)
            seen += [(each.group, each.name) for each in answer.endpoints]
            token = answer.next_page_token
            if not token:
                break
        assert seen == [("g0", "e0"), ("g0", "e2"), ("g0", "e4"), ("g1", "e1"), ("g1", "e3")]


async def test_a_page_ends_before_it_grows_too_large_for_a_response(start: Any) -> None:
    models = tuple(f"{number:04}{'x' * 996}" for number in range(1_500))
    fleet = PlayedFleet(*(replace(endpoint(name), models=models) for name in "abc"))
    async with serving(start, fleet) as daemon:
        page = await daemon.admin.ListEndpoints(messages.ListEndpointsRequest())
        assert [each.name for each in page.endpoints] == ["a"]
        assert page.next_page_token
        watch = daemon.admin.WatchEndpoints(messages.WatchEndpointsRequest())
        told = [await watch.read() for _ in range(3)]
        assert [[each.name for each in response.endpoints] for response in told] == [["a"], ["b"], ["c"]]
        assert [response.caught_up for response in told] == [False, False, True]
        watch.cancel()


async def test_what_is_wrong_is_told_with_its_field(start: Any) -> None:
    async with serving(start, a_fleet()) as daemon:
        admin = daemon.admin
        for size in (-1, 1_001):
            wrong = messages.ListBreakersRequest(page_size=size)
            assert await violation(admin.ListBreakers(wrong)) == ("page_size", "OUT_OF_RANGE")
        for token in ("!", "e30=", "é"):
            asked = messages.ListEndpointsRequest(page_token=token)
            assert await violation(admin.ListEndpoints(asked)) == ("page_token", "BAD_PAGE_TOKEN")
        often = messages.WatchBreakersRequest(figures_interval=Duration(nanos=1))
        assert await violation(admin.WatchBreakers(often).read()) == ("figures_interval", "OUT_OF_RANGE")
        for state in (0, admin_pb2.BREAKER_STATE_HALF_OPEN, 77):
            to = messages.SetBreakerRequest(endpoint="a", state=admin_pb2.BreakerState.ValueType(state))
            assert await violation(admin.SetBreaker(to)) == ("state", "OUT_OF_RANGE")
        for name, fields in (
            ("lease_duration", {"lease_duration": Duration(seconds=-1)}),
            ("weight", {"weight": 0.0}),
        ):
            registration = messages.RegisterEndpointRequest(name="n", group="main", url="http://n", **fields)
            assert await violation(admin.RegisterEndpoint(registration)) == (name, "OUT_OF_RANGE")


# ------------------------------------------------------------------------------------------------------- watches


async def test_a_watch_tells_everything_and_then_what_changes(start: Any) -> None:
    fleet = a_fleet()
    async with serving(start, fleet) as daemon:
        watch = daemon.admin.WatchBreakers(messages.WatchBreakersRequest())
        first = await watch.read()
        assert (len(first.breakers), first.caught_up) == (3, True)
        fleet.put(breaker("b", state=BreakerState.HALF_OPEN))
        changed = await watch.read()
        assert [(each.endpoint, each.state) for each in changed.breakers] == [("b", admin_pb2.BREAKER_STATE_HALF_OPEN)]
        assert not changed.caught_up
        fleet.put(breaker("b", "new"))
        assert [each.model for each in (await watch.read()).breakers] == ["new"]
        fleet.forget("b")
        gone = await watch.read()
        assert [(key.endpoint, key.model) for key in gone.removed] == [("b", ""), ("b", "new")]
        watch.cancel()


async def test_a_time_that_is_told_a_little_otherwise_each_time_is_no_change(start: Any) -> None:
    """It is the sum of two clocks; a watch was a flood of it."""
    fleet = a_fleet()
    async with serving(start, fleet, heartbeat=0.3) as daemon:
        watch = daemon.admin.WatchBreakers(messages.WatchBreakersRequest(endpoints=["a"]))
        await watch.read()
        fleet.put(replace(OPEN, since=NOON - 200, open_until=NOON + 14 * SECOND + 200))
        assert (await watch.read()).HasField("heartbeat")
        fleet.put(replace(OPEN, open_until=NOON + 15 * SECOND))
        assert [each.model for each in (await watch.read()).breakers] == ["large"]
        watch.cancel()


async def test_a_watch_of_some_hears_of_no_others(start: Any) -> None:
    fleet = a_fleet()
    async with serving(start, fleet) as daemon:
        watch = daemon.admin.WatchEndpoints(messages.WatchEndpointsRequest(names=["b"]))
        assert [each.name for each in (await watch.read()).endpoints] == ["b"]
        fleet.drain("a", draining=True)
        fleet.drain("b", draining=True)
        told = await watch.read()
        assert [(each.name, each.draining) for each in told.endpoints] == [("b", True)]
        watch.cancel()


async def test_figures_come_as_often_as_asked_for_and_else_not_at_all(start: Any) -> None:
    fleet = a_fleet()
    async with serving(start, fleet, heartbeat=0.3) as daemon:
        quiet = daemon.admin.WatchBreakers(messages.WatchBreakersRequest())
        often = daemon.admin.WatchBreakers(messages.WatchBreakersRequest(figures_interval=Duration(nanos=100_000_000)))
        await quiet.read()
        await often.read()
        fleet.put_quietly(breaker("b", calls=5))
        assert [each.calls for each in (await often.read()).breakers] == [5]
        beat = await quiet.read()
        assert beat.HasField("heartbeat")
        assert not beat.breakers
        assert beat.heartbeat.time.seconds > 0
        # They are told with the next change, and what was told once is not told again.
        fleet.put(breaker("b", calls=6, state=BreakerState.OPEN))
        assert [each.calls for each in (await quiet.read()).breakers] == [6]
        quiet.cancel()
        often.cancel()


async def test_a_watcher_that_went_away_leaves_nothing_behind(start: Any) -> None:
    fleet = a_fleet()
    async with serving(start, fleet) as daemon:
        watch = daemon.admin.WatchBreakers(messages.WatchBreakersRequest())
        await watch.read()
        await fleet.awaited.wait()
        watch.cancel()
        await fleet.left.wait()


async def test_watchers_are_sent_away_when_the_daemon_stops(start: Any) -> None:
    fleet = a_fleet()
    async with serving(start, fleet) as daemon:
        watches = [
            daemon.admin.WatchBreakers(messages.WatchBreakersRequest()),
            daemon.admin.WatchEndpoints(messages.WatchEndpointsRequest()),
        ]
        for watch in watches:
            await watch.read()
        await daemon.server.stop(grace=5)
        for watch in watches:
            error = await refused(watch.read())
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert details(error)["ErrorInfo"].reason == "DRAINING"
        assert fleet.waiting == 0


# ----------------------------------------------------------------------------------------------------- steering


async def test_breakers_are_set_and_reset(start: Any) -> None:
    fleet = a_fleet()
    async with serving(start, fleet) as daemon:
        request = messages.SetBreakerRequest(
            endpoint="a", models=["large", "large"], state=admin_pb2.BREAKER_STATE_FORCED_OPEN
        )
        answer = await daemon.admin.SetBreaker(request)
        assert [(each.model, each.state) for each in answer.breakers] == [
            ("large", admin_pb2.BREAKER_STATE_FORCED_OPEN)
        ]
        answer = await daemon.admin.SetBreaker(
            messages.SetBreakerRequest(endpoint="a", state=admin_pb2.BREAKER_STATE_CLOSED)
        )
        assert {(each.model, each.state) for each in answer.breakers} == {
            ("large", admin_pb2.BREAKER_STATE_CLOSED),
            ("fast", admin_pb2.BREAKER_STATE_CLOSED),
        }


async def test_an_endpoint_is_drained_and_called_again(start: Any) -> None:
    fleet = a_fleet()
    async with serving(start, fleet) as daemon:
        for _ in range(2):
            assert (await daemon.admin.DrainEndpoint(messages.DrainEndpointRequest(name="a"))).endpoint.draining
        for _ in range(2):
            assert not (await daemon.admin.UndrainEndpoint(messages.UndrainEndpointRequest(name="a"))).endpoint.draining


async def test_an_endpoint_registers_renews_and_goes(start: Any) -> None:
    fleet = a_fleet()
    async with serving(start, fleet) as daemon:
        request = messages.RegisterEndpointRequest(
            name="new", group="main", url="http://new:1", models=["m"], lease_duration=Duration(seconds=90)
        )
        answer = await daemon.admin.RegisterEndpoint(request)
        made, lease = answer.endpoint, answer.lease
        assert (made.name, made.group, made.url, made.weight, list(made.models)) == (
            "new",
            "main",
            "http://new:1",
            1.0,
            ["m"],
        )
        assert (made.source, made.lease_until) == (admin_pb2.ENDPOINT_SOURCE_REGISTERED, lease.until)
        assert lease.duration.seconds == 90
        renewed = await daemon.admin.RenewEndpoint(messages.RenewEndpointRequest(name="new", lease_id=lease.lease_id))
        assert renewed.lease.until.ToMicroseconds() >= lease.until.ToMicroseconds()
        goes = messages.DeregisterEndpointRequest(name="new", lease_id=lease.lease_id)
        await daemon.admin.DeregisterEndpoint(goes)
        assert "new" not in {view.name for view in fleet.endpoints()}
        error = await refused(daemon.admin.DeregisterEndpoint(goes))
        assert details(error)["ErrorInfo"].reason == "ENDPOINT_NOT_FOUND"


async def test_a_registration_that_is_refused_says_why(start: Any) -> None:
    async with serving(start, a_fleet()) as daemon:
        request = messages.RegisterEndpointRequest(name="new", group="closed", url="http://new:1")
        error = await refused(daemon.admin.RegisterEndpoint(request))
        assert (error.code(), details(error)["ErrorInfo"].reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "REGISTRATION_REFUSED",
        )
        assert "takes_registrations" in (error.details() or "")


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ListBreakers", messages.ListBreakersRequest(endpoints=["a", "nope"])),
        ("WatchBreakers", messages.WatchBreakersRequest(endpoints=["nope"])),
        ("SetBreaker", messages.SetBreakerRequest(endpoint="nope", state=admin_pb2.BREAKER_STATE_CLOSED)),
        ("ListEndpoints", messages.ListEndpointsRequest(names=["nope"])),
        ("WatchEndpoints", messages.WatchEndpointsRequest(names=["nope"])),
        ("DrainEndpoint", messages.DrainEndpointRequest(name="nope")),
        ("UndrainEndpoint", messages.UndrainEndpointRequest(name="nope")),
        ("RenewEndpoint", messages.RenewEndpointRequest(name="nope", lease_id="x")),
        ("DeregisterEndpoint", messages.DeregisterEndpointRequest(name="nope", lease_id="x")),
    ],
)
async def test_an_endpoint_that_is_not_there_is_told_by_its_name(start: Any, method: str, request_: Any) -> None:
    async with serving(start, a_fleet()) as daemon:
        call = getattr(daemon.admin, method)(request_)
        error = await refused(call.read() if method.startswith("Watch") else call)
        told = details(error)
        assert (error.code(), told["ErrorInfo"].reason) == (grpc.StatusCode.NOT_FOUND, "ENDPOINT_NOT_FOUND")
        assert told["ErrorInfo"].metadata["endpoint"] == "nope"
        assert (told["ResourceInfo"].resource_type, told["ResourceInfo"].resource_name) == ("endpoint", "nope")


# ---------------------------------------------------------------------------------------------------- the server


async def test_reflection_and_health_know_the_service(start: Any) -> None:
    async with serving(start, a_fleet()) as daemon, grpc.aio.insecure_channel(daemon.target) as channel:
        server = Reflected(channel, "v1")
        assert "altrunner.v1.AdminService" in await server.services()
        await server.learn("altrunner.v1.AdminService")
        health: Any = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="altrunner.v1.AdminService")
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await daemon.server.set_serving(serving=True)
        assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING


def test_every_word_of_the_fleet_has_one_on_the_wire() -> None:
    assert len(BREAKER_STATES) == len(BreakerState) == len(admin_pb2.BreakerState.values()) - 1
    assert len(SOURCES) == len(EndpointSource) == len(admin_pb2.EndpointSource.values()) - 1
    assert len(HEALTHS) == len(EndpointHealth) == len(admin_pb2.EndpointHealth.values()) - 1
