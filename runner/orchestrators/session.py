"""The HTTP session of one endpoint: its connections, names and certificates."""

from __future__ import annotations

import ipaddress
import math
import socket
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from runner.orchestrators import tls
from runner.orchestrators.settings import EndpointSettings

#: Seconds that a connection without a call is kept. Servers hang up after such times, and a call that just then goes
#: out on it is lost.
_KEPT_SECONDS: Final = 15.0


def open_session(endpoint: EndpointSettings, address: str | None = None) -> aiohttp.ClientSession:
    """A session for calls to the endpoint, to be closed by whoever opens it. Connects to nothing yet.

    With an `address`, an IP, connections go there and nowhere else; host and certificate are still those of the `url`.

    Raises InvalidSettings: as `tls.context`.
    """
    connector = aiohttp.TCPConnector(
        # The guard bounds the calls; a second queue here would count its waiting against the endpoint.
        limit=0,
        ttl_dns_cache=math.ceil(endpoint.dns_refresh_seconds),
        # A connection that nobody uses must not outlive what was believed of the name when it was made.
        keepalive_timeout=min(_KEPT_SECONDS, endpoint.dns_refresh_seconds),
        resolver=None if address is None else _OneAddress(address),
        ssl=tls.context(endpoint) or True,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=endpoint.connect_timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        # These are inflated in pieces of bounded size, whatever else is installed.
        headers={"Accept-Encoding": "gzip, deflate"},
    )


class _OneAddress(AbstractResolver):
    """Every name is at one address."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        kind = socket.AF_INET if ipaddress.ip_address(self._address).version == 4 else socket.AF_INET6  # noqa: PLR2004 - IPv4
        return [
            ResolveResult(
                hostname=host, host=self._address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
        ]

    async def close(self) -> None:
        """Nothing is open."""
