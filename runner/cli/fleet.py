"""Circuit breakers and endpoints as the daemon gives them: tables, lines, and how they are followed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runner.cli import options, output
from runner.core.plan import Instant
from runner.core.record import duration_text
from runner.frames import MICROS, instant
from runner.reports.standing import harmless

#: Glyph, word, colour.
BREAKER_LOOKS: Final = {
    "BREAKER_STATE_CLOSED": ("✓", "closed", "green"),
    "BREAKER_STATE_OPEN": ("✗", "open", "red"),
    "BREAKER_STATE_HALF_OPEN": ("◐", "half open", "yellow"),
    "BREAKER_STATE_FORCED_OPEN": ("⊘", "forced open", "red"),
    "BREAKER_STATE_DISABLED": ("↷", "disabled", "yellow"),
    "BREAKER_STATE_METRICS_ONLY": ("◌", "metrics only", "yellow"),
}
HEALTH_LOOKS: Final = {
    "ENDPOINT_HEALTH_UNKNOWN": ("○", "not checked", "bright_black"),
    "ENDPOINT_HEALTH_HEALTHY": ("✓", "healthy", "green"),
    "ENDPOINT_HEALTH_UNHEALTHY": ("✗", "unhealthy", "red"),
}
#: Of a state that a newer daemon knows.
_STRANGE: Final = ("?", "unknown", "")
#: States that a reset would end.
_SET_BY_HAND: Final = frozenset({"BREAKER_STATE_FORCED_OPEN", "BREAKER_STATE_DISABLED", "BREAKER_STATE_METRICS_ONLY"})
_RESETTABLE: Final = _SET_BY_HAND | {"BREAKER_STATE_OPEN"}
#: Seconds between two pictures, and between figures that nothing else changed with.
_PERIOD: Final = 0.5
FIGURES: Final = 1.0
#: Endpoints that advice is given for.
_ADVISED: Final = 3
_DAY: Final = 24 * 3600


@dataclass(frozen=True)
class Kind:
    """What is listed and followed."""

    #: The field of a watch's responses.
    field: str
    #: Names an entry, and what stands in `removed` for it; a sorting key, too.
    key: Callable[[Any], Hashable]
    table: Callable[[Sequence[Any], Instant], Table]
    #: What it is called in a line, and how it stands.
    name: Callable[[Any], str]
    standing: Callable[[Any, Instant], str]
    #: What to say where there is none.
    nothing: str
    #: Command lines, with what they do, that fit to what is shown.
    advice: Callable[[Iterable[Any]], Iterable[tuple[str, str]]]


def word(message: Any, field: str) -> str:
    """An enum's name, or "" for one that we do not know."""
    known = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(getattr(message, field))
    return "" if known is None else str(known.name)


def present() -> Instant:
    return time.time_ns() // 1_000


def moment(stamp: Any, now: Instant) -> str:
    """`12:03:20, in 14 s` or `12:03:06, 34 s ago`, with the day where it is another one; UTC."""
    there = instant(stamp)
    seconds = round((there - now) / MICROS)
    clock = f"{stamp.ToDatetime():%H:%M:%S}" if abs(seconds) < _DAY else f"{stamp.ToDatetime():%Y-%m-%d %H:%M:%S}"
    if not seconds:
        return f"{clock}, now"
    length = duration_text(abs(seconds) * 1_000).replace(".0 s", " s")
    return f"{clock}, in {length}" if seconds > 0 else f"{clock}, {length} ago"


# -------------------------------------------------------------------------------------------------- circuit breakers


def _until(breaker: Any, now: Instant) -> str:
    """When it is probed: nothing changes by the time alone, but with a call."""
    return moment(breaker.open_until, now) if instant(breaker.open_until) > now else "the next call"


def _breaker_name(breaker: Any) -> str:
    return f"{breaker.endpoint}/{breaker.model}" if breaker.model else str(breaker.endpoint)


def _breaker_standing(breaker: Any, now: Instant) -> str:
    """`✗ open until 12:03:20, in 14 s: 12 of 20 calls failed; 7 tasks wait`."""
    glyph, said, _ = BREAKER_LOOKS.get(word(breaker, "state"), _STRANGE)
    until = f" until {_until(breaker, now)}" if breaker.HasField("open_until") else ""
    why = f": {breaker.reason}" if breaker.reason else ""
    count = breaker.waiting_tasks
    waiting = f"; {count:,} task{'s wait' if count != 1 else ' waits'}" if count else ""
    return f"{glyph} {said}{until}{why}{waiting}"


def _breaker_table(found: Sequence[Any], now: Instant) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ENDPOINT", "MODEL", "STATE", "SINCE (UTC)", "OPEN UNTIL"):
        table.add_column(name, no_wrap=True)
    for name in ("CALLS", "FAILED", "SLOW", "WAITING"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("WHY", overflow="fold")
    for breaker in found:
        glyph, said, colour = BREAKER_LOOKS.get(word(breaker, "state"), _STRANGE)
        table.add_row(
            Text(harmless(breaker.endpoint)),
            Text(harmless(breaker.model) or "-"),
            Text(f"{glyph} {said}", colour),
            moment(breaker.since, now),
            _until(breaker, now) if breaker.HasField("open_until") else "",
            f"{breaker.calls:,}",
            f"{breaker.failed_calls:,}",
            f"{breaker.slow_calls:,}",
            f"{breaker.waiting_tasks:,}",
            Text(harmless(breaker.reason)),
        )
    return table


def _breaker_advice(found: Iterable[Any]) -> Iterable[tuple[str, str]]:
    names = dict.fromkeys(breaker.endpoint for breaker in found if word(breaker, "state") in _RESETTABLE)
    return [("reset it", f"breakers reset {name}") for name in names][:_ADVISED]


BREAKERS: Final = Kind(
    field="breakers",
    key=lambda entry: (entry.endpoint, entry.model),
    table=_breaker_table,
    name=_breaker_name,
    standing=_breaker_standing,
    nothing="there are no circuit breakers yet; a model's comes to be with its first call",
    advice=_breaker_advice,
)


# --------------------------------------------------------------------------------------------------------- endpoints


def _endpoint_looks(endpoint: Any) -> tuple[str, str, str]:
    if endpoint.draining:
        return ("‖", f"draining, {endpoint.calls:,} left" if endpoint.calls else "drained", "yellow")
    return HEALTH_LOOKS.get(word(endpoint, "health"), _STRANGE)


def _endpoint_standing(endpoint: Any, now: Instant) -> str:
    glyph, said, _ = _endpoint_looks(endpoint)
    why = f": {endpoint.health_error}" if word(endpoint, "health") == "ENDPOINT_HEALTH_UNHEALTHY" else ""
    lease = f", registered until {moment(endpoint.lease_until, now)}" if endpoint.HasField("lease_until") else ""
    return f"{glyph} {said}{why} ({endpoint.group}, {endpoint.url}{lease})"


def _endpoint_table(found: Sequence[Any], now: Instant) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("GROUP", "ENDPOINT", "STATE"):
        table.add_column(name, no_wrap=True)
    # Most never have any.
    unreached = any(endpoint.unreached_tries for endpoint in found)
    for name in ("CALLS", "WAITING", *(["UNREACHED"] if unreached else []), "WEIGHT"):
        table.add_column(name, no_wrap=True, justify="right")
    for name in ("PROTOCOL", "URL", "KNOWN"):
        table.add_column(name, no_wrap=True)
    table.add_column("MODELS", no_wrap=True, overflow="ellipsis", max_width=40)
    table.add_column("WHY", overflow="fold")
    for endpoint in found:
        glyph, said, colour = _endpoint_looks(endpoint)
        sick = word(endpoint, "health") == "ENDPOINT_HEALTH_UNHEALTHY"
        table.add_row(
            Text(harmless(endpoint.group)),
            Text(harmless(endpoint.name)),
            Text(f"{glyph} {said}", colour),
            f"{endpoint.calls:,}/{endpoint.max_calls:,}",
            f"{endpoint.waiting_tasks:,}",
            *([f"{endpoint.unreached_tries:,}"] if unreached else []),
            _weight(endpoint),
            harmless(endpoint.protocol),
            Text(harmless(endpoint.url)),
            _known_by(endpoint, now),
            Text(harmless(", ".join(endpoint.models)) or "-"),
            Text(harmless(endpoint.health_error) if sick else ""),
        )
    return table


def _weight(endpoint: Any) -> str:
    warm = f", warm {endpoint.warmth:.0%}".replace("%", " %") if endpoint.warmth < 1 else ""
    return f"{endpoint.weight:g}{warm}"


def _known_by(endpoint: Any, now: Instant) -> str:
    source = word(endpoint, "source").removeprefix("ENDPOINT_SOURCE_").lower().replace("dns", "by DNS")
    return f"{source} until {moment(endpoint.lease_until, now)}" if endpoint.HasField("lease_until") else source


def _endpoint_advice(found: Iterable[Any]) -> Iterable[tuple[str, str]]:
    entries = list(found)
    drained = [("let it have calls again", f"endpoints undrain {each.name}") for each in entries if each.draining]
    sick = [
        ("take it out", f"endpoints drain {each.name}")
        for each in entries
        if not each.draining and word(each, "health") == "ENDPOINT_HEALTH_UNHEALTHY"
    ]
    return (drained + sick)[:_ADVISED]


ENDPOINTS: Final = Kind(
    field="endpoints",
    key=lambda entry: entry if isinstance(entry, str) else entry.name,
    table=_endpoint_table,
    name=lambda endpoint: str(endpoint.name),
    standing=_endpoint_standing,
    nothing="there are no endpoints; start the daemon with one: alt-runner serve --orchestrator URL",
    advice=_endpoint_advice,
)


# -------------------------------------------------------------------------------------------------- shown, followed


def show(kind: Kind, found: Sequence[Any], server: str, *, as_json: bool) -> None:
    """A list, and what can be done about it."""
    if as_json:
        for entry in found:
            output.json_line(output.message_json(entry))
        return
    if not found:
        output.notice(kind.nothing)
        return
    output.show(kind.table(found, present()))
    for does, command in kind.advice(found):
        output.notice(f"  {does}: {options.command(command, server)}")


def told(kind: Kind, entries: Iterable[Any], *, as_json: bool) -> None:
    """A line for each, how it stands now."""
    for entry in entries:
        if as_json:
            output.json_line(output.message_json(entry))
        else:
            output.line(f"{kind.name(entry)} {kind.standing(entry, present())}")


async def follow(
    kind: Kind, responses: AsyncGenerator[Any, None], server: str, notices: Notices, *, as_json: bool
) -> None:
    """Until Ctrl-C: a picture on a terminal, a line for each change in a pipe, an object for each with --json."""
    if not as_json and sys.stdout.isatty():
        await _draw(kind, responses, notices)
        return
    async for response in responses:
        entries = getattr(response, kind.field)
        if response.caught_up:
            show(kind, entries, server, as_json=as_json)
            continue
        for removed in response.removed:
            _gone(kind, removed, as_json=as_json)
        for entry in entries:
            if as_json:
                output.json_line(output.message_json(entry))
            else:
                output.line(f"{_clock()} {kind.name(entry)} {kind.standing(entry, present())}")


def _clock() -> str:
    return time.strftime("%H:%M:%S", time.gmtime())


def _gone(kind: Kind, removed: Any, *, as_json: bool) -> None:
    if as_json:
        names = {"name": removed} if isinstance(removed, str) else output.message_json(removed)
        output.json_line({"removed": True, **names})
    else:
        output.line(f"{_clock()} {removed if isinstance(removed, str) else kind.name(removed)} is no more")


def figures(*, as_json: bool) -> float | None:
    """Seconds between figures: only who looks at a picture wants them."""
    return FIGURES if not as_json and sys.stdout.isatty() else None


class Notices:
    """What is told of the connection: below a picture while there is one, else as a line."""

    def __init__(self) -> None:
        self.newest = ""
        self.drawn = False

    def __call__(self, sentence: str) -> None:
        self.newest = "" if sentence == "connected again" else sentence
        if not self.drawn:
            output.notice(sentence)


async def _draw(kind: Kind, responses: AsyncGenerator[Any, None], notices: Notices) -> None:
    known: dict[Any, Any] = {}

    async def read() -> None:
        async for response in responses:
            known.update((kind.key(entry), entry) for entry in getattr(response, kind.field))
            for removed in response.removed:
                known.pop(kind.key(removed), None)

    notices.drawn = True
    reading = asyncio.create_task(read())
    try:
        with Live(console=output.console(), auto_refresh=False) as live:
            while not reading.done():
                await asyncio.wait([reading], timeout=_PERIOD)
                live.update(_picture(kind, known, notices), refresh=True)
        await reading
    finally:
        notices.drawn = False
        reading.cancel()
        await asyncio.wait([reading])


def _picture(kind: Kind, known: dict[Any, Any], notices: Notices) -> RenderableType:
    entries = [known[key] for key in sorted(known)]
    rows: list[RenderableType] = [kind.table(entries, present()) if entries else Text(kind.nothing, "bright_black")]
    if notices.newest:
        rows.append(Text(harmless(notices.newest), "yellow"))
    return Group(*rows)
