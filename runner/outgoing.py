"""Outgoing HTTP calls that a hostile other side cannot stretch: bounded in bytes, in silence and in time.

Orchestrators and the `http_request` handler speak through this; both turn what goes wrong into an AttemptError here,
so a status or a broken connection means the same wherever it happens.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import math
import re
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import anyio
import msgspec
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from runner.core.errors import AttemptError
from runner.core.secret import MASK

#: Milliseconds that were left for the call when it was sent; the other side may give up after them.
DEADLINE_HEADER: Final = "X-Deadline-Ms"

#: One side does not accept the other's certificate.
CERTIFICATE_REFUSED: Final = "CERTIFICATE_REFUSED"

#: By these, in what OpenSSL calls the reason, a server complains of the certificate that we have, or have not.
_OF_OUR_CERTIFICATE: Final = ("certificate", "unknown ca", "access denied", "alert handshake failure")

#: Seconds; no server makes us wait longer, whatever it asks for.
MAX_RETRY_AFTER: Final = 86_400.0

#: Characters of a refusal's text that go into its error.
_EXCERPT_CHARACTERS: Final = 300
_EXCERPT_BYTES: Final = 4096
_EXCERPT_SECONDS: Final = 2.0

_FINISH_SECONDS: Final = 0.1
_LARGE_BODY: Final = 512 * 1024


#: Translates IPv6 to IPv4: what is behind it is the address in its last four bytes (RFC 6052).
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PrivateAddress(OSError):
    """A connection to an address that may not be reached was refused."""

    #: The setting that forbids it.
    setting: str = "allow_private"


class LinkLocalAddress(PrivateAddress):
    """One of the kind at which clouds give out credentials to whoever asks."""

    setting = "allow_addresses"


class Reach(msgspec.Struct, frozen=True):
    """The addresses that may be connected to."""

    #: Loopback and private ones, too.
    private: bool
    #: Networks that may be reached whatever they are.
    networks: tuple[str, ...] = ()

    def socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """A connector's `socket_factory`.

        Judged here, after name resolution and redirects, no name and no spelling can stand for another place: the
        address that is judged is the one that is connected to.
        Raises PrivateAddress.
        """
        family, kind, protocol, _, place = address
        self.check(ipaddress.ip_address(place[0]))
        return socket.socket(family, kind, protocol)

    def check(self, address: _Address) -> None:
        """Raises PrivateAddress: if it may not be reached."""
        meant = _meant(address)
        if any(meant in ipaddress.ip_network(network) for network in self.networks):
            return
        if meant.is_link_local:
            raise LinkLocalAddress
        if not self.private and (not meant.is_global or meant.is_multicast):
            raise PrivateAddress


def _meant(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address stands for, where it does; without a zone."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    address = ipaddress.IPv6Address(int(address))
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one call."""

    #: Seconds for the whole call, waiting for our own readers not counted.
    timeout: float
    #: Seconds between two pieces of the answer's body.
    idle: float
    #: Bytes of the answer's body, unpacked.
    max_bytes: int
    #: Where an operator changes them, for messages: `http_request`, `orchestrator.endpoints[main]`.
    settings: str
    #: What to do about certificates, as the end of a message.
    tls_advice: str = ""


class IncomingAnswer:
    """An answer whose head has arrived."""

    def __init__(
        self, response: aiohttp.ClientResponse, limits: CallLimits, scope: anyio.CancelScope, who: str
    ) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._limits = limits
        self._scope = scope
        self._who = who

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives.

        Raises AttemptError: ANSWER_TOO_LARGE beyond `max_bytes`; TIMED_OUT after `idle` seconds of silence.
        """
        size = 0
        while chunk := await self._chunk():
            size += len(chunk)
            self._bound(size)
            # The consumer may wait for a slow ledger; that time is ours, and no fault of the other side.
            left = self._scope.deadline - anyio.current_time()
            self._scope.deadline = math.inf
            yield chunk
            self._scope.deadline = anyio.current_time() + left

    async def whole(self) -> bytes:
        """The whole body. Raises AttemptError: as `chunks`."""
        body = bytearray()
        while chunk := await self._chunk():
            body += chunk
            self._bound(len(body))
        return bytes(body)

    async def finish(self) -> None:
        """Read what is left, if it comes at once: only a connection that was read to its end is used again."""
        with anyio.move_on_after(_FINISH_SECONDS), contextlib.suppress(aiohttp.ClientError, AttemptError):
            while await self._chunk():
                pass

    async def excerpt(self, secrets: Iterable[str] = ()) -> str:
        """The beginning of a refusal's body as one line of text, `secrets` masked. Never fails, never takes long."""
        seen = bytearray()
        with anyio.move_on_after(_EXCERPT_SECONDS), contextlib.suppress(aiohttp.ClientError, AttemptError):
            while len(seen) < _EXCERPT_BYTES and (chunk := await self._chunk()):
                seen += chunk
        return excerpt(bytes(seen), secrets)

    def _bound(self, size: int) -> None:
        if size > self._limits.max_bytes:
            raise AttemptError(
                "ANSWER_TOO_LARGE",
                f"{self._who} answered more than {self._limits.max_bytes} bytes"
                f" (setting `{self._limits.settings}.max_answer_bytes`)",
                retryable=False,
            )

    async def _chunk(self) -> bytes:
        content = self._response.content
        # Short answers come with their heads: a watch over the silence before them would cost more than reading them.
        chunk = content.read_nowait()
        if chunk or content.at_eof():
            return chunk
        with anyio.move_on_after(self._limits.idle) as silence:
            chunk = await content.readany()
        if silence.cancelled_caught:
            raise AttemptError(
                "TIMED_OUT",
                f"{self._who} sent nothing for {self._limits.idle:g} s"
                f" (setting `{self._limits.settings}.idle_timeout_seconds`)",
                retryable=True,
            )
        return chunk


@asynccontextmanager
async def call(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    *,
    who: str,
    limits: CallLimits,
    headers: Mapping[str, str],
    body: bytes | None = None,
    sent: Callable[[], None] | None = None,
    **request: Any,
) -> AsyncIterator[IncomingAnswer]:
    """Send a request and give its answer, whatever its status; the connection is given back at the end.

    `who` names the other side in messages and must hold no secret. `sent` is called when there is a connection, and
    the `body` goes out on it. `request` goes to aiohttp.

    Raises AttemptError: CONNECTION_FAILED, TIMED_OUT, INVALID_ANSWER (not HTTP), all retryable; CERTIFICATE_REFUSED,
    which is not.
    """
    data: _Bytes | _File | bytes | None = body
    if body:
        # A large body as one piece would hold the loop while it is copied; a file is read piece by piece.
        data = _Bytes(body) if len(body) <= _LARGE_BODY else _File(io.BytesIO(body))
        data.sent = sent
    whole = {**headers, DEADLINE_HEADER: str(max(0, int(limits.timeout * 1000)))}
    with _telling(who, limits), anyio.fail_after(max(0.0, limits.timeout)) as scope:
        async with session.request(method, url, headers=whole, data=data, **request) as response:
            yield IncomingAnswer(response, limits, scope, who)


class _Told(aiohttp.Payload):
    """A body that tells when it goes out."""

    sent: Callable[[], None] | None = None

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if self.sent is not None:
            self.sent()
        await super().write_with_length(writer, content_length)


class _Bytes(_Told, aiohttp.BytesPayload):
    """One piece."""


class _File(_Told, aiohttp.BytesIOPayload):
    """Piece by piece."""


@contextmanager
def _telling(who: str, limits: CallLimits) -> Iterator[None]:
    """Turn what a call may raise into an AttemptError. aiohttp's own words may hold the URL, and so secrets."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        message = f"no connection to {who} was made in time (setting `{limits.settings}.connect_timeout_seconds`)"
        raise _never_reached(AttemptError("TIMED_OUT", message, retryable=True)) from error
    except TimeoutError as error:
        message = f"{who} did not answer within {limits.timeout:g} s"
        raise AttemptError("TIMED_OUT", message, retryable=True) from error
    except ssl.SSLError as error:
        # Also what aiohttp makes of one that comes while it connects. First, as some have no `os_error`.
        failure = _tls_failure(error, who, limits)
        raise _never_reached(failure) if isinstance(error, aiohttp.ClientConnectorError) else failure from error
    except aiohttp.ClientConnectorError as error:
        raise _never_reached(_not_connected(error, who, limits)) from error
    except aiohttp.TooManyRedirects as error:
        message = f"{who} redirected more often than is followed (setting `{limits.settings}.max_redirects`)"
        raise AttemptError("TOO_MANY_REDIRECTS", message, retryable=False) from error
    except aiohttp.RedirectClientError as error:
        message = f"{who} redirected to an address that is not of http or https"
        raise AttemptError("INVALID_REDIRECT", message, retryable=False) from error
    except (aiohttp.InvalidURL, UnicodeError) as error:
        # UnicodeError: of a host name that cannot be looked up.
        failure = AttemptError("INVALID_URL", f"the address of {who} cannot be called", retryable=False)
        raise _never_reached(failure) from error
    except aiohttp.ClientResponseError as error:
        raise AttemptError("INVALID_ANSWER", f"{who} did not answer in HTTP", retryable=True) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _broken_off(error, who, limits) from error


def _never_reached(failure: AttemptError) -> AttemptError:
    failure.connected = False
    return failure


def _not_connected(error: aiohttp.ClientConnectorError, who: str, limits: CallLimits) -> AttemptError:
    if isinstance(error.os_error, PrivateAddress):
        kind = "link-local" if isinstance(error.os_error, LinkLocalAddress) else "private"
        setting = f"{limits.settings}.{error.os_error.setting}"
        message = f"{who} is at a {kind} address, which the setting `{setting}` does not allow"
        return AttemptError("PRIVATE_ADDRESS", message, retryable=False)
    reason = error.os_error.strerror or type(error.os_error).__name__
    return AttemptError("CONNECTION_FAILED", f"cannot connect to {who}: {reason}", retryable=True)


def _broken_off(error: Exception, who: str, limits: CallLimits) -> AttemptError:
    if isinstance(error.__cause__, ssl.SSLError):
        return _tls_failure(error.__cause__, who, limits)
    message = f"the connection to {who} broke off ({type(error).__name__})"
    return AttemptError("CONNECTION_FAILED", message, retryable=True)


def _tls_failure(error: ssl.SSLError, who: str, limits: CallLimits) -> AttemptError:
    """Certificates are mended by people, and not by trying again; the rest is like any broken connection."""
    inner = getattr(error, "os_error", error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        message = f"the certificate of {who} is not to be trusted: {inner.verify_message}{limits.tls_advice}"
        return _never_reached(AttemptError(CERTIFICATE_REFUSED, message, retryable=False))
    reason = (getattr(inner, "reason", None) or "no reason given").lower().replace("_", " ")
    if any(word in reason for word in _OF_OUR_CERTIFICATE):
        told = "refused us, most often for the certificate that we show or do not show"
        message = f"{who} {told}: {reason}{limits.tls_advice}"
        # It may come after we have sent the request, of which the other side reads nothing.
        return _never_reached(AttemptError(CERTIFICATE_REFUSED, message, retryable=False))
    return AttemptError("CONNECTION_FAILED", f"TLS with {who} failed: {reason}", retryable=True)


def status_is_retryable(status: int) -> bool:
    """True if the same call may succeed later: 5xx, 408, 429."""
    return status >= 500 or status in {408, 429}  # noqa: PLR2004 - the numbers of RFC 9110


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for (RFC 9110, 10.2.3): seconds, or a date that is compared with the answer's `Date`.

    None if it is absent or unreadable. From 0 to MAX_RETRY_AFTER.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
        return min(float(value), MAX_RETRY_AFTER)
    until = _timestamp(value)
    if until is None:
        return None
    now = _timestamp(headers.get("Date", ""))
    return min(max(0.0, until - (time.time() if now is None else now)), MAX_RETRY_AFTER)


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def excerpt(body: bytes, secrets: Iterable[str]) -> str:
    """What a refusal says, in one short line: the message inside the usual JSON shapes, else its text."""
    text = body.decode("utf-8", "replace")
    try:
        value: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        value = None
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and name in value:
            value = value[name]
    shown = value if isinstance(value, str) else text
    for secret in filter(None, secrets):
        shown = shown.replace(secret, MASK)
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())[:_EXCERPT_CHARACTERS]
