"""What an operator may set about handlers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class HttpRequestSettings(Struct, frozen=True, kw_only=True):
    """Task kind `http_request`."""

    #: Seconds for one whole call; a task's own time bounds it further.
    timeout_seconds: Seconds = 300.0
    #: Seconds of silence within an answer that has begun.
    idle_timeout_seconds: Seconds = 60.0
    #: Seconds for a connection to be made.
    connect_timeout_seconds: Seconds = 10.0
    #: Bytes of one answer.
    max_answer_bytes: Count = 8 * 1024 * 1024
    #: Redirects that are followed in a row.
    max_redirects: Annotated[int, Meta(ge=0)] = 5
    #: Whether jobs may reach loopback, private and link-local addresses. Where not, the address that a connection is
    #: really made to is judged, after name resolution and every redirect.
    allow_private: bool = True


class PythonSettings(Struct, frozen=True, kw_only=True):
    """Task kind `python`."""

    #: Functions that jobs may call: `package.module:function`, `package.module` for all of it, or patterns with `*`
    #: (`package.*`). None by default.
    allow: tuple[str, ...] = ()
    #: Worker processes for functions that are not async; more calls wait for their turn.
    max_processes: Count = 4
    #: Seconds an async function has to end once it is cancelled; then it is abandoned. A drain waits 3 seconds for it.
    cancel_grace_seconds: Seconds = 2.0
    #: Bytes of a function's result, as JSON.
    max_result_bytes: Count = 8 * 1024 * 1024


class DataProcessingSettings(Struct, frozen=True, kw_only=True):
    """Task kind `data_processing`."""

    #: Worker processes that evaluate expressions; more tasks wait for their turn.
    max_processes: Count = 2
    #: Bytes that evaluating one expression may take.
    max_memory_bytes: Count = 512 * 1024 * 1024
    #: Characters of an expression.
    max_expression_characters: Count = 10_000
    #: Bytes of a result, as JSON.
    max_result_bytes: Count = 8 * 1024 * 1024
