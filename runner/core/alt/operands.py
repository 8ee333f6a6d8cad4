"""What conditions, loops and calls are made of: variables by name, literals, references, and other conditions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from runner.core.alt.control_flow import CONDITION
from runner.core.alt.fields import Spot
from runner.core.alt.limits import too_many_references
from runner.core.alt.outline import FunctionOutline, Names, Outline
from runner.core.alt.report import Path, Report, kind_of, shown
from runner.core.plan import (
    Branch,
    Call,
    Condition,
    Control,
    Definition,
    ForEach,
    ForRange,
    Operator,
    Type,
    Value,
    While,
)
from runner.core.references import Malformed, Reference, Root, may_be_reference, parse
from runner.core.variables import PYTHON_TYPES, fits

#: What may be meant as a part of a variable.
_PART: Final = re.compile(r"([^\W\d]\w*)(?:\.\w|\[)")
_LOGICAL: Final = frozenset({Operator.AND, Operator.OR})
_ORDERED: Final = frozenset({Operator.GT, Operator.LT, Operator.GTE, Operator.LTE})
_OF_TEXTS: Final = frozenset({Operator.STARTS_WITH, Operator.ENDS_WITH})
_COMPARED: Final = frozenset({Type.NUMBER, Type.STRING})
_CONTAINERS: Final = frozenset({Type.STRING, Type.ARRAY, Type.OBJECT})


class Operands:
    """Reads the operands of one segment."""

    def __init__(self, names: Names, report: Report, *, characters: int = 0) -> None:
        self._names = names
        self._report = report
        #: Every value in which references may stand, and where.
        self.found: list[tuple[Any, Path]] = []
        #: Of what may hold a path of JMESPath: in what was read before, and since.
        self.characters = characters

    def control(self, outline: Outline, functions: Mapping[str, FunctionOutline]) -> Control | None:
        """What the segment runs, its bodies left empty; None after it was reported why that is not known."""
        fields, spot = outline.fields, Spot(outline.path, self._report)
        match outline.kind:
            case "condition":
                condition = self._condition(fields.get("condition"), (*spot.path, "condition"))
                return None if condition is None else Branch(condition=condition, then=())
            case "for_each":
                return self._each(outline, spot)
            case "for_range":
                return self._range(outline, spot)
            case "while":
                condition = self._condition(fields.get("condition"), (*spot.path, "condition"))
                name = fields.get("variable", "")
                return None if condition is None else While(variable=name, condition=condition, body=())
            case "function_call":
                return self._call(fields, functions, spot)
        return Definition()

    # ------------------------------------------------------------------------------------------------ conditions

    def _condition(self, raw: Any, path: Path) -> Condition | None:
        if raw is None:
            return None
        if type(raw) is not dict:
            message = f"A condition is an object with `operator`, `left` and `right`, not {kind_of(raw)}."
            self._report.error("BAD_TYPE", path, message)
            return None
        spot = Spot(path, self._report)
        known, _ = CONDITION.read(raw, spot)
        operator: Operator | None = known.get("operator")
        if operator is None or "left" not in known:
            return None
        self._check_count(operator, raw, spot)
        left = self._side(known["left"], (*path, "left"), operator, named=True)
        # A null is a literal on the right, where a field that is null counts as absent elsewhere.
        right = self._side(raw.get("right"), (*path, "right"), operator, named=False) if "right" in raw else None
        if left is None or (right is None and operator is not Operator.NOT):
            return None
        self._check_types(operator, left, right, spot)
        return Condition(operator, left, right)

    def _check_count(self, operator: Operator, raw: dict[str, Any], spot: Spot) -> None:
        if operator is Operator.NOT and raw.get("right") is not None:
            spot.wrong("OPERAND_COUNT", "right", "`not` takes `left` only.")
        elif operator is not Operator.NOT and "right" not in raw:
            spot.wrong("OPERAND_COUNT", "right", f"`{operator}` takes `left` and `right`.")

    def _side(self, raw: Any, path: Path, operator: Operator, *, named: bool) -> Condition | Value | None:
        if isinstance(raw, dict) and "operator" in raw:
            return self._condition(raw, path)
        if named and not isinstance(raw, str):
            message = f"`left` is the name of a variable, a reference or a condition, not {kind_of(raw)}."
            self._report.error("BAD_TYPE", path, message)
            return None
        if operator in _LOGICAL and not isinstance(raw, str | bool):
            message = f"`{operator}` takes conditions, not {kind_of(raw)}."
            self._report.error("BAD_OPERAND", path, message)
            return None
        return self._named(raw, path) if named else self._operand(raw, path, None)

    def _check_types(
        self, operator: Operator, left: Condition | Value, right: Condition | Value | None, spot: Spot
    ) -> None:
        """What can be told before anything runs, from literals and from the types of variables."""
        one, other = self._type(left), self._type(right)
        null = isinstance(right, Value) and right.value is None
        if operator in _ORDERED:
            known = {one, other} - {None}
            wrong, takes = null or len(known) > 1 or not known <= _COMPARED, "two numbers or two texts"
        elif operator in _OF_TEXTS:
            wrong, takes = null or not {one, other} <= {Type.STRING, None}, "texts"
        elif operator in _LOGICAL or operator is Operator.NOT:
            sides = {one} if operator is Operator.NOT else {one, other}
            wrong, takes = not sides <= {Type.BOOLEAN, None}, "what is true or false"
        elif operator in (Operator.CONTAINS, Operator.NOT_CONTAINS):
            named = one in (Type.STRING, Type.OBJECT) and (null or other not in {Type.STRING, None})
            wrong, takes = named or one not in {*_CONTAINERS, None}, "a text and a part, a list, or an object and a key"
        else:
            return
        if wrong:
            told = str(one or "any")
            if operator is not Operator.NOT:
                told += f" and {'null' if null else other or 'any'}"
            literal = right.value if isinstance(right, Value) and other is Type.STRING else ""
            message = f"`{operator}` takes {takes}, and these are of type {told}."
            spot.wrong("BAD_OPERAND", "operator", message, like=(literal, self._names) if literal else None)

    def _type(self, operand: Condition | Value | None) -> Type | None:
        """The type of an operand, as far as it is known before anything runs."""
        match operand:
            case Condition():
                return Type.BOOLEAN
            case Value(value=str() as text):
                return self._type_of_text(text)
            case Value(value=value):
                return next((type_ for type_, types in PYTHON_TYPES.items() if type(value) in types), None)
        return None

    def _type_of_text(self, text: str) -> Type | None:
        if not may_be_reference(text):
            return Type.STRING
        (reference,) = parse(text)
        if isinstance(reference, Reference) and reference.root is Root.VARIABLES and not reference.path:
            found = self._names.find(reference.name)
            return None if found is Type.ANY else found
        return None

    # -------------------------------------------------------------------------------------------------- operands

    def _named(self, text: str, path: Path) -> Value | None:
        """A variable by its name, a part of one (`item.price`), or a reference."""
        if "${" in text:
            return self._noted(text, path)
        written = f"${{variables.{text}}}"
        if text in self._names:
            return Value(written)
        self._spend(text)
        (piece, *rest) = parse(written)
        if rest or isinstance(piece, Malformed | str):
            message = f"`{shown(text)}` is neither the name of a variable nor a part of one."
            self._report.error("BAD_REFERENCE", path, message)
            return None
        if self._names.find(piece.name) is None:
            message = f"There is no variable `{shown(piece.name)}` here."
            self._report.error("UNKNOWN_VARIABLE", path, message, like=(piece.name, self._names))
            return None
        return Value(written)

    def _operand(self, raw: Any, path: Path, wanted: Type | None) -> Value | None:
        """A variable by its name, a reference, or a literal. `wanted` types are not texts, so a text is a name."""
        if raw is None and wanted is not None:
            return None
        if isinstance(raw, str) and (wanted is not None or self._names.find(raw) is not None):
            value = self._named(raw, path)
        else:
            self._warn_of_part(raw, path)
            value = self._noted(raw, path)
        known = self._type(value)
        if wanted is not None and known is not None and known is not wanted:
            self._report.error("BAD_OPERAND", path, f"It must be of type {wanted}, not {known}.")
            return None
        return value

    def _warn_of_part(self, raw: Any, path: Path) -> None:
        """A text such as `ticket.price` is a text on the right."""
        if isinstance(raw, str) and (part := _PART.match(raw)) and part[1] in self._names:
            message = f"`{shown(raw)}` is a text here, though there is a variable `{shown(part[1])}`."
            self._report.warn("NAME_AS_TEXT", path, message, suggestion=f"${{variables.{shown(raw)}}}")

    def _noted(self, value: Any, path: Path) -> Value:
        self.found.append((value, path))
        if isinstance(value, str) and "${" in value:
            self._spend(value)
        return Value(value)

    def _spend(self, text: str) -> None:
        """Compiling what it may hold takes some microseconds a character, so there is an end."""
        self.characters += len(text)
        limits = self._report.limits
        if self.characters > limits.max_reference_characters:
            raise self._report.fatal("TOO_MANY_REFERENCES", too_many_references(limits), path=("segments",))

    def _each(self, outline: Outline, spot: Spot) -> ForEach | None:
        items = self._operand(outline.fields.get("iterable"), (*spot.path, "iterable"), Type.ARRAY)
        if items is None:
            return None
        name = outline.fields.get("variable", "")
        return ForEach(variable=name, items=items, body=(), parallel=outline.parallel)

    def _range(self, outline: Outline, spot: Spot) -> ForRange | None:
        fields = outline.fields
        start, end = (self._bound(fields.get(field), field, spot) for field in ("start", "end"))
        step = self._bound(fields.get("step", 1), "step", spot)
        if step is not None and step.value == 0:
            spot.wrong("OUT_OF_RANGE", "step", "`step` must not be 0.")
        if start is None or end is None or step is None:
            return None
        return ForRange(
            variable=fields.get("variable", ""), start=start, end=end, step=step, body=(), parallel=outline.parallel
        )

    def _bound(self, raw: Any, field: str, spot: Spot) -> Value | None:
        if isinstance(raw, float) and not raw.is_integer():
            spot.wrong("BAD_TYPE", field, f"`{field}` must be a whole number.")
            return None
        return self._operand(raw, (*spot.path, field), Type.NUMBER)

    # ----------------------------------------------------------------------------------------------------- calls

    def _call(self, fields: dict[str, Any], functions: Mapping[str, FunctionOutline], spot: Spot) -> Call | None:
        name = fields.get("function")
        if name is None:
            return None
        if name not in functions:
            message = f"There is no function `{shown(name)}`."
            spot.wrong("UNKNOWN_FUNCTION", "function_name", message, like=(name, functions))
            return None
        arguments: dict[str, Any] = fields.get("arguments", {})
        self._check_arguments(arguments, functions[name], Spot((*spot.path, "arguments"), self._report), spot)
        for key, value in arguments.items():
            self.found.append((value, (*spot.path, "arguments", key)))
            self._warn_of_part(value, (*spot.path, "arguments", key))
            if isinstance(value, str) and self._names.find(value) is not None:
                message = f"`{shown(value)}` is a text here, though there is a variable of this name."
                self._report.warn(
                    "NAME_AS_TEXT", (*spot.path, "arguments", key), message, suggestion=f"${{variables.{value}}}"
                )
        return Call(function=name, arguments=arguments, result=fields.get("result"))

    def _check_arguments(self, arguments: dict[str, Any], called: FunctionOutline, spot: Spot, call: Spot) -> None:
        parameters, name = called.parameters, called.function.name
        for key, value in arguments.items():
            parameter = parameters.get(key)
            if parameter is None:
                message = f"Function `{shown(name)}` has no parameter `{shown(key)}`."
                spot.wrong("UNKNOWN_ARGUMENT", key, message, like=(key, parameters), at_key=True)
            elif value is not None and not may_be_reference(value) and not fits(value, parameter.type):
                spot.wrong("BAD_VALUE", key, f"`{shown(key)}` must be of type {parameter.type}, not {kind_of(value)}.")
        for parameter_name in called.required:
            if arguments.get(parameter_name) is None:
                message = f"Function `{shown(name)}` needs the argument `{shown(parameter_name)}`."
                call.wrong("MISSING_ARGUMENT", "arguments", message)
                if self._report.full:
                    break  # thousands of calls may each miss thousands
