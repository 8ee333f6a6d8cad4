"""An answer on its way in, of the protocols that stream server-sent events, or say all in one piece of JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.prompt import Answer, OnUsage
from runner.orchestrators.connection import Connection
from runner.orchestrators.event_stream import EventStream
from runner.outgoing import IncomingAnswer


class Gathered(ABC):
    """What was read so far; a protocol says what its events mean."""

    def __init__(self, connection: Connection, on_text: Callable[[str], Awaitable[None]]) -> None:
        self._connection = connection
        self._on_text = on_text
        self._pieces: list[str] = []
        #: What the endpoint calls its model.
        self._model: str | None = None
        #: `stop`, `length` (cut at `max_tokens`), `content_filter`, `tool_calls`, or a word of the endpoint's own.
        self._finish_reason: str | None = None
        #: Nothing that follows counts.
        self._done = False

    @abstractmethod
    async def _take(self, data: bytes) -> None:
        """Take one event's data, or the whole answer. Raises AttemptError: if it is an error, or of no protocol."""

    @abstractmethod
    def _usage(self) -> Usage:
        """What it cost."""

    async def read(self, incoming: IncomingAnswer, used: OnUsage | None = None) -> None:
        """Read it to its end, whatever its form. `used` is told what it has cost by then, even if it is cut off.

        Raises AttemptError: INVALID_ANSWER if it stops before it is finished; as `IncomingAnswer.chunks`.
        """
        try:
            await self._read(incoming)
        except AttemptError as error:
            error.usage = self._usage()
            raise
        finally:
            if used is not None:
                used(self._usage())

    async def _read(self, incoming: IncomingAnswer) -> None:
        if incoming.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/event-stream":
            await self._read_events(incoming)
        else:
            await self._take(await incoming.whole())
            self._done = self._done or bool(self._pieces)
        if not (self._done or self._finish_reason):
            raise self._connection.invalid("that ends before it is finished")

    def answer(self, model: str) -> Answer:
        return Answer(
            text="".join(self._pieces),
            model=self._model or model,
            endpoint=self._connection.name,
            usage=self._usage(),
            metadata={"finish_reason": self._finish_reason} if self._finish_reason else {},
        )

    async def _read_events(self, incoming: IncomingAnswer) -> None:
        stream = EventStream()
        async with aclosing(incoming.chunks()) as chunks:
            async for chunk in chunks:
                for data in stream.feed(chunk):
                    if not self._done:
                        await self._take(data)
                if self._done:
                    await incoming.finish()
                    return

    async def _say(self, text: str | None) -> None:
        if text:
            self._pieces.append(text)
            await self._on_text(text)
