"""What happens to the fleet by itself: health checks, catalogues, names resolved anew, leases that end, lines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio
import anyio.abc
import msgspec

from runner.core.errors import AttemptError, InvalidSettings, RegistrationRefused
from runner.core.fleet import EndpointHealth, EndpointSource
from runner.orchestrators.endpoint import Endpoint
from runner.orchestrators.fleet import Fleet
from runner.orchestrators.settings import EndpointSettings
from runner.ports import Observer

#: Seconds between two looks at lines in which somebody waits: time alone may let the next one in.
_LOOK_SECONDS: Final = 0.1

#: A sick endpoint is checked so many times as often, so that its return is seen soon.
_SICK_OFTENER: Final = 4

#: Seconds between two checks of an endpoint, at least.
_SHORTEST: Final = 0.5

#: Seconds between two questions for an endpoint's models, and after one that was not answered.
_CATALOGUE_SECONDS: Final = 300.0
_CATALOGUE_AGAIN_SECONDS: Final = 30.0

#: Seconds between two looks at endpoints that come and go.
_ROLL_CALL_SECONDS: Final = 1.0

#: Addresses of a host name and port, each once.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def upkeep(fleet: Fleet, observer: Observer, resolve: Resolve, chance: Callable[[], float]) -> None:
    """Look after the fleet until cancelled."""
    fleet.directory.settle()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_move_lines, fleet)
        tasks.start_soon(_call_roll, fleet, tasks, chance)
        for configured in fleet.settings.endpoints:
            if configured.every_address:
                tasks.start_soon(_follow_name, fleet, configured, observer, resolve)


async def _move_lines(fleet: Fleet) -> None:
    while True:
        await fleet.restless.wait()
        fleet.restless = anyio.Event()
        await anyio.sleep(_LOOK_SECONDS)
        fleet.stir(anyio.current_time())


async def _call_roll(fleet: Fleet, tasks: anyio.abc.TaskGroup, chance: Callable[[], float]) -> None:
    """Begin to look after endpoints that come, and forget those whose leases end."""
    watched: set[Endpoint] = set()
    while True:
        await fleet.expire(anyio.current_time())
        await fleet.close_idle()
        there = set(fleet.directory.endpoints)
        watched &= there
        for endpoint in there - watched:
            watched.add(endpoint)
            tasks.start_soon(_look_after, fleet, endpoint, chance)
        with anyio.move_on_after(_ROLL_CALL_SECONDS):
            await fleet.changed()


async def _look_after(fleet: Fleet, endpoint: Endpoint, chance: Callable[[], float]) -> None:
    """Check an endpoint's health and ask for its models, until it goes."""
    interval = endpoint.settings.health_interval_seconds
    if not interval:
        return
    ask_at = anyio.current_time()
    while fleet.directory.holds(endpoint):
        error = await _asked(endpoint.speaker.health)
        if not fleet.directory.holds(endpoint):
            return
        endpoint.checked(error, anyio.current_time())
        if error is None and not endpoint.catalogue.complete and anyio.current_time() >= ask_at:
            ask_at = anyio.current_time() + await _learn(fleet, endpoint)
        awaited = error is not None or endpoint.health is EndpointHealth.UNHEALTHY or endpoint.recovering
        pause = interval / _SICK_OFTENER if awaited else interval
        # Between nine and eleven tenths, or the daemons of a cluster would ask all at once.
        await anyio.sleep(max(_SHORTEST, pause * (0.9 + 0.2 * chance())))


async def _learn(fleet: Fleet, endpoint: Endpoint) -> float:
    """Ask for its models. Answers after how many seconds to ask again."""
    learned: list[tuple[str, ...]] = []

    async def ask() -> None:
        learned.append(await endpoint.speaker.models())

    await _asked(ask)
    for models in learned:
        fleet.directory.learn(endpoint, models)
    return _CATALOGUE_SECONDS if learned else _CATALOGUE_AGAIN_SECONDS


async def _asked(ask: Callable[[], Awaitable[None]]) -> AttemptError | None:
    """Why an endpoint did not answer what upkeep asks, if it did not."""
    try:
        await ask()
    except AttemptError as error:
        return error
    except Exception as error:  # noqa: BLE001  one endpoint that cannot be asked must not take the daemon with it
        return AttemptError("CONNECTION_FAILED", f"{type(error).__name__}: {error}", retryable=True)
    return None


async def _follow_name(fleet: Fleet, configured: EndpointSettings, observer: Observer, resolve: Resolve) -> None:
    """Keep an endpoint for each address of a name. While it cannot be resolved, those that are known stay."""
    there: dict[str, Endpoint] = {}
    failing = False
    while True:
        try:
            addresses = await resolve(configured.host, configured.port)
        # ValueError: of the name, as UnicodeError is.
        except (OSError, ValueError) as error:
            if not failing:
                observer.notice("endpoint_unresolved", endpoint=configured.name, error=str(error))
            failing = True
        else:
            failing = False
            for address in there.keys() - set(addresses):
                await fleet.remove(there.pop(address))
            for address in addresses:
                if address not in there:
                    added = await _add_address(fleet, configured, address, observer)
                    if added is not None:
                        there[address] = added
        await anyio.sleep(configured.dns_refresh_seconds)


async def _add_address(fleet: Fleet, configured: EndpointSettings, address: str, observer: Observer) -> Endpoint | None:
    """An endpoint for one address; None where it cannot be opened now."""
    name = f"{configured.name}/{address}"
    settings = msgspec.structs.replace(configured, name=name, group=configured.group_name)
    try:
        return await fleet.add(settings, origin=configured.name, source=EndpointSource.DNS, address=address)
    except (InvalidSettings, RegistrationRefused) as error:
        observer.notice("endpoint_unresolved", endpoint=name, error=str(error))
        return None
