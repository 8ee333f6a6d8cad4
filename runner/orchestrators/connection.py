"""The HTTP under every orchestrator protocol: headers, limits, and refusals as errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

import aiohttp
import msgspec
from yarl import URL

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.prompt import Prompt
from runner.core.secret import Secret
from runner.orchestrators.settings import EndpointSettings
from runner.outgoing import CallLimits, IncomingAnswer, call, excerpt, retry_after_seconds, status_is_retryable

#: The endpoint refused our key. Not a fault of the network: nothing but an operator mends it.
UNAUTHORIZED: Final = "UNAUTHORIZED"
INVALID_ANSWER: Final = "INVALID_ANSWER"

_ONE_CALL: Final = Usage(calls=1)

#: Seconds for a health check.
_HEALTH_SECONDS: Final = 5.0

#: Characters of a name that an endpoint gives: a model, a reason.
MAX_NAME: Final = 256

Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**48)]

#: Kinds of errors within an answer that has begun, after which trying again is in vain.
_DENIALS: Final = frozenset({"authentication_error", "permission_error"})
_REFUSALS: Final = frozenset({"invalid_request_error", "not_found_error", "request_too_large"})

_T = TypeVar("_T")


class Connection:
    """One endpoint's session, and what every protocol does with it."""

    def __init__(self, session: aiohttp.ClientSession, settings: EndpointSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self._session = session
        #: The headers that show a key, which may be empty. A protocol may have others.
        self.sign: Callable[[str], dict[str, str]] = bearer
        self._key = settings.api_key
        self._base = URL(settings.url)

    def take_key(self, key: Secret) -> None:
        """Send another API key from the next call on."""
        self._key = key

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any], prompt: Prompt) -> AsyncIterator[IncomingAnswer]:
        """Post JSON and give the answer, which was not a refusal.

        Raises AttemptError: UNAUTHORIZED for 401 and 403; HTTP_STATUS, retryable for 408, 429 and 5xx; else as
        `outgoing.call` and `IncomingAnswer.chunks`.
        """
        headers = {"Content-Type": "application/json", "Idempotency-Key": prompt.request_id, **self._signature()}
        if prompt.traceparent:
            headers["traceparent"] = prompt.traceparent
        limits = self._limits(min(prompt.timeout, self.settings.timeout_seconds))
        content = msgspec.json.encode(body)
        went = False

        def sent() -> None:
            nonlocal went
            went = True
            if prompt.used is not None:
                prompt.used(_ONE_CALL)

        if prompt.used is not None:
            prompt.used(Usage())
        try:
            async with self._call("POST", path, limits, headers, body=content, sent=sent) as incoming:
                yield incoming
        except AttemptError as error:
            error.model = error.model or prompt.model or self.settings.model
            if error.reason == "TIMED_OUT" and not went:
                # Its whole time was up before the time for connecting.
                error.connected = False
            if error.connected:
                # Whatever failed, it was a call to this endpoint, and it may cost.
                error.usage = error.usage or _ONE_CALL
            raise

    async def check(self, path: str) -> None:
        """Raises AttemptError: if GET on the path is not answered with success in a few seconds."""
        async with self._call("GET", path, self._limits(_HEALTH_SECONDS), self._signature()):
            pass

    async def get(self, path: str, query: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """What GET on the path gives, in a few seconds. Raises AttemptError: as `check`, and if it is too large."""
        limits = self._limits(_HEALTH_SECONDS)
        async with self._call("GET", path, limits, self._signature(), query=query) as incoming:
            return await incoming.whole()

    def decode(self, body: bytes | str, kind: type[_T]) -> _T:
        """JSON into a struct. Raises AttemptError: INVALID_ANSWER, retryable, if it is anything else."""
        try:
            return msgspec.json.decode(body, type=kind)
        except (ValueError, RecursionError) as error:
            raise self.invalid(f"that is not of its protocol: {error}") from error

    def invalid(self, what: str) -> AttemptError:
        """The error for an answer that breaks the protocol."""
        message = f"orchestrator `{self.name}` gave an answer {what}"
        return AttemptError(INVALID_ANSWER, message, retryable=True, endpoint=self.name, usage=_ONE_CALL)

    def broken_off(self, error: Any) -> AttemptError:
        """The error for an answer that tells of an error itself, in the shape that most protocols have in common."""
        kind = error.get("type") if isinstance(error, dict) else None
        if kind in _DENIALS:
            return self._denial("in its answer")
        said = excerpt(msgspec.json.encode(error), [self._key.reveal()])
        failure = self.invalid(f"that breaks off with an error: {said}")
        failure.retryable = kind not in _REFUSALS
        return failure

    @asynccontextmanager
    async def _call(
        self,
        method: str,
        path: str,
        limits: CallLimits,
        headers: dict[str, str],
        *,
        body: bytes | None = None,
        query: Mapping[str, str] = MappingProxyType({}),
        sent: Callable[[], None] | None = None,
    ) -> AsyncIterator[IncomingAnswer]:
        outgoing = call(
            self._session,
            method,
            (self._base / path).with_query(query),
            who=f"orchestrator `{self.name}`",
            limits=limits,
            headers=headers,
            body=body,
            sent=sent,
            # A redirect would carry the prompt, and the key, to an address nobody configured.
            allow_redirects=False,
        )
        try:
            async with outgoing as incoming:
                if not 200 <= incoming.status < 300:  # noqa: PLR2004 - success, in HTTP
                    raise await self._refusal(incoming)
                yield incoming
        except AttemptError as error:
            error.endpoint = error.endpoint or self.name
            raise

    async def _refusal(self, incoming: IncomingAnswer) -> AttemptError:
        status = incoming.status
        if status in {401, 403}:
            return self._denial(f"HTTP {status}")
        said = await incoming.excerpt([self._key.reveal()])
        message = f"orchestrator `{self.name}` answered HTTP {status}" + (f": {said}" if said else "")
        return AttemptError(
            "HTTP_STATUS",
            message,
            retryable=status_is_retryable(status),
            retry_after=retry_after_seconds(incoming.headers),
            endpoint=self.name,
        )

    def _denial(self, how: str) -> AttemptError:
        # What such answers say is not told on: they like to quote the key.
        message = (
            f"orchestrator `{self.name}` refused the API key ({how}); set a valid `api_key` for it and send the daemon"
            " SIGHUP"
        )
        return AttemptError(UNAUTHORIZED, message, retryable=False, endpoint=self.name)

    def _signature(self) -> dict[str, str]:
        return self.sign(self._key.reveal())

    def _limits(self, timeout: float) -> CallLimits:
        return CallLimits(
            timeout=timeout,
            idle=self.settings.idle_timeout_seconds,
            max_bytes=self.settings.max_answer_bytes,
            settings=f"orchestrator.endpoints[{self.name}]",
            tls_advice=f" (settings `orchestrator.endpoints[{self.name}].tls_*`)",
        )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def versioned(url: str) -> str:
    """What to put before a path of version 1: half of the world writes the address with /v1 at its end."""
    return "" if url.rstrip("/").endswith("/v1") else "v1/"
