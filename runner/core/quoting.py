"""Values whose `${…}` are meant for somebody later: quoted once here, and plain again after references are resolved.

    quoted    `${tasks.a.output}` becomes `$${tasks.a.output}`, and `$${` becomes `$$${`
    resolve   takes away exactly that, so that the value arrives as it was written

So a descriptor inside of a task's parameters needs no exception wherever references are found or resolved.
"""

from __future__ import annotations

from runner.core.events import Json


def quoted(value: Json) -> Json:
    """The value without a reference in it: what `references.resolve` makes of it is the value again. Keys stay."""
    return _replaced(value, "${", "$${")


def unquoted(value: Json) -> Json:
    """What was quoted."""
    return _replaced(value, "$${", "${")


def _replaced(value: Json, old: str, new: str) -> Json:
    if isinstance(value, str):
        return value.replace(old, new) if old in value else value
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return value
