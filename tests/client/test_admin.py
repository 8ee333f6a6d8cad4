"""What operators call, and servers that announce themselves: the client, a real server, and a played fleet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from altrunner.v1 import admin_pb2

from runner.client import CallRefused, Client
from runner.core.breaker import BreakerState
from runner.ports import Quiet
from runner.rpc.admin import AdminServicer
from runner.rpc.server import ADMIN_SERVICE, admin_methods
from tests.rpc.fleet import PlayedFleet, breaker, endpoint

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]


class StandingClock:
    def now(self) -> int:
        return 0


@asynccontextmanager
async def daemon(fleet: PlayedFleet, *, port: int = 0) -> AsyncIterator[int]:
    """Serves a fleet; twice at the same port is a restart."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = AdminServicer(fleet, StandingClock(), heartbeat=15.0)
    methods = admin_methods(servicer, Quiet())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ADMIN_SERVICE, methods),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        servicer.close()
        await server.stop(0)


@asynccontextmanager
async def connected(fleet: PlayedFleet) -> AsyncIterator[Client]:
    async with daemon(fleet) as port, Client(f"127.0.0.1:{port}", patience=10.0) as client:
        yield client


@dataclass
class Notices:
    """What was told in sentences, and a way to wait for the next."""

    told: list[str] = field(default_factory=list)
    _heard: anyio.Event = field(default_factory=anyio.Event)

    def __call__(self, sentence: str) -> None:
        self.told.append(sentence)
        self._heard.set()

    async def until(self, words: str) -> None:
        while not any(words in sentence for sentence in self.told):
            self._heard = anyio.Event()
            await self._heard.wait()


async def test_breakers_are_listed_and_set() -> None:
    fleet = PlayedFleet(endpoint("a"), endpoint("b"), *(breaker("a", f"m{number}") for number in range(3)))
    async with connected(fleet) as client:
        assert [each.model for each in await client.breakers()] == ["m0", "m1", "m2"]
        assert await client.breakers(["b"]) == []
        [changed] = await client.set_breaker("a", BreakerState.FORCED_OPEN, models=["m1"])
        assert (changed.model, changed.state) == ("m1", admin_pb2.BREAKER_STATE_FORCED_OPEN)
        assert len(await client.set_breaker("a", BreakerState.CLOSED)) == 3


async def test_more_than_a_page_is_listed_as_one() -> None:
    async with connected(PlayedFleet(*(endpoint(f"e{number:04}") for number in range(1_001)))) as client:
        assert [each.name for each in await client.endpoints()] == [f"e{number:04}" for number in range(1_001)]


async def test_an_endpoint_is_drained_and_one_that_is_not_there_is_refused() -> None:
    async with connected(PlayedFleet(endpoint("a"))) as client:
        assert (await client.drain("a")).draining
        assert not (await client.undrain("a")).draining
        with pytest.raises(CallRefused) as refused:
            await client.drain("nope")
        assert refused.value.reason == "ENDPOINT_NOT_FOUND"


async def test_a_watch_tells_everything_once_and_then_changes_through_a_restart_of_the_daemon() -> None:
    fleet = PlayedFleet(endpoint("a"), endpoint("b"), breaker("a"), breaker("b"))
    notices = Notices()
    async with daemon(fleet) as port:
        client = await Client(f"127.0.0.1:{port}", patience=10.0).__aenter__()
        watch = client.watch_breakers(on_notice=notices)
        first = await anext(watch)
        assert ([each.endpoint for each in first.breakers], first.caught_up) == (["a", "b"], True)
        fleet.put(breaker("a", state=BreakerState.OPEN))
        assert [(each.endpoint, each.state) for each in (await anext(watch)).breakers] == [
            ("a", admin_pb2.BREAKER_STATE_OPEN)
        ]
    other = PlayedFleet(endpoint("a"), breaker("a", state=BreakerState.OPEN), breaker("a", "new"))
    async with daemon(other, port=port), aclosing(watch):
        told = await anext(watch)
        assert [(each.endpoint, each.model) for each in told.breakers] == [("a", "new")]
        assert [(key.endpoint, key.model) for key in told.removed] == [("b", "")]
        assert not told.caught_up
        assert notices.told[-1] == "connected again"
        other.forget("a")
        assert {key.model for key in (await anext(watch)).removed} == {"", "new"}
    await client.__aexit__(None, None, None)


async def test_a_watch_of_endpoints_tells_who_came_and_went() -> None:
    fleet = PlayedFleet(endpoint("a"))
    async with connected(fleet) as client, aclosing(client.watch_endpoints()) as watch:
        assert [each.name for each in (await anext(watch)).endpoints] == ["a"]
        fleet.put(endpoint("b"))
        assert [each.name for each in (await anext(watch)).endpoints] == ["b"]
        fleet.forget("a")
        assert list((await anext(watch)).removed) == ["a"]


# ---------------------------------------------------------------------------------------------------- registering


def names(fleet: PlayedFleet) -> set[str]:
    return {view.name for view in fleet.endpoints()}


async def test_a_server_is_an_endpoint_for_as_long_as_it_is_there() -> None:
    fleet = PlayedFleet()
    fleet.seconds = 0.06
    async with connected(fleet) as client:
        async with client.register("me", group="main", url="http://me:1", weight=2.0, models=["m"]) as made:
            assert (made.name, made.weight, list(made.models)) == ("me", 2.0, ["m"])
            while fleet.renewed < 3:
                await fleet.changed()
            assert fleet.registered == 1
        assert names(fleet) == set()


async def test_a_server_that_fails_is_no_endpoint_any_more_and_its_error_is_its_own() -> None:
    fleet = PlayedFleet()
    async with connected(fleet) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.register("me", group="main", url="http://me:1"):
                _ = 1 / 0
        assert names(fleet) == set()


async def test_a_server_that_was_forgotten_registers_anew() -> None:
    fleet, notices = PlayedFleet(), Notices()
    async with connected(fleet) as client:
        async with client.register("me", group="main", url="http://me:1", lease_seconds=0.06, on_notice=notices):
            fleet.forget("me")
            await notices.until("had forgotten `me`")
            assert names(fleet) == {"me"}
            assert fleet.registered == 2
        assert names(fleet) == set()


async def test_a_daemon_that_is_away_for_a_while_finds_its_endpoints_again() -> None:
    fleet, other, notices = PlayedFleet(), PlayedFleet(), Notices()
    async with daemon(fleet) as port:
        client = await Client(f"127.0.0.1:{port}").__aenter__()
        registration = client.register("me", group="main", url="http://me:1", lease_seconds=0.06, on_notice=notices)
        await registration.__aenter__()
    await notices.until("cannot be registered now")
    async with daemon(other, port=port):
        await notices.until("is registered again")
        assert names(other) == {"me"}
        assert [sentence for sentence in notices.told if "cannot" in sentence] == notices.told[:1]
        await registration.__aexit__(None, None, None)
        assert names(other) == set()
    await client.__aexit__(None, None, None)


async def test_the_first_registration_that_is_refused_is_raised() -> None:
    async with connected(PlayedFleet()) as client:
        with pytest.raises(CallRefused, match="takes_registrations") as refused:
            async with client.register("me", group="closed", url="http://me:1"):
                pytest.fail("it was not registered")
        assert refused.value.reason == "REGISTRATION_REFUSED"


async def test_a_farewell_that_nobody_hears_is_no_error() -> None:
    fleet: Any = PlayedFleet()
    async with daemon(fleet) as port:
        client = await Client(f"127.0.0.1:{port}").__aenter__()
        registration = client.register("me", group="main", url="http://me:1")
        await registration.__aenter__()
    await registration.__aexit__(None, None, None)
    await client.__aexit__(None, None, None)
