"""The configured AI orchestrators, opened and guarded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import aiohttp

from runner.orchestrators.altlas import Altlas
from runner.orchestrators.anthropic import Anthropic
from runner.orchestrators.connection import Connection
from runner.orchestrators.guarded import GuardedOrchestrator
from runner.orchestrators.model_lists import Speaker
from runner.orchestrators.openai import OpenAI
from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings, Protocol
from runner.ports import Clock, Observer

_PROTOCOLS: Final[Mapping[Protocol, Callable[[Connection], Speaker]]] = {
    Protocol.ALTLAS: Altlas,
    Protocol.OPENAI: OpenAI,
    Protocol.ANTHROPIC: Anthropic,
}


@asynccontextmanager
async def open_orchestrators(
    settings: OrchestratorSettings, *, clock: Clock, observer: Observer, chance: Callable[[], float]
) -> AsyncIterator[dict[str, GuardedOrchestrator]]:
    """The endpoints by name, in the order of the settings, ready inside the context. Connects to none of them yet.

    `chance` gives numbers in [0, 1). Needs asyncio.
    """
    async with AsyncExitStack() as stack:
        opened = {}
        for endpoint in settings.endpoints:
            connection = Connection(await stack.enter_async_context(_session(endpoint)), endpoint)
            opened[endpoint.name] = GuardedOrchestrator(
                _PROTOCOLS[endpoint.protocol](connection),
                name=endpoint.name,
                default_model=endpoint.model,
                policy=settings.breaker,
                max_calls=endpoint.max_connections,
                max_models=endpoint.max_models,
                clock=clock,
                observer=observer,
                chance=chance,
                take_key=connection.take_key,
            )
        yield opened


def renew_keys(orchestrators: Mapping[str, GuardedOrchestrator], settings: OrchestratorSettings) -> None:
    """Take over the API keys of settings that were read again; endpoints that refused theirs are asked again."""
    for endpoint in settings.endpoints:
        if endpoint.name in orchestrators:
            orchestrators[endpoint.name].renew(endpoint.api_key)


def _session(endpoint: EndpointSettings) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # The guard bounds the calls; a second queue here would count its waiting against the endpoint.
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=endpoint.connect_timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
