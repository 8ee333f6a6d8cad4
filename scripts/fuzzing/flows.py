"""Descriptors with control flow: sound ones, made by a grammar, and large ones whose bodies stand anyhow."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from scripts.fuzzing.descriptors import happens

#: Names of variables by type.
_NAMES: Final = {
    "number": ("n", "eşik", "n2"),
    "string": ("text", "ad"),
    "boolean": ("flag",),
    "array": ("items", "öğeler"),
    "object": ("record",),
}
_VALUES: Final = {
    "number": (0, 1, -1, 2.5, 2**63),
    "string": ("", "x", "ğüş", "n", "$${x}"),
    "boolean": (True, False),
    "array": ([], [1, 2, 3], [{"k": 1}], ["x"]),
    "object": ({}, {"k": 1, "operator": 1}),
}
_OPERATORS: Final = {
    "number": ("eq", "neq", "gt", "lt", "gte", "lte", "GT"),
    "string": ("eq", "starts_with", "ends_with", "contains", "not_contains", "lt"),
    "boolean": ("eq", "and", "or", "not"),
    "array": ("contains", "not_contains", "eq"),
    "object": ("contains", "neq"),
}
_DEEPEST: Final = 4
#: Variables that a segment sees, with their types.
Scope = dict[str, str]


def flow(random: Random) -> dict[str, Any]:
    """A sound one, mostly small."""
    return _Grammar(random).descriptor()


class _Grammar:
    """Makes one descriptor."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.segments: list[dict[str, Any]] = []
        self.functions: list[dict[str, Any]] = []
        #: Segments that may still be made.
        self.left = random.choice((2, 4, 8, 16))

    def descriptor(self) -> dict[str, Any]:
        declared = self.variables()
        scope = {each["name"]: each["type"] for each in declared}
        for number in range(self.random.choice((0, 0, 1, 2))):
            self.function(f"f{number}", scope)
        self.body(scope, 0)
        self.random.shuffle(self.segments)
        raw = {"id": "alt_4", "version": "2.0", "timestamp": "2026-01-05T08:00:00Z", "command": "Akış"}
        more = {"global_variables": declared, "functions": self.functions, "segments": self.segments}
        return {**raw, **{key: value for key, value in more.items() if value or happens(self.random, 0.5)}}

    def variables(self) -> list[dict[str, Any]]:
        kinds = self.random.sample(sorted(_NAMES), self.random.randint(0, 4))
        named = {self.random.choice(_NAMES[kind]): kind for kind in kinds}
        return [
            {"name": name, "type": kind, "value": self.random.choice(_VALUES[kind])} for name, kind in named.items()
        ]

    def function(self, name: str, scope: Scope) -> None:
        taken = self.variables()
        parameters = [
            {"name": each["name"], "type": each["type"], "required": True}
            if happens(self.random, 0.5)
            else {"name": each["name"], "type": each["type"], "default_value": each["value"]}
            for each in taken
        ]
        body = self.body(scope | {each["name"]: each["type"] for each in taken}, 1)
        self.functions.append({"name": name, "parameters": parameters, "body": body})

    def body(self, scope: Scope, depth: int) -> list[str]:
        """The ids of new segments that run together."""
        names: list[str] = []
        for _ in range(self.random.choice((1, 1, 2, 3))):
            if names and self.left <= 0:
                break
            names.append(self.segment(scope, depth, names))
        return names

    def segment(self, scope: Scope, depth: int, before: list[str]) -> str:
        self.left -= 1
        name = f"s{len(self.segments)}"
        raw: dict[str, Any] = {"id": name, "content": "Yap", "dependencies": self.some(before)}
        self.segments.append(raw)
        if happens(self.random, 0.2):
            raw["variables"] = self.variables()
            scope = scope | {each["name"]: each["type"] for each in raw["variables"]}
        place = self.random.choice(("", "", "condition", "loop", "function_call"))
        if depth >= _DEEPEST or self.left <= 0:
            place = ""
        match place:
            case "condition":
                raw["condition"] = {"condition": self.condition(scope, 2), "if_body": self.body(scope, depth + 1)}
                if happens(self.random, 0.5):
                    raw["condition"]["else_body"] = self.body(scope, depth + 1)
            case "loop":
                raw["loop"] = self.loop(scope, depth)
                if raw["loop"]["type"] != "while" and happens(self.random, 0.3):
                    raw["metadata"] = {"parallel": True, "max_parallel": self.random.choice((1, 2, 10_000))}
            case "function_call" if self.functions:
                raw["function_call"] = self.call(self.random.choice(self.functions), scope)
            case _:
                raw |= self.work(scope, raw["dependencies"])
        return name

    def some(self, names: list[str]) -> list[str]:
        return self.random.sample(names, self.random.randint(0, min(2, len(names))))

    def work(self, scope: Scope, before: list[str]) -> dict[str, Any]:
        """What a segment does that runs no others."""
        texts = [f"${{variables.{name}}}" for name in scope] + [f"${{tasks.{name}.output}}" for name in before]
        parameters = [{"name": f"p{index}", "value": text} for index, text in enumerate(texts)]
        return {"task_type": self.random.choice(("search", "delay", "ai_prompt")), "parameters": parameters}

    def loop(self, scope: Scope, depth: int) -> dict[str, Any]:
        random = self.random
        name = random.choice(("item", "öğe", "n", "text"))
        kind = random.choice(("for_each", "for_range", "while"))
        inside = scope | {name: "any"}
        raw: dict[str, Any] = {"type": kind, "variable": name}
        match kind:
            case "for_each":
                raw["iterable"] = random.choice([*_of(scope, "array"), [1, 2], "${inputs.x}"])
            case "for_range":
                raw |= {key: random.choice([*_of(scope, "number"), 0, 2, -1.0]) for key in ("start", "end")}
                raw["step"] = random.choice((1, 2, -1))
            case _:
                raw["condition"] = self.condition(scope, 1)
        return raw | {"body": self.body(inside, depth + 1)}

    def condition(self, scope: Scope, depth: int) -> dict[str, Any]:
        random = self.random
        if depth and happens(random, 0.3):
            operator = random.choice(("and", "or", "not"))
            right = {} if operator == "not" else {"right": random.choice((True, self.condition(scope, depth - 1)))}
            return {"operator": operator, "left": self.condition(scope, depth - 1), **right}
        typed = [(name, kind) for name, kind in scope.items() if kind in _OPERATORS]
        if not typed:
            return {"operator": "eq", "left": "${inputs.x}", "right": random.choice((None, 1, "x", [], {}))}
        name, kind = random.choice(typed)
        operator = random.choice(_OPERATORS[kind])
        if operator == "not":
            return {"operator": operator, "left": name}
        part = {"array": (1, "x"), "object": ("k",)}.get(kind, _VALUES[kind]) if operator != "eq" else _VALUES[kind]
        return {"operator": operator, "left": name, "right": random.choice([*part, "${inputs.x}", *_of(scope, kind)])}

    def call(self, function: dict[str, Any], scope: Scope) -> dict[str, Any]:
        arguments = {
            each["name"]: self.random.choice([*_VALUES[each["type"]], "${inputs.x}"])
            for each in function["parameters"]
            if each.get("required") or happens(self.random, 0.5)
        }
        raw = {"function_name": function["name"], "arguments": arguments}
        return raw | ({"result_variable": self.random.choice(["given", *scope])} if happens(self.random, 0.4) else {})


def _of(scope: Scope, kind: str) -> list[str]:
    return [name for name, told in scope.items() if told == kind]


def tangle(random: Random) -> dict[str, Any]:
    """Bodies inside of bodies, rings of them, some shared, and dependencies across all."""
    count = random.choices((5, 20, 100, 2_000), (100, 100, 20, 1))[0]
    homes = [random.randrange(max(1, index)) if happens(random, 0.7) else -1 for index in range(count)]
    if happens(random, 0.3):
        homes[random.randrange(count)] = random.randrange(count)
    if happens(random, 0.3):
        homes = [index - 1 for index in range(count)]
    inside: dict[int, list[str]] = {}
    for index, home in enumerate(homes):
        inside.setdefault(home, []).append(f"t{index}")
    rows = []
    for index in range(count):
        waits = [f"t{random.randrange(count)}" for _ in range(random.choice((0, 0, 0, 1, 3)))]
        row: dict[str, Any] = {"id": f"t{index}", "content": "d", "dependencies": waits}
        if index not in inside:
            row["task_type"] = "x"
            if happens(random, 0.2):
                row["content"] = f"${{tasks.t{random.randrange(count)}.output}} ${{variables.i{random.randrange(3)}}}"
        elif happens(random, 0.5):
            body, name = inside[index], f"i{random.randrange(3)}"
            row["loop"] = {"type": "for_range", "variable": name, "start": 0, "end": 2, "body": body}
        else:
            held = {"operator": "eq", "left": "v", "right": 1}
            split = random.randint(1, len(inside[index]))
            row["condition"] = {"condition": held, "if_body": inside[index][:split], "else_body": inside[index][split:]}
        rows.append(row)
    functions = []
    if -1 in inside and happens(random, 0.3) and len(inside[-1]) > 1:
        functions = [{"name": "f", "body": inside[-1][1:]}]
        rows.append({"id": "c", "content": "d", "function_call": {"function_name": "f", "result_variable": "i0"}})
    raw = {"id": "a", "version": "2.0", "timestamp": "2026-01-05T08:00:00Z", "command": "c"}
    return {**raw, "global_variables": [{"name": "v", "value": 1}], "functions": functions, "segments": rows}
