"""The fleet as operators and servers see it, and what happens to it by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import msgspec
import pytest
import trio.testing

from runner.core.breaker import BreakerState
from runner.core.errors import AttemptError, AttemptPutOff, EndpointNotFound, InvalidRequest, RegistrationRefused
from runner.core.events import WaitReason
from runner.core.fleet import EndpointHealth, EndpointSource, Registration
from runner.core.secret import Secret
from runner.orchestrators.fleet import Connected, Opener
from runner.orchestrators.settings import EndpointSettings, LeasePolicy, OrchestratorSettings
from tests.orchestrators.stage import BROKEN, GONE, START, Stage, one

SECOND = 1_000_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def open_group(**settings: Any) -> Stage:
    """A group into which servers may register themselves."""
    return Stage(one(group="pool", takes_registrations=True), **settings)


def server(name: str = "new", **told: Any) -> Registration:
    return Registration(**({"name": name, "group": "pool", "url": "http://127.0.0.1:2"} | told))


# ------------------------------------------------------------------------------------------------- registration


async def test_who_names_a_server_that_is_restarted_waits_for_it_and_is_called_when_it_is_back() -> None:
    """Its jobs were accepted when it was there. Without it for longer than a lease, they are told."""
    async with open_group().open(looked_after=True) as stage:
        await anyio.sleep(100)
        with pytest.raises(KeyError):
            await stage.ask(of="new")
        _, lease = await stage.fleet.register(server(), seconds=None)
        await stage.fleet.deregister("new", lease.id)
        error = await stage.put_off(of="new", request="job/task")
        assert (error.wait_reason, error.message) == (
            WaitReason.OUT_OF_SERVICE,
            "orchestrator `new` has no endpoint now",
        )
        called = anyio.Event()
        assert error.turn is not None
        error.turn.call(called.set)
        del stage.behind["new"]
        _, lease = await stage.fleet.register(server(), seconds=None)
        with anyio.fail_after(1):
            await called.wait()
        assert (await stage.ask(of="new", request="job/task")).endpoint == "new"
        await stage.fleet.deregister("new", lease.id)
        await anyio.sleep(31)
        with pytest.raises(KeyError):
            await stage.ask(of="new")


async def test_a_daemon_that_has_just_started_waits_for_servers_that_were_registered_with_the_one_before() -> None:
    async with open_group(leases=LeasePolicy(max_endpoints=3)).open(looked_after=True) as stage:
        await anyio.sleep(1)
        for name in ("new", "another"):
            assert (await stage.put_off(of=name)).wait_reason is WaitReason.OUT_OF_SERVICE
        await stage.ask()
        with pytest.raises(KeyError):
            await stage.ask(of="one too many: names come from jobs")
        await stage.fleet.register(server(), seconds=None)
        assert (await stage.ask(of="new")).endpoint == "new"
    async with Stage().open(looked_after=True) as stage:
        await anyio.sleep(1)
        with pytest.raises(KeyError):
            await stage.ask(of="no server registers here")


async def test_a_server_that_registers_is_called_until_its_lease_ends() -> None:
    async with open_group().open(looked_after=True) as stage:
        view, lease = await stage.fleet.register(server(weight=1000), seconds=20)
        assert (view.group, view.source, view.weight) == ("pool", EndpointSource.REGISTERED, 1000)
        assert (lease.seconds, lease.until) == (20, view.lease_until)
        assert lease.until == START + 20 * SECOND
        await anyio.sleep(15)
        stage.chance = 0.9
        assert (await stage.ask()).endpoint == "new"
        renewed = await stage.fleet.renew("new", lease.id)
        assert renewed.until == START + 35 * SECOND
        await anyio.sleep(19)
        assert [each.name for each in stage.fleet.endpoints()] == ["main", "new"]
        await anyio.sleep(3)
        assert [each.name for each in stage.fleet.endpoints()] == ["main"]
        assert (await stage.ask()).endpoint == "main"
        assert stage.behind["new"].closed
        with pytest.raises(EndpointNotFound):
            await stage.fleet.renew("new", lease.id)


async def test_a_server_stands_in_for_an_endpoint_that_has_no_group_but_its_own_name() -> None:
    async with Stage(one(takes_registrations=True)).open() as stage:
        view, _ = await stage.fleet.register(server(group="main", weight=1000), seconds=None)
        assert view.group == "main"
        stage.chance = 0.9
        assert (await stage.ask(of="main")).endpoint == "new"


async def test_calls_under_way_at_a_server_that_leaves_finish_before_its_session_is_closed() -> None:
    async with open_group().open(looked_after=True) as stage:
        _, lease = await stage.fleet.register(server(), seconds=None)
        stage.behind["new"].seconds = 5
        async with anyio.create_task_group() as group:
            group.start_soon(_ask_new, stage)
            await anyio.sleep(1)
            await stage.fleet.deregister("new", lease.id)
            assert not stage.behind["new"].closed
        await anyio.sleep(2)
        assert stage.behind["new"].closed


async def _ask_new(stage: Stage) -> None:
    assert (await stage.ask(of="new")).endpoint == "new"


async def test_a_server_that_was_restarted_registers_anew_and_only_its_newest_lease_counts() -> None:
    async with open_group().open() as stage:
        _, first = await stage.fleet.register(server(), seconds=None)
        _, second = await stage.fleet.register(server(), seconds=None)
        with pytest.raises(EndpointNotFound):
            await stage.fleet.renew("new", first.id)
        await stage.fleet.renew("new", second.id)


async def test_whoever_comes_after_a_reload_is_called_with_the_key_that_holds_now() -> None:
    """Servers that register, and addresses that a name gets, long after the daemon took over another key."""
    farm = one("farm", url="http://farm.test:80", every_address=True, dns_refresh_seconds=10, api_key=Secret("old"))
    pool = one(group="pool", takes_registrations=True, api_key=Secret("old"))
    async with Stage(pool, farm).open(looked_after=True) as stage:
        await anyio.sleep(1)
        renewed = tuple(msgspec.structs.replace(each, api_key=Secret("new")) for each in (pool, farm))
        stage.fleet.renew_keys(OrchestratorSettings(endpoints=renewed))
        await stage.fleet.register(server(), seconds=300)
        stage.addresses = ["10.0.0.7"]
        await anyio.sleep(20)
        assert [stage.behind[name].keys for name in ("main", "new", "farm/10.0.0.7")] == [[Secret("new")]] * 3
        # And it is the same server when it registers again: its breakers know what they knew.
        there = stage.fleet.directory.endpoint("new")
        await stage.fleet.register(server(), seconds=300)
        assert stage.fleet.directory.endpoint("new") is there


@pytest.mark.parametrize(
    ("registration", "why"),
    [
        (server(group="nowhere"), "there is no group `nowhere`"),
        (server(name="main"), "`main` is the name of another endpoint or group"),
        (server(name="pool"), "`pool` is the name of another endpoint or group"),
        (server(name="taken", url="http://127.0.0.1:3"), "`taken` is registered at http://127.0.0.1:2"),
    ],
)
async def test_a_registration_that_cannot_be_is_refused_and_says_why(registration: Registration, why: str) -> None:
    async with open_group().open() as stage:
        await stage.fleet.register(server("taken"), seconds=None)
        with pytest.raises(RegistrationRefused, match=why):
            await stage.fleet.register(registration, seconds=None)


async def test_a_group_takes_no_registrations_unless_it_is_allowed() -> None:
    """Whoever registers is called with the group's key."""
    async with Stage(one(group="pool")).open() as stage:
        with pytest.raises(RegistrationRefused, match=r"orchestrator\.endpoints\[main\]\.takes_registrations"):
            await stage.fleet.register(server(), seconds=None)


async def test_registered_endpoints_are_bounded() -> None:
    async with open_group(leases=LeasePolicy(max_endpoints=2)).open() as stage:
        for name in ("a", "b"):
            await stage.fleet.register(server(name), seconds=None)
        with pytest.raises(RegistrationRefused, match=r"orchestrator\.leases\.max_endpoints"):
            await stage.fleet.register(server("c"), seconds=None)
        await stage.fleet.register(server("a"), seconds=None)


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://user:word@x"}, "url"),
        ({"weight": -1.0}, "weight"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
    ],
)
async def test_a_registration_that_is_wrong_says_what(told: dict[str, Any], path: str) -> None:
    async with open_group().open() as stage:
        with pytest.raises(InvalidRequest) as caught:
            await stage.fleet.register(server(**told), seconds=None)
        assert caught.value.findings[0].path == path


async def test_a_lease_lasts_no_longer_than_it_may() -> None:
    async with open_group(leases=LeasePolicy(max_seconds=60)).open() as stage:
        _, lease = await stage.fleet.register(server(), seconds=1e9)
        assert lease.seconds == 60
        _, lease = await stage.fleet.register(server(), seconds=0)
        assert lease.seconds == 1


# --------------------------------------------------------------------------------------------------------- health


async def test_an_endpoint_that_fails_its_health_checks_gets_no_calls_while_another_one_is_well() -> None:
    async with Stage(one("a", group="pool"), one("b", group="pool")).open(looked_after=True) as stage:
        stage.behind["a"].sickness = GONE
        await anyio.sleep(20)
        view = stage.fleet.endpoints()[0]
        assert (view.health, view.health_error) == (EndpointHealth.UNHEALTHY, "gone")
        assert {(await stage.ask()).endpoint for _ in range(5)} == {"b"}
        stage.behind["a"].sickness = None
        await anyio.sleep(5)
        assert stage.fleet.endpoints()[0].health is EndpointHealth.HEALTHY


async def test_a_sick_endpoint_is_tried_where_the_breakers_of_those_that_are_well_are_open() -> None:
    """What fails its checks may answer calls all the same; to wait for another one that does not is no better."""
    async with Stage(one("a", group="pool"), one("b", group="pool")).open(looked_after=True) as stage:
        stage.behind["a"].sickness = GONE
        await anyio.sleep(20)
        stage.fleet.force("b", ("m",), BreakerState.FORCED_OPEN)
        assert (await stage.ask()).endpoint == "a"


async def test_where_all_are_sick_calls_are_tried_all_the_same() -> None:
    """The checks may be what is wrong; the breakers know better."""
    async with Stage().open(looked_after=True) as stage:
        stage.main.sickness = GONE
        await anyio.sleep(20)
        assert stage.fleet.endpoints()[0].health is EndpointHealth.UNHEALTHY
        await stage.ask()


@pytest.mark.parametrize(
    "error",
    [
        AttemptError("HTTP_STATUS", "404: no such path", retryable=False),
        AttemptError("UNAUTHORIZED", "no", retryable=False),
    ],
)
async def test_who_refuses_the_check_is_alive(error: AttemptError) -> None:
    async with Stage().open(looked_after=True) as stage:
        stage.main.sickness = error
        await anyio.sleep(20)
        assert stage.fleet.endpoints()[0].health is EndpointHealth.HEALTHY


async def test_an_endpoint_that_is_well_again_is_probed_before_its_breakers_time() -> None:
    async with Stage().open(looked_after=True) as stage:
        stage.main.sickness = GONE
        stage.fleet.force("main", ("m",), BreakerState.CLOSED)
        await anyio.sleep(20)
        await stage.fail()
        for _ in range(3):
            # Each opening in a row is longer.
            await anyio.sleep(310)
            stage.main.error = GONE
            for _ in range(3):
                with pytest.raises(AttemptError):
                    await stage.ask()
            stage.main.error = None
        until = stage.breaker().open_until
        assert until is not None
        stage.main.sickness = None
        await anyio.sleep(60)
        assert START + anyio.current_time() * SECOND < until
        assert stage.state() is BreakerState.HALF_OPEN
        await stage.ask()


async def test_models_are_learned_from_the_endpoint_unless_the_settings_name_them() -> None:
    told = one("told", models=("given",))
    async with Stage(one("asked"), told).open() as stage:
        stage.behind["asked"].serves = stage.behind["told"].serves = ("learned",)
        async with stage.open_upkeep():
            await anyio.sleep(1)
            assert {view.name: view.models for view in stage.fleet.endpoints()} == {
                "asked": ("learned",),
                "told": ("given",),
            }


# ---------------------------------------------------------------------------------------------------------- names


async def test_each_address_of_a_name_is_an_endpoint_and_they_come_and_go_with_it() -> None:
    stage = Stage(one(every_address=True, dns_refresh_seconds=30))
    stage.addresses = ("10.0.0.1", "10.0.0.2")
    async with stage.open(looked_after=True):
        await anyio.sleep(1)
        views = stage.fleet.endpoints()
        assert [(view.name, view.group, view.source) for view in views] == [
            ("main/10.0.0.1", "main", EndpointSource.DNS),
            ("main/10.0.0.2", "main", EndpointSource.DNS),
        ]
        await stage.ask()
        stage.addresses = ("10.0.0.2", "10.0.0.3")
        await anyio.sleep(30)
        assert [view.name for view in stage.fleet.endpoints()] == ["main/10.0.0.2", "main/10.0.0.3"]
        stage.addresses = OSError("no such host")
        await anyio.sleep(60)
        assert len(stage.fleet.endpoints()) == 2
        assert stage.ear.notices.count("endpoint_unresolved") == 1


async def test_while_a_name_has_no_address_its_tasks_are_parked_and_come_when_it_has_one() -> None:
    stage = Stage(one(every_address=True, dns_refresh_seconds=3))
    stage.addresses = OSError("no such host")
    async with stage.open(looked_after=True):
        await anyio.sleep(1)
        error = await stage.put_off(request="job/task")
        assert "has no endpoint now" in error.message
        called = anyio.Event()
        assert error.turn is not None
        error.turn.call(called.set)
        stage.addresses = ("10.0.0.1",)
        with anyio.fail_after(4):
            await called.wait()
        await stage.ask(request="job/task")


# ------------------------------------------------------------------------------------------------------ operators


async def test_what_is_unknown_cannot_be_steered() -> None:
    async with Stage().open() as stage:
        with pytest.raises(EndpointNotFound):
            stage.fleet.drain("other", draining=True)
        with pytest.raises(EndpointNotFound):
            stage.fleet.force("other", (), BreakerState.CLOSED)


async def test_whoever_waits_for_changes_hears_of_breakers_health_draining_and_registrations() -> None:
    async with open_group().open() as stage:
        for change in (
            lambda: stage.fleet.force("main", ("m",), BreakerState.OPEN),
            lambda: stage.fleet.drain("main", draining=True),
            lambda: stage.fleet.directory.endpoint("main").checked(None, anyio.current_time()),
        ):
            async with anyio.create_task_group() as group:
                group.start_soon(stage.fleet.changed)
                await anyio.sleep(1)
                change()
        async with anyio.create_task_group() as group:
            group.start_soon(stage.fleet.changed)
            await anyio.sleep(1)
            await stage.fleet.register(server(), seconds=None)


async def test_the_log_tells_of_registrations_and_of_what_is_drained_once_each() -> None:
    async with open_group().open() as stage:
        await stage.fleet.register(server(), seconds=None)
        for draining in (True, True, False):
            stage.fleet.drain("main", draining=draining)
        with pytest.raises(EndpointNotFound):
            await stage.fleet.deregister("new", "another lease")
        _, lease = await stage.fleet.register(server(), seconds=None)
        await stage.fleet.deregister("new", lease.id)
    told = ["endpoint_registered", "endpoint_draining", "endpoint_draining", "endpoint_deregistered"]
    assert stage.ear.notices == told


async def test_a_view_tells_who_waits_and_why() -> None:
    async with Stage().open() as stage:
        await stage.fail(BROKEN)
        errors: list[AttemptPutOff] = [await stage.put_off() for _ in range(3)]
        for error in errors:
            assert error.turn is not None
            error.turn.call(lambda: None)
        breaker, endpoint = stage.breaker(), stage.fleet.endpoints()[0]
        assert (breaker.waiting, endpoint.waiting) == (3, 3)
        assert (breaker.reason, breaker.open_until) == (
            "2 of 2 calls failed (the last: HTTP_STATUS)",
            START + 15 * SECOND,
        )
        for error in errors:
            assert error.turn is not None
            error.turn.leave()
        assert stage.breaker().waiting == 0


# --------------------------------------------------------------------------------------- what happens at one time


class _Slow:
    """An Opener whose endpoints take a while to be opened and closed, as sessions do."""

    def __init__(self, opened: Opener) -> None:
        self._opened = opened

    @asynccontextmanager
    async def __call__(self, settings: EndpointSettings, address: str | None) -> AsyncIterator[Connected]:
        await anyio.sleep(0.5)
        async with self._opened(settings, address) as connected:
            try:
                yield connected
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)


def open_slowly(*endpoints: EndpointSettings) -> Stage:
    return Stage(*(endpoints or (one(group="pool", takes_registrations=True),)), slow=_Slow)


async def test_two_registrations_of_one_name_at_one_time_make_one_endpoint() -> None:
    both = (one(group="pool", takes_registrations=True), one("other", group="swim", takes_registrations=True))
    async with open_slowly(*both).open() as stage:
        async with anyio.create_task_group() as tasks:
            for group in ("pool", "swim"):
                tasks.start_soon(partial(stage.fleet.register, server(group=group), seconds=None))
        assert len(stage.fleet.directory.of("pool")) + len(stage.fleet.directory.of("swim")) == len(both) + 1


async def test_leases_that_end_together_while_one_is_renewed_and_one_is_given_back() -> None:
    """An error here would be the end of the daemon."""
    async with open_slowly().open() as stage:
        leases = [(await stage.fleet.register(server(name), seconds=10))[1] for name in "abc"]
        now = anyio.current_time() + 10
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.fleet.expire, now)
            await anyio.sleep(0.1)
            await stage.fleet.renew("b", leases[1].id)
            tasks.start_soon(stage.fleet.deregister, "c", leases[2].id)
        assert [each.name for each in stage.fleet.endpoints()] == ["b", "main"]


async def test_what_was_removed_is_closed_once_by_whoever_comes_first() -> None:
    async with open_slowly().open() as stage:
        leases = [(await stage.fleet.register(server(name), seconds=10))[1] for name in "ab"]
        endpoints = [stage.fleet.directory.endpoint(name) for name in "ab"]
        for endpoint in endpoints:
            # Both wait for a call of theirs.
            endpoint.calls += 1
        for name, lease in zip("ab", leases, strict=True):
            await stage.fleet.deregister(name, lease.id)
        for endpoint in endpoints:
            endpoint.calls -= 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.fleet.close_idle)
            tasks.start_soon(stage.fleet.close_idle)
        assert all(stage.behind[name].closed for name in "ab")


async def test_an_address_whose_name_a_server_took_leaves_that_one_alone() -> None:
    stage = Stage(one("farm", group="pool", every_address=True, dns_refresh_seconds=5, takes_registrations=True))
    stage.addresses = []
    async with stage.open(looked_after=True):
        await stage.fleet.register(server("farm/10.0.0.1"), seconds=20)
        stage.addresses = ["10.0.0.1"]
        await anyio.sleep(10)
        assert [each.source for each in stage.fleet.endpoints()] == [EndpointSource.REGISTERED]
        await anyio.sleep(20)
        assert [each.source for each in stage.fleet.endpoints()] == [EndpointSource.DNS]
        stage.addresses = []
        await anyio.sleep(10)
        assert stage.fleet.endpoints() == []


async def test_whatever_a_check_or_a_name_runs_into_the_fleet_is_looked_after_still() -> None:
    stage = Stage(one(health_interval_seconds=1), one("farm", every_address=True, dns_refresh_seconds=5))
    stage.addresses = UnicodeError("label too long")
    async with stage.open(looked_after=True):
        stage.main.sickness = RuntimeError("Session is closed")
        await anyio.sleep(10)
        [main] = stage.fleet.endpoints()
        assert (main.health, main.health_error) == (EndpointHealth.UNHEALTHY, "RuntimeError: Session is closed")
        stage.main.sickness, stage.addresses = None, ["10.0.0.1"]
        await anyio.sleep(10)
        assert [each.name for each in stage.fleet.endpoints()] == ["farm/10.0.0.1", "main"]


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "x:99999", "."])
async def test_a_host_that_nobody_can_look_up_is_refused(host: str) -> None:
    async with open_group().open() as stage:
        with pytest.raises(InvalidRequest):
            await stage.fleet.register(server(url=f"http://{host}/"), seconds=None)
