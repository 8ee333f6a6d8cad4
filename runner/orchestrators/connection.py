"""The HTTP under every orchestrator protocol: headers, limits, and refusals as errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from yarl import URL

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.secret import Secret
from runner.orchestrators.settings import EndpointSettings
from runner.outgoing import CallLimits, IncomingAnswer, call, retry_after_seconds, status_is_retryable
from runner.ports import Prompt

#: The endpoint refused our key. Not a fault of the network: nothing but an operator mends it.
UNAUTHORIZED: Final = "UNAUTHORIZED"
INVALID_ANSWER: Final = "INVALID_ANSWER"

#: Seconds for a health check.
_HEALTH_SECONDS: Final = 5.0

_T = TypeVar("_T")


class Connection:
    """One endpoint's session, and what every protocol does with it."""

    def __init__(self, session: aiohttp.ClientSession, settings: EndpointSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self._session = session
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
        headers = {"Content-Type": "application/json", "Idempotency-Key": prompt.request_id, **self._authorization()}
        if prompt.traceparent:
            headers["traceparent"] = prompt.traceparent
        limits = self._limits(min(prompt.timeout, self.settings.timeout_seconds))
        content = msgspec.json.encode(body)
        try:
            async with self._call("POST", path, limits, headers, content) as incoming:
                yield incoming
        except AttemptError as error:
            # Whatever failed, it was a call to this endpoint, and it may cost.
            error.endpoint = error.endpoint or self.name
            error.model = error.model or prompt.model or self.settings.model
            error.usage = error.usage or Usage(calls=1)
            raise

    async def check(self, path: str) -> None:
        """Raises AttemptError: if GET on the path is not answered with success in a few seconds."""
        async with self._call("GET", path, self._limits(_HEALTH_SECONDS), self._authorization()):
            pass

    def decode(self, body: bytes | str, kind: type[_T]) -> _T:
        """JSON into a struct. Raises AttemptError: INVALID_ANSWER, retryable, if it is anything else."""
        try:
            return msgspec.json.decode(body, type=kind)
        except (ValueError, RecursionError) as error:
            raise self.invalid(f"that is not of its protocol: {error}") from error

    def invalid(self, what: str) -> AttemptError:
        """The error for an answer that breaks the protocol."""
        message = f"orchestrator `{self.name}` gave an answer {what}"
        return AttemptError(INVALID_ANSWER, message, retryable=True, endpoint=self.name, usage=Usage(calls=1))

    @asynccontextmanager
    async def _call(
        self, method: str, path: str, limits: CallLimits, headers: dict[str, str], body: bytes | None = None
    ) -> AsyncIterator[IncomingAnswer]:
        async with call(
            self._session,
            method,
            self._base / path,
            who=f"orchestrator `{self.name}`",
            limits=limits,
            headers=headers,
            body=body,
            # A redirect would carry the prompt, and the key, to an address nobody configured.
            allow_redirects=False,
        ) as incoming:
            if not 200 <= incoming.status < 300:  # noqa: PLR2004 - success, in HTTP
                raise await self._refusal(incoming)
            yield incoming

    async def _refusal(self, incoming: IncomingAnswer) -> AttemptError:
        status = incoming.status
        if status in {401, 403}:
            # Such answers like to quote the key.
            message = (
                f"orchestrator `{self.name}` refused the API key (HTTP {status}); set a valid `api_key` for it and send"
                " the daemon SIGHUP"
            )
            return AttemptError(UNAUTHORIZED, message, retryable=False, endpoint=self.name)
        said = await incoming.excerpt([self._key.reveal()])
        message = f"orchestrator `{self.name}` answered HTTP {status}" + (f": {said}" if said else "")
        return AttemptError(
            "HTTP_STATUS",
            message,
            retryable=status_is_retryable(status),
            retry_after=retry_after_seconds(incoming.headers),
            endpoint=self.name,
        )

    def _authorization(self) -> dict[str, str]:
        key = self._key.reveal()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _limits(self, timeout: float) -> CallLimits:
        return CallLimits(
            timeout=timeout,
            idle=self.settings.idle_timeout_seconds,
            max_bytes=self.settings.max_answer_bytes,
            settings=f"orchestrator.endpoints[{self.name}]",
        )
