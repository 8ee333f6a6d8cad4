"""Task kind `http_request`: one HTTP call, its answer the output."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from runner.core.errors import AttemptError
from runner.handlers.parameters import invalid, read
from runner.handlers.settings import HttpRequestSettings
from runner.outgoing import CallLimits, IncomingAnswer, call, public_socket, retry_after_seconds, status_is_retryable
from runner.ports import Attempt, FileLeft, Outcome

_Scalar = str | int | float | bool

#: A header's value may be a session of its own; nobody asked for it to be recorded.
_UNTOLD_HEADERS: Final = frozenset({"set-cookie", "set-cookie2"})
#: Words of request headers from this length on are masked where an error page quotes them.
_QUOTABLE: Final = 8
_HARMLESS_HEADERS: Final = frozenset({"accept", "accept-language", "content-type", "user-agent"})


class HttpParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. `params` and `data` are the names that workflow files use for `query` and `body`."""

    #: Begins with http:// or https://.
    url: str
    #: In any case.
    method: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{1,20}\Z")] = "GET"
    #: `Idempotency-Key` and `traceparent` are ours unless they are set here.
    headers: dict[str, _Scalar] = {}
    #: Put behind what the URL has; a list stands for several of one name.
    query: dict[str, _Scalar | list[_Scalar] | None] | None = None
    #: The same as `query`.
    params: dict[str, _Scalar | list[_Scalar] | None] | None = None
    #: Sent as JSON, whatever it is.
    json: Any = msgspec.UNSET
    #: A text is sent as it stands, anything else as JSON.
    body: Any = msgspec.UNSET
    #: The same as `body`.
    data: Any = msgspec.UNSET
    #: Seconds for the call; the task's own time bounds it further.
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    #: Otherwise a redirect is the answer.
    follow_redirects: bool = True


class HttpRequest:
    """A Handler; its output is `{"status": …, "headers": {…}, "body": …}`.

    `headers` are in lower case. `body` is the value where the answer is JSON, a text where it is text, null where it
    is empty; anything else is left as the artifact `body`, and `body` is null.
    """

    parameters: Final = HttpParameters

    def __init__(self, session: aiohttp.ClientSession, settings: HttpRequestSettings) -> None:
        self._session = session
        self._settings = settings

    async def run(self, attempt: Attempt) -> Outcome:
        """Call.

        Raises AttemptError: INVALID_PARAMETERS; HTTP_STATUS from 400 on, retryable for 408, 429 and 5xx; else as
        `outgoing.call` and `IncomingAnswer.chunks`.
        """
        parameters = read(attempt.parameters, HttpParameters)
        url = _url(parameters)
        content, content_type = _content(parameters)
        headers = _headers(attempt, parameters, content_type)
        who = str(url.origin())
        async with call(
            self._session,
            parameters.method.upper(),
            url,
            who=who,
            limits=self._limits(attempt, parameters),
            headers=headers,
            body=content,
            allow_redirects=parameters.follow_redirects,
            max_redirects=self._settings.max_redirects + 1,
        ) as incoming:
            if incoming.status >= 400:  # noqa: PLR2004 - where HTTP's errors begin
                raise await _refusal(incoming, who, headers)
            return _outcome(incoming, await incoming.whole())

    def _limits(self, attempt: Attempt, parameters: HttpParameters) -> CallLimits:
        return CallLimits(
            timeout=min(parameters.timeout or self._settings.timeout_seconds, attempt.remaining()),
            idle=self._settings.idle_timeout_seconds,
            max_bytes=self._settings.max_answer_bytes,
            settings="http_request",
        )


@asynccontextmanager
async def http_session(settings: HttpRequestSettings) -> AsyncIterator[aiohttp.ClientSession]:
    """The session that HttpRequest calls with. Needs asyncio."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=None if settings.allow_private else public_socket),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_seconds),
        # Jobs must not see each other's sessions.
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "alt-runner"},
    ) as session:
        yield session


def _url(parameters: HttpParameters) -> URL:
    try:
        url = URL(parameters.url)
        query = parameters.params if parameters.query is None else parameters.query
        url = url.extend_query(list(_pairs(query or {})))
    except ValueError as error:
        raise invalid("url", "is no address") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise invalid("url", "must begin with http:// or https:// and name a host")
    return url


def _pairs(query: Mapping[str, _Scalar | list[_Scalar] | None]) -> Iterator[tuple[str, str]]:
    for name, value in query.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                yield name, _text(one)


def _text(value: _Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _content(parameters: HttpParameters) -> tuple[bytes | None, str]:
    """The request's body and its media type."""
    if parameters.json is not msgspec.UNSET:
        return msgspec.json.encode(parameters.json), "application/json"
    body = parameters.data if parameters.body is msgspec.UNSET else parameters.body
    if body is msgspec.UNSET or body is None:
        return None, ""
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return msgspec.json.encode(body), "application/json"


def _headers(attempt: Attempt, parameters: HttpParameters, content_type: str) -> CIMultiDict[str]:
    """The task's own headers, and ours where it sets none."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in parameters.headers.items():
        text = _text(value)
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
            raise invalid("headers", "holds a name or a value that HTTP does not allow")
        headers[name] = text
    headers.setdefault("Idempotency-Key", attempt.idempotency_key)
    if attempt.traceparent:
        headers.setdefault("traceparent", attempt.traceparent)
    if content_type:
        headers.setdefault("Content-Type", content_type)
    return headers


async def _refusal(incoming: IncomingAnswer, who: str, headers: Mapping[str, str]) -> AttemptError:
    quotable = [
        word
        for name, value in headers.items()
        if name.lower() not in _HARMLESS_HEADERS
        for word in value.split()
        if len(word) >= _QUOTABLE
    ]
    said = await incoming.excerpt(quotable)
    return AttemptError(
        "HTTP_STATUS",
        f"{who} answered HTTP {incoming.status}" + (f": {said}" if said else ""),
        retryable=status_is_retryable(incoming.status),
        retry_after=retry_after_seconds(incoming.headers),
    )


def _outcome(incoming: IncomingAnswer, content: bytes) -> Outcome:
    names = dict.fromkeys(name.lower() for name in incoming.headers)
    told = {name: ", ".join(incoming.headers.getall(name)) for name in names if name not in _UNTOLD_HEADERS}
    media_type = told.get("content-type", "").partition(";")[0].strip().lower()
    known, body = _body(content, media_type, told.get("content-type", ""))
    output = {"status": incoming.status, "headers": told, "body": body}
    mime_type = media_type or "application/octet-stream"
    kind = "image" if mime_type.startswith("image/") else "file"
    return Outcome(output=output, files=() if known else (FileLeft("body", content, mime_type, kind),))


def _body(content: bytes, media_type: str, content_type: str) -> tuple[bool, Any]:
    """Whether the content can stand in JSON, and as what."""
    if not content:
        return True, None
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            value = msgspec.json.decode(content)
        except (ValueError, RecursionError):
            pass
        else:
            return True, value
    charset = re.search(r"charset=\"?([\w.:-]+)", content_type, re.IGNORECASE)
    try:
        text = content.decode(charset[1] if charset else "utf-8")
        text.encode()
    except (ValueError, LookupError):
        return False, None
    return ("\x00" not in text, text if "\x00" not in text else None)
