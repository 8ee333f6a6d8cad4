"""The comments that stand above the fields of a struct, for those who document it: `#: …`, on one or more lines."""

from __future__ import annotations

import ast
import inspect
import textwrap


def comments(kind: type) -> dict[str, str]:
    """What the source of a class says of each of its fields; nothing where there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    lines = source.splitlines()
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above: list[str] = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#:"):
                    break
                above.insert(0, line.strip().removeprefix("#:").strip())
            found[node.target.id] = " ".join(above)
    return found
