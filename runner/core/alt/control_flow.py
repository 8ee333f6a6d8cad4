"""Version 2.0 of dialect `segments`: what a segment may say of variables, conditions, loops and functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from runner.core.alt.fields import (
    UNREADABLE,
    Field,
    Integer,
    Spot,
    Table,
    Word,
    as_it_is,
    boolean,
    identifier,
    mapping,
    text,
    texts,
)
from runner.core.alt.outline import Body, FunctionOutline, Outline
from runner.core.alt.report import kind_of, nearest, shown
from runner.core.plan import Function, Operator, Parameter, Type, Variable
from runner.core.references import has_opening
from runner.core.variables import fits

#: Rounds at a time of a loop that says `parallel: true` and no number.
DEFAULT_PARALLEL: Final = 16
MOST_PARALLEL: Final = 10_000
LOOPS: Final = ("for_each", "for_range", "while")
#: Where control flow stands in a segment; it has one of them at most.
PLACES: Final = ("condition", "loop", "function_def", "function_call")
_NAME: Final = re.compile(r"[^\W\d]\w*")
#: An id is a part of the paths of instances.
_IN_PATHS: Final = re.compile(r"[/\[\]]")


def name(value: Any, spot: Spot, key: str) -> str | None:
    """The name of a variable or a function."""
    read = identifier(value, spot, key)
    if read is None or _NAME.fullmatch(read):
        return read
    message = f"`{shown(read)}` is no name: a letter or `_`, then letters, digits and `_`."
    spot.wrong("BAD_NAME", key, message)
    return None


#: The types that say something of a value.
TYPES: Final = tuple(type_.value for type_ in Type if type_ is not Type.ANY)
read_type: Final = Word({type_.value: type_ for type_ in Type}, "UNKNOWN_TYPE")
_PARALLEL: Final = ("parallel", "max_parallel")
_READ_PARALLEL: Final = Integer(1, MOST_PARALLEL)

VARIABLE = Table(
    {
        "name": Field("name", name, required=True),
        "type": Field("type", read_type),
        "value": Field("value", as_it_is),
        "description": Field("_description", text),
    },
    also_known={"default": "value"},
)
BRANCH = Table(
    {
        "condition": Field("condition", as_it_is, required=True),
        "if_body": Field("if_body", texts, required=True),
        "else_body": Field("else_body", texts),
    },
    also_known={"then": "if_body", "body": "if_body", "else": "else_body", "then_body": "if_body"},
)
CONDITION = Table(
    {
        "operator": Field("operator", Word({each.value: each for each in Operator}, "UNKNOWN_OPERATOR"), required=True),
        "left": Field("left", as_it_is, required=True),
        "right": Field("right", as_it_is),
    },
    also_known={"op": "operator"},
)
LOOP = Table(
    {
        "type": Field("type", Word({kind: kind for kind in LOOPS}, "UNKNOWN_TYPE"), required=True),
        "variable": Field("variable", name, required=True),
        "iterable": Field("iterable", as_it_is),
        "start": Field("start", as_it_is),
        "end": Field("end", as_it_is),
        "step": Field("step", as_it_is),
        "condition": Field("condition", as_it_is),
        "body": Field("body", texts, required=True),
    },
    also_known={"items": "iterable", "from": "start", "to": "end"},
)
FUNCTION = Table(
    {
        "name": Field("name", name, required=True),
        "parameters": Field("parameters", as_it_is),
        "return_type": Field("returns", read_type),
        "body": Field("body", texts, required=True),
        "description": Field("description", text),
    }
)
FUNCTION_PARAMETER = Table(
    {
        "name": Field("name", name, required=True),
        "type": Field("type", read_type),
        "default_value": Field("default", as_it_is),
        "required": Field("required", boolean),
        "description": Field("_description", text),
    },
    also_known={"default": "default_value"},
)
CALL = Table(
    {
        "function_name": Field("function", name, required=True),
        "arguments": Field("arguments", mapping),
        "result_variable": Field("result", name),
    },
    also_known={"function": "function_name", "name": "function_name", "args": "arguments"},
)
#: What each kind of loop needs, and may have.
LOOP_FIELDS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "for_each": (("iterable",), ()),
    "for_range": (("start", "end"), ("step",)),
    "while": (("condition",), ()),
}


def outline(raw: dict[str, Any], index: int, spot: Spot) -> tuple[Outline | None, FunctionOutline | None]:
    """What a segment runs, or defines, if it does."""
    told = [place for place in PLACES if raw.get(place) is not None]
    if not told:
        return None, None
    if len(told) > 1:
        both = " and ".join(f"`{place}`" for place in told)
        spot.wrong("BAD_CONTROL", told[1], f"A segment has one of these at most, not {both}.")
    place, value = told[0], raw[told[0]]
    if type(value) is not dict:
        spot.not_a("an object", place, value)
        return None, None
    inner = Spot((*spot.path, place), spot.report)
    match place:
        case "condition":
            known, _ = BRANCH.read(value, inner)
            bodies = [_body(known, field, inner, owner=index) for field in ("if_body", "else_body")]
            return Outline("condition", inner.path, known, bodies), None
        case "loop":
            return _loop(value, raw.get("metadata"), index, inner, spot), None
        case "function_call":
            known, _ = CALL.read(value, inner)
            return Outline("function_call", inner.path, known), None
    return Outline("function_def", inner.path, {}), function(value, inner)


def _loop(raw: dict[str, Any], metadata: Any, index: int, spot: Spot, segment: Spot) -> Outline:
    known, _ = LOOP.read(raw, spot)
    kind = known.get("type", "")
    needed, possible = LOOP_FIELDS.get(kind, ((), ()))
    for field in needed:
        if raw.get(field) is None:
            spot.wrong("MISSING_FIELD", field, f"A loop of type {kind} needs `{field}`.")
    for field in ("iterable", "start", "end", "step", "condition"):
        if kind and field in known and field not in (*needed, *possible):
            spot.wrong("BAD_CONTROL", field, f"`{field}` does not belong to a loop of type {kind}.")
    parallel = _parallel(metadata if isinstance(metadata, dict) else {}, kind, segment)
    return Outline(kind, spot.path, known, [_body(known, "body", spot, owner=index)], parallel)


def _parallel(metadata: dict[str, Any], kind: str, segment: Spot) -> int:
    """Rounds at a time: `parallel: true`, and how many in `max_parallel`."""
    spot = Spot((*segment.path, "metadata"), segment.report)
    for key in metadata:
        if key not in _PARALLEL and (meant := nearest(key, _PARALLEL)):
            message = f"`{shown(key)}` is metadata like any other and decides nothing."
            spot.report.warn("UNKNOWN_FIELD", (*spot.path, key), message, suggestion=meant, at_key=True)
    told = metadata.get("parallel")
    if told is not None and boolean(told, spot, "parallel") and kind == "while":
        spot.wrong("BAD_CONTROL", "parallel", "A loop of type while runs one round after the other.")
        return 1
    most = metadata.get("max_parallel")
    number = DEFAULT_PARALLEL if most is None else _READ_PARALLEL(most, spot, "max_parallel")
    asked = told is True or (told is None and most is not None and kind != "while")
    return number or 1 if asked else 1


def _body(known: dict[str, Any], field: str, spot: Spot, *, owner: int | None, function: str = "") -> Body:
    ids = known.get(field, ())
    if not ids and field in known and field != "else_body":
        spot.wrong("EMPTY_BODY", field, f"`{field}` names no segment; a body has at least one.")
    readable = tuple(each for each in ids if each != UNREADABLE)
    return Body((*spot.path, field), readable if len(readable) == len(ids) else (), owner, function)


def function(raw: Any, spot: Spot) -> FunctionOutline | None:
    """One function; None if there is no name to call it by."""
    if type(raw) is not dict:
        spot.report.error("BAD_TYPE", spot.path, f"A function must be an object, not {kind_of(raw)}.")
        return None
    known, _ = FUNCTION.read(raw, spot)
    if "name" not in known:
        return None
    listed = known.pop("parameters", None)
    parameters = _listed(listed, FUNCTION_PARAMETER, spot, "parameters", "default_value")
    body = _body(known, "body", spot, owner=None, function=known["name"])
    known["body"] = ()
    made = Function(parameters=tuple(Parameter(**fields) for fields in parameters), **known)
    by_name = {parameter.name: parameter for parameter in made.parameters}
    required = tuple(name for name, told in by_name.items() if told.required and told.default is None)
    return FunctionOutline(made, body, spot.path, by_name, required)


def variables(listed: Any, spot: Spot, key: str) -> tuple[Variable, ...]:
    """A list of variables."""
    return tuple(Variable(**fields) for fields in _listed(listed, VARIABLE, spot, key, "value"))


def _listed(listed: Any, table: Table, spot: Spot, key: str, valued: str) -> Iterator[dict[str, Any]]:
    """The objects of a list, each with a name of its own and, in its field `valued`, a value of its type."""
    if listed is None:
        return
    if type(listed) is not list:
        spot.not_a("a list of {name, type, …}", key, listed)
        return
    seen: set[str] = set()
    for index, raw in enumerate(listed):
        inner = Spot((*spot.path, key, index), spot.report)
        if type(raw) is not dict:
            spot.report.error("BAD_TYPE", inner.path, f"It must be an object, not {kind_of(raw)}.")
            continue
        known, _ = table.read(raw, inner)
        known.pop("_description", None)
        if "name" not in known:
            continue
        if known["name"] in seen:
            inner.wrong("DUPLICATE_NAME", "name", f"`{shown(known['name'])}` is there already.")
            continue
        seen.add(known["name"])
        _check_value(raw.get(valued), known.get("type", Type.ANY), inner, valued)
        yield known


def _check_value(value: Any, type_: Type, spot: Spot, key: str) -> None:
    if has_opening(value):
        message = "No reference can stand here: it is looked at before anything runs, and without the job's inputs."
        spot.wrong("BAD_VALUE", key, message)
    elif value is not None and not fits(value, type_):
        spot.wrong("BAD_VALUE", key, f"The value must be of type {type_}, not {kind_of(value)}.")


def check_id(written: str, spot: Spot) -> None:
    """Report an id that could not be told apart in the path of an instance, `loop1[3]/fetch`."""
    if _IN_PATHS.search(written):
        message = f"`{shown(written)}` holds one of `/`, `[` and `]`, which stand in the paths of instances."
        spot.wrong("BAD_NAME", "id", message)
