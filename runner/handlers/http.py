"""Task kind `http_request`: one HTTP call, its answer the output."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import aiohttp
import anyio
import msgspec
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from runner.core.alt import ParameterProblem
from runner.core.errors import AttemptError
from runner.handlers.answers import Shape, outcome_of
from runner.handlers.parameters import INVALID_PARAMETERS, invalid, problems_of, read
from runner.handlers.settings import HttpRequestSettings
from runner.outgoing import CallLimits, IncomingAnswer, Reach, call, retry_after_seconds, status_is_retryable
from runner.ports import Attempt, Outcome

_Scalar = str | int | float | bool

_Pairs = dict[str, _Scalar | list[_Scalar] | None]

#: Words of request headers from this length on are masked where an error page quotes them.
_QUOTABLE: Final = 8
_HARMLESS_HEADERS: Final = frozenset({"accept", "accept-language", "content-type", "user-agent"})
#: What is sent along to another place that an answer redirects to. Any other header may hold a secret of the first.
_FOLLOWING_HEADERS: Final = _HARMLESS_HEADERS | {"idempotency-key", "traceparent"}
#: RFC 9110, 15.4, those that name the place where to go on.
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SEE_OTHER: Final = 303
#: Ways to say what is put behind the address, and what is sent; there can be one of each.
_QUERIES: Final = ("query", "params")
_CONTENTS: Final = ("json", "form", "body", "data", "body_base64")


class HttpParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. `params` and `data` are the names that workflow files use for `query` and `body`."""

    #: Begins with http:// or https://.
    url: str
    #: In any case.
    method: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{1,20}\Z")] = "GET"
    #: `Idempotency-Key` and `traceparent` are ours unless they are set here.
    headers: dict[str, _Scalar] = {}
    #: Put behind what the URL has; a list stands for several of one name.
    query: _Pairs | None = None
    #: The same as `query`.
    params: _Pairs | None = None
    #: Sent as JSON, whatever it is. There can be one of `json`, `form`, `body`, `data` and `body_base64`.
    json: Any = msgspec.UNSET
    #: Sent as a form of a web page (`application/x-www-form-urlencoded`); a list stands for several of one name.
    form: _Pairs | None = None
    #: A text is sent as it stands, anything else as JSON.
    body: Any = msgspec.UNSET
    #: The same as `body`.
    data: Any = msgspec.UNSET
    #: Any bytes, in base64.
    body_base64: str | None = None
    #: What the answer's body becomes: a JSON value, a text, an artifact, or what it is by its type and content.
    response: Shape = Shape.AUTO
    #: Seconds for the call; the task's own time bounds it further.
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    #: Otherwise a redirect is the answer.
    follow_redirects: bool = True


class HttpRequest:
    """A Handler; its output is `{"status": …, "headers": {…}, "body": …}`.

    `headers` are in lower case. `body` is the value where the answer is JSON, a text where it is text, null where it
    is empty; anything else is left as the artifact `body`, and `body` is null. `response` asks for one of them.

    Redirects are followed within the same limits. To another scheme, host or port go only the headers that say nothing
    of who asks.
    """

    parameters: Final = HttpParameters

    def __init__(self, session: aiohttp.ClientSession, settings: HttpRequestSettings) -> None:
        self._session = session
        self._settings = settings

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        """What of the address and the content is known before it runs."""
        url = parameters.get("url")
        if isinstance(url, str):
            yield from problems_of("url", lambda: _address(url))
        for names in (_QUERIES, _CONTENTS):
            yield from problems_of("", partial(_check_one_of, names, parameters))

    async def run(self, attempt: Attempt) -> Outcome:
        """Call.

        Raises AttemptError: INVALID_PARAMETERS; HTTP_STATUS from 400 on, retryable for 408, 429 and 5xx;
        TOO_MANY_REDIRECTS, INVALID_REDIRECT; INVALID_ANSWER if it is not what `response` asks for; else as
        `outgoing.call` and `IncomingAnswer.chunks`.
        """
        parameters = read(attempt.parameters, HttpParameters)
        for names in (_QUERIES, _CONTENTS):
            _check_one_of(names, attempt.parameters)
        request = _request(attempt, parameters)
        timeout = min(parameters.timeout or self._settings.timeout_seconds, attempt.remaining())
        redirects = self._settings.max_redirects if parameters.follow_redirects else None
        async with self._answer(request, timeout, redirects) as (incoming, who):
            if incoming.status >= 400:  # noqa: PLR2004 - where HTTP's errors begin
                raise await _refusal(incoming, who, request.headers)
            return outcome_of(incoming.status, incoming.headers, await incoming.whole(), parameters.response, who)

    @asynccontextmanager
    async def _answer(
        self, request: _Request, seconds: float, redirects: int | None
    ) -> AsyncIterator[tuple[IncomingAnswer, str]]:
        """The answer after so many redirects at most, and who gave it; None: a redirect is the answer."""
        deadline = anyio.current_time() + seconds
        followed = 0
        while True:
            who = str(request.url.origin())
            async with call(
                self._session,
                request.method,
                request.url,
                who=who,
                limits=self._limits(deadline - anyio.current_time() if followed else seconds),
                headers=request.headers,
                body=request.content,
                allow_redirects=False,
            ) as incoming:
                location = incoming.headers.get("Location")
                if redirects is None or incoming.status not in _REDIRECTS or location is None:
                    yield incoming, who
                    return
            followed += 1
            if followed > redirects:
                message = f"{who} redirected more often than is followed (setting `http_request.max_redirects`)"
                raise AttemptError("TOO_MANY_REDIRECTS", message, retryable=False)
            request = request.redirected(incoming.status, location, who)

    def _limits(self, timeout: float) -> CallLimits:
        return CallLimits(
            timeout=timeout,
            idle=self._settings.idle_timeout_seconds,
            max_bytes=self._settings.max_answer_bytes,
            settings="http_request",
        )


class _Request(msgspec.Struct, frozen=True):
    """What is sent, and where."""

    method: str
    url: URL
    headers: CIMultiDict[str]
    content: bytes | None

    def redirected(self, status: int, location: str, who: str) -> _Request:
        """What is sent to the place that an answer names (RFC 9110, 15.4).

        Raises AttemptError: INVALID_REDIRECT.
        """
        try:
            url = self.url.join(URL(location)).with_fragment(None)
            _address(str(url))
        except (ValueError, AttemptError) as error:
            message = f"{who} redirected to an address that is not of http or https"
            raise AttemptError("INVALID_REDIRECT", message, retryable=False) from error
        same = url.origin() == self.url.origin()
        headers = CIMultiDict((k, v) for k, v in self.headers.items() if same or k.lower() in _FOLLOWING_HEADERS)
        if self.method != "HEAD" and (status == _SEE_OTHER or (status in {301, 302} and self.method == "POST")):
            headers.popall("Content-Type", None)
            return _Request("GET", url, headers, None)
        return _Request(self.method, url, headers, self.content)


@asynccontextmanager
async def http_session(
    settings: HttpRequestSettings, resolver: AbstractResolver | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """The session that HttpRequest calls with. Needs asyncio. `resolver` is asked in the place of the system's."""
    reach = Reach(settings.allow_private, settings.allow_addresses)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=reach.socket, resolver=resolver),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_seconds),
        # Jobs must not see each other's sessions.
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "alt-runner"},
    ) as session:
        yield session


def _request(attempt: Attempt, parameters: HttpParameters) -> _Request:
    query = parameters.params if parameters.query is None else parameters.query
    try:
        url = _address(parameters.url).extend_query(list(_pairs(query or {})))
    except ValueError as error:
        raise invalid("query", "cannot stand in an address") from error
    content, content_type = _content(parameters)
    return _Request(parameters.method.upper(), url, _headers(attempt, parameters, content_type), content)


def _check_one_of(names: tuple[str, ...], given: Mapping[str, Any]) -> None:
    """Only of `json` a null says something."""
    told = [f"`{name}`" for name in names if name in given and (given[name] is not None or name == "json")]
    if len(told) > 1:
        message = f"{' and '.join(told)} are given; there can be one of them"
        raise AttemptError(INVALID_PARAMETERS, message, retryable=False)


def _address(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise invalid("url", "is no address") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise invalid("url", "must begin with http:// or https:// and name a host")
    return url


def _pairs(query: _Pairs) -> Iterator[tuple[str, str]]:
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
    if parameters.form is not None:
        return urlencode(list(_pairs(parameters.form))).encode(), "application/x-www-form-urlencoded"
    if parameters.body_base64 is not None:
        try:
            return base64.b64decode(parameters.body_base64, validate=True), "application/octet-stream"
        except ValueError as error:
            raise invalid("body_base64", "is no base64") from error
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
