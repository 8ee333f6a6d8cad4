"""The configured AI orchestrators, opened, fenced and looked after."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio

from runner.orchestrators.altlas import Altlas
from runner.orchestrators.anthropic import Anthropic
from runner.orchestrators.connection import Connection
from runner.orchestrators.fleet import Connected, Fleet
from runner.orchestrators.model_lists import Speaker
from runner.orchestrators.openai import OpenAI
from runner.orchestrators.session import open_session
from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings, Protocol
from runner.orchestrators.upkeep import upkeep
from runner.ports import Clock, Observer

_PROTOCOLS: Final[Mapping[Protocol, Callable[[Connection], Speaker]]] = {
    Protocol.ALTLAS: Altlas,
    Protocol.OPENAI: OpenAI,
    Protocol.ANTHROPIC: Anthropic,
}


@asynccontextmanager
async def open_orchestrators(
    settings: OrchestratorSettings,
    *,
    clock: Clock,
    observer: Observer,
    chance: Callable[[], float],
    new_id: Callable[[], str],
    looked_after: bool,
) -> AsyncIterator[Fleet]:
    """The fleet of endpoints, ready inside the context; tasks ask its `directory`.

    Connects to none of them unless it is `looked_after`: then they are checked in the background. `chance` gives
    numbers in [0, 1). Needs asyncio.
    """
    time = asyncio.get_running_loop().time
    fleet = Fleet(settings, _opened, clock=clock, observer=observer, chance=chance, new_id=new_id, time=time)
    async with fleet.open(), AsyncExitStack() as stack:
        if looked_after:
            background = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(background.cancel_scope.cancel)
            background.start_soon(upkeep, fleet, observer, _resolved, chance)
        yield fleet


@asynccontextmanager
async def _opened(settings: EndpointSettings, address: str | None) -> AsyncIterator[Connected]:
    async with open_session(settings, address) as session:
        connection = Connection(session, settings)
        yield Connected(_PROTOCOLS[settings.protocol](connection), connection.take_key)


async def _resolved(host: str, port: int) -> Sequence[str]:
    found: list[Any] = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(place[0] for _, _, _, _, place in found))
