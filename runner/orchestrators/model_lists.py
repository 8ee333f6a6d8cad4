"""Which models an endpoint has: the lists of every protocol, read without trust."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from runner.core.errors import AttemptError
from runner.orchestrators.connection import MAX_NAME, Connection, Name
from runner.ports import Orchestrator

#: Models of one endpoint.
MAX_MODELS: Final = 10_000

#: Models that are asked for at a time.
_PAGE: Final = 1_000


class Speaker(Orchestrator, Protocol):
    """What speaks one protocol to one endpoint, unguarded."""

    async def models(self) -> tuple[str, ...]:
        """The names of the models it has, in its order, each once.

        Names that are empty, longer than MAX_NAME characters or not printable are left out: nobody can ask for them.

        Raises AttemptError: as `Connection.get`; INVALID_ANSWER if it is no list, or longer than MAX_MODELS.
        """


class _Model(msgspec.Struct, frozen=True):
    id: str | None = None
    name: str | None = None


class _Models(msgspec.Struct, frozen=True):
    models: list[str | _Model]


class _Page(msgspec.Struct, frozen=True):
    data: list[_Model]
    has_more: bool | None = None
    last_id: Name | None = None


async def altlas_models(connection: Connection, path: str) -> tuple[str, ...]:
    """`{"models": [name, {"id"} or {"name"}]}`."""
    listed = connection.decode(await connection.get(path), _Models).models
    return _names(connection, (model if isinstance(model, str) else model.id or model.name for model in listed))


async def listed_models(connection: Connection, path: str) -> tuple[str, ...]:
    """`{"data": [{"id"}]}`, all at once."""
    page = connection.decode(await connection.get(path), _Page)
    return _names(connection, (model.id for model in page.data))


async def paged_models(connection: Connection, path: str) -> tuple[str, ...]:
    """`{"data": [{"id"}], "has_more", "last_id"}`, page by page."""
    names: list[str | None] = []
    query = {"limit": str(_PAGE)}
    for _ in range(MAX_MODELS // _PAGE):
        page = connection.decode(await connection.get(path, query), _Page)
        names += [model.id for model in page.data]
        if not (page.has_more and page.last_id):
            return _names(connection, names)
        query["after_id"] = page.last_id
    raise _too_many(connection)


def _names(connection: Connection, told: Iterable[str | None]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for name in told if name and len(name) <= MAX_NAME and name.isprintable()))
    if len(names) > MAX_MODELS:
        raise _too_many(connection)
    return names


def _too_many(connection: Connection) -> AttemptError:
    return connection.invalid(f"that lists more than {MAX_MODELS} models; name those that are used in `models`")
