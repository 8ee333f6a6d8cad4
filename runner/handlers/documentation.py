"""What can be told of a handler: what it does, and the parameters that it declares."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

import msgspec
from msgspec import inspect as types

from runner.commentary import comments
from runner.core.alt.type_words import in_words
from runner.core.events import Json
from runner.handlers.registry import ENTRY_POINTS, FALLBACK
from runner.ports import Handler


class ParameterDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a handler."""

    name: str
    #: `text`, `integer`, `number`, `boolean`, `object`, `list of …`, words, or several of these.
    type: str
    required: bool
    #: Left out where there is none that means something.
    default: Json | msgspec.UnsetType = msgspec.UNSET
    meaning: str = ""


class HandlerDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One handler."""

    #: All that it claims.
    task_types: tuple[str, ...]
    #: Whether it also takes every task type that nothing else claims.
    takes_others: bool
    #: A sentence.
    about: str
    #: The installed package that brings it; empty for ours.
    package: str
    #: None if it does not tell.
    parameters: tuple[ParameterDocument, ...] | None


def documents(handlers: Mapping[str, Handler], packages: Mapping[str, str]) -> list[HandlerDocument]:
    """One for each handler, with all its task types. `packages` are those of task types that are not ours."""
    claims: dict[int, list[str]] = {}
    for task_type, handler in handlers.items():
        claims.setdefault(id(handler), []).append(task_type)
    return [document(handlers[names[0]], names, packages.get(names[0], "")) for names in claims.values()]


def packages_of_handlers() -> dict[str, str]:
    """Task types that installed packages offer, and the packages."""
    return {point.name: point.dist.name for point in entry_points(group=ENTRY_POINTS) if point.dist is not None}


def document(handler: Handler, task_types: Iterable[str], package: str = "") -> HandlerDocument:
    declared: Any = getattr(handler, "parameters", None)
    is_struct = isinstance(declared, type) and issubclass(declared, msgspec.Struct)
    return HandlerDocument(
        task_types=tuple(name for name in task_types if name != FALLBACK),
        takes_others=FALLBACK in task_types,
        about=_about(type(handler)),
        package=package,
        parameters=parameters_of(declared) if is_struct else None,
    )


def _about(kind: type) -> str:
    """Our modules say it behind `Task kind …:`; others' classes in the first paragraph of their docstring."""
    module = inspect.getdoc(sys.modules.get(kind.__module__)) or ""
    head, _, told = _paragraph(module).partition(": ")
    if told and head.startswith("Task kind"):
        return told[0].upper() + told[1:]
    return _paragraph(kind.__doc__ or "")


def _paragraph(docstring: str) -> str:
    return " ".join(inspect.cleandoc(docstring).partition("\n\n")[0].split())


def parameters_of(kind: type[msgspec.Struct]) -> tuple[ParameterDocument, ...]:
    """The fields of a struct; what they mean is their `Meta.description`, or else the comment above them."""
    declaring = [each for each in reversed(kind.__mro__) if each not in (object, msgspec.Struct)]
    told = {name: text for each in declaring for name, text in comments(each).items()}
    info: Any = types.type_info(kind)
    return tuple(
        ParameterDocument(
            name=field.encode_name,
            type=in_words(field.type),
            required=field.required,
            default=_default(field),
            meaning=_description(field.type) or told.get(field.name, ""),
        )
        for field in info.fields
    )


def _default(field: types.Field) -> Json | msgspec.UnsetType:
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    return msgspec.UNSET if value is None or value is msgspec.NODEFAULT else msgspec.to_builtins(value)


def _description(info: types.Type) -> str:
    members = info.types if isinstance(info, types.UnionType) else (info,)
    told = (member.extra_json_schema or {} for member in members if isinstance(member, types.Metadata))
    return " ".join(str(extra["description"]) for extra in told if "description" in extra)
