"""Types of msgspec in words that people who write descriptors know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import inspect as types

_NAMES: Final[dict[type[types.Type], str]] = {
    types.AnyType: "any",
    types.BoolType: "boolean",
    types.StrType: "text",
    types.NoneType: "null",
    types.BytesType: "text in base64",
    types.DateTimeType: "time",
}


def in_words(info: types.Type) -> str:
    """`text`, `integer`, `number, more than 0`, `boolean`, `object of …`, `list of …`, words, or several of these."""
    match info:
        case types.Metadata():
            told = in_words(info.type)
        case types.UnionType():
            told = _union(info.types)
        case types.EnumType():
            told = " or ".join(f"`{member.value}`" for member in info.cls)
        case types.LiteralType():
            told = " or ".join(f"`{value}`" for value in info.values)
        case types.IntType() | types.FloatType():
            told = ", ".join(["integer" if isinstance(info, types.IntType) else "number", *_bounds(info)])
        case types.DictType():
            told = _container("object", info.value_type)
        case types.ListType() | types.VarTupleType() | types.SetType() | types.FrozenSetType():
            told = _container("list", info.item_type)
        case _:
            told = _NAMES.get(type(info), "object")
    return told


def _container(name: str, item: types.Type) -> str:
    inner = in_words(item)
    inner = f"({inner})" if " or " in inner else inner
    return name if inner == "any" else f"{name} of {inner}"


def _union(members: Iterable[types.Type]) -> str:
    names = list(dict.fromkeys(in_words(member) for member in members))
    # Left out is what null says too, and an integer is a number.
    spoken = [name for name in names if name != "null" and not (name == "integer" and "number" in names)]
    return " or ".join(spoken)


def _bounds(info: types.IntType | types.FloatType) -> list[str]:
    told = (("more than", info.gt), ("at least", info.ge), ("less than", info.lt), ("at most", info.le))
    return [f"{words} {bound:,}" for words, bound in told if bound is not None]
