"""Descriptors as values: sound ones, and what is put in the place of their parts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from random import Random
from typing import Any, Final

NAMES: Final = ("a", "b", "c", "my.task", "ığ", "a b", "x.output", 'q"', "A", "dependencies", "<<", "1", "no")
_TEXTS: Final = (
    "", " ", "x", "Özet çıkar", "two\nlines\n", " - x: y", "${tasks.a.output}", "${tasks.b.output.x[0]}", "$${", "${",
    '${tasks."x.output".output}', "${inputs.x}", '${inputs."a b"}', '${inputs."\\ud800"}', "${secrets.K}", "${job.id}",
    "${tasks.a.output | @[*].b | [0]}", "${tasks.a.output.{a: b, c: join('x', d)}}", "${nothing}", "\u2028", "\x85 a",
    "\ufeff", "\ud800", "\0", "a\0b", "\x7f", "😀", "1e3", "0x1f", "no", "null", "~", "12:30", "true", "1_000", "=",
    "2025-04-26", "2025-04-26T19:32:00Z", "2025-04-26 19:32", "9999-12-31T23:59:60-23:59", "0000-00-00", "1.0", "9.9",
    "s0", "s1", "f0", "n", "items", "items[0].k", "${variables.n}", "${tasks.s1.output}", "for_each",
    "while", "gt", "not", "2.0",
    "low", "HIGH", "Chaos", "ai_prompt", "http_request", ":", "\\u003a", '"', "'''", '"""', "#", "\r\n", "\t",
)  # fmt: skip
_NUMBERS: Final = (
    0, 1, -1, 255, 256, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30,
    0.0, -0.0, 1.0, 0.5, 1e16, 1e-7, 1e300, 5e-324, 315_360_000, 315_360_001.0, 1e9, float("inf"), float("nan"),
)  # fmt: skip
_SOUND_TEXTS: Final = tuple(
    text for text in _TEXTS if not re.search("[\0\ud800]|(?<!\\$)\\$\\{(?!inputs.x|secrets|job.id)", text)
)
_SOUND_NUMBERS: Final = tuple(
    number for number in _NUMBERS if math.isfinite(number) and (type(number) is float or -(2**63) <= number < 2**64)
)
_FIELDS: Final = (
    "id", "version", "title", "created_at", "description", "mode", "persona", "priority", "tags", "metadata",
    "expected_completion_time", "fail_fast", "tasks", "segments", "nodes", "edges", "dependencies", "parameters",
    "timeout_seconds", "retry_count", "status", "weight", "timestamp", "command", "language", "chaos_level", "content",
    "task_type", "name", "value", "type", "required", "depends_on", "prompt", "url", "saved_at", "piece_type", "config",
    "global_variables", "functions", "variables", "condition", "loop", "function_def", "function_call", "operator",
    "left", "right", "if_body", "else_body", "body", "iterable", "start", "end", "step", "variable", "arguments",
    "function_name", "result_variable", "return_type", "default_value", "parallel", "max_parallel",
    "source_node_id", "target_node_id", "source_handle", "max_retries", "retry_delay_seconds", "position",
)  # fmt: skip


def happens(random: Random, share: float) -> bool:
    """True in this share of cases."""
    return random.random() < share


def descriptor(random: Random) -> dict[str, Any]:
    """A sound one, mostly small."""
    return random.choices((_tasks, _segments, _workflow), (6, 2, 2))[0](random)


def _tasks(random: Random) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "id": "alt_1",
        "version": random.choice(("1", "1.0", "1.2.3")),
        "title": "A job",
        "created_at": "2025-04-26T19:32:00Z",
    }
    _maybe(random, raw, "mode", lambda: random.choice(("normal", "dream", "chaos")))
    _maybe(random, raw, "priority", lambda: random.choice(("low", "critical")))
    _maybe(random, raw, "expected_completion_time", lambda: random.choice((0, 1.5, 10**6, 2**64 - 1)))
    _maybe(random, raw, "metadata", lambda: {"k": sound(random, 2)})
    _maybe(random, raw, "tags", lambda: ["t", "ü"])
    _maybe(random, raw, "fail_fast", lambda: True)
    raw["tasks"] = [_task(random, name, before) for name, before in _named(random)]
    return raw


def _named(random: Random) -> list[tuple[str, list[str]]]:
    """Names, each with some of those before it."""
    names = random.sample(NAMES, random.choices((1, 2, 3, 6), (5, 4, 2, 1))[0])
    return [(name, random.sample(names[:n], random.randint(0, min(n, 2)))) for n, name in enumerate(names)]


def _task(random: Random, name: str, before: list[str]) -> dict[str, Any]:
    raw: dict[str, Any] = {"id": name, "description": random.choice(("Do it", "Görüşmeleri özetle"))}
    if before or happens(random, 0.3):
        raw["dependencies"] = before
    _maybe(random, raw, "parameters", lambda: {"prompt": "Say", random.choice(_FIELDS): sound(random, 2)})
    _maybe(random, raw, "timeout_seconds", lambda: random.choice((1, 2.5, 315_360_000)))
    _maybe(random, raw, "retry_count", lambda: random.choice((0, 3, 255)))
    _maybe(random, raw, "weight", lambda: random.choice((1, 0.25, 10**9)))
    _maybe(random, raw, "metadata", lambda: {"m": sound(random, 2)})
    _maybe(random, raw, "status", lambda: "pending")
    return raw


def _segments(random: Random) -> dict[str, Any]:
    rows = [
        {
            "id": name,
            "task_type": "search",
            "content": "Bul",
            "dependencies": before,
            "parameters": [{"name": "p", "value": sound(random, 1), "required": False}],
        }
        for name, before in _named(random)
    ]
    return {
        "id": "alt_2",
        "version": "1.0",
        "timestamp": "2025-04-26T19:32:00Z",
        "command": "Özetle",
        "language": "tr",
        "segments": rows,
    }


def _workflow(random: Random) -> dict[str, Any]:
    named = _named(random)
    nodes = [
        {
            "id": name,
            "type": "action" if before else "trigger",
            "piece_type": random.choice(("ai_prompt", "delay", "manual_trigger")),
            "name": name,
            "config": {"prompt": "Say", "k": sound(random, 1)},
        }
        for name, before in named
    ]
    edges = [
        {"id": f"{source}-{name}", "source_node_id": source, "target_node_id": name}
        for name, before in named
        for source in before
    ]
    return {"id": "wf_1", "name": "A workflow", "version": "1.0", "nodes": nodes, "edges": edges}


def _maybe(random: Random, raw: dict[str, Any], key: str, value: Callable[[], Any]) -> None:
    if happens(random, 0.25):
        raw[key] = value()


def sound(random: Random, depth: int) -> Any:
    """A value that any descriptor may hold."""
    match random.randrange(5 if depth else 3):
        case 0:
            return random.choice(_SOUND_TEXTS)
        case 1:
            return random.choice(_SOUND_NUMBERS)
        case 2:
            return random.choice((None, True, False, [], {}))
        case 3:
            return [sound(random, depth - 1) for _ in range(random.randint(0, 3))]
    return {random.choice(_FIELDS + _SOUND_TEXTS): sound(random, depth - 1) for _ in range(random.randint(0, 3))}


def anything(random: Random, depth: int) -> Any:
    """A value of any kind."""
    match random.randrange(8 if depth else 6):
        case 0 | 1:
            return random.choice(_TEXTS)
        case 2 | 3:
            return random.choice(_NUMBERS)
        case 4:
            return random.choice((None, True, False))
        case 5:
            return random.choice(([], {}, [None], {"": ""}))
        case 6:
            return [anything(random, depth - 1) for _ in range(random.randint(0, 3))]
    return {
        random.choice(_FIELDS if happens(random, 0.5) else _TEXTS): anything(random, depth - 1)
        for _ in range(random.randint(0, 3))
    }


def wronged(random: Random, raw: Any) -> Any:
    """The same with something else in the place of a part."""
    spot = raw
    while isinstance(spot, dict | list) and spot:
        key = random.choice(list(spot)) if isinstance(spot, dict) else random.randrange(len(spot))
        inner = spot[key]
        if not isinstance(inner, dict | list) or not inner or happens(random, 0.2):
            _wrong(random, spot, key)
            break
        spot = inner
    return raw


def _wrong(random: Random, spot: Any, key: Any) -> None:
    match random.randrange(7):
        case 0 | 1 | 2:
            spot[key] = anything(random, 2)
        case 3:
            del spot[key]
        case 4 if isinstance(spot, dict):
            spot[random.choice(_FIELDS + NAMES)] = spot[key]
        case 4:
            spot.append(spot[key])
        case 5 if isinstance(spot, dict):
            spot[str(key)[:-1] + random.choice("xsı")] = spot.pop(key)
        case 5:
            spot[:] = random.sample(spot, len(spot))
        case _:
            spot[key] = random.choice(_TEXTS)


def graph(random: Random) -> dict[str, Any]:
    """Many tasks that wait for each other, in rings or densely."""
    count = random.choices((5, 20, 100, 2_000), (100, 100, 20, 1))[0]
    degree = random.choices((1, 2, count // 2 + 1), (4, 4, 1))[0]
    degree = min(degree, 40_000 // count)
    reach = random.choice((0, 1, count))
    rows = []
    for index in range(count):
        targets = [f"t{random.randrange(max(1, min(count, index + reach)))}" for _ in range(random.randint(0, degree))]
        row: dict[str, Any] = {"id": f"t{index}", "description": "d", "dependencies": targets}
        if happens(random, 0.2):
            row["parameters"] = {"p": f"${{tasks.t{random.randrange(count)}.output}}"}
        rows.append(row)
    return {"id": "a", "version": "1", "title": "t", "created_at": "2025-04-26T19:32:00Z", "tasks": rows}
