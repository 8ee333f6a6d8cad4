"""Bytes → Plan: recognise the format, parse within limits, recognise the dialect, read it, check what it says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import msgspec

from runner.core.alt import segments, tasks, workflow
from runner.core.alt.dialect import Draft
from runner.core.alt.flow import assembled, check_flow
from runner.core.alt.graph import check_graph
from runner.core.alt.json_text import read_json
from runner.core.alt.limits import DescriptorLimits
from runner.core.alt.linking import check_references
from runner.core.alt.media import Format, format_of
from runner.core.alt.msgpack_bytes import read_msgpack
from runner.core.alt.nested import check_children
from runner.core.alt.parameters import NO_KINDS, Kinds, check_parameters
from runner.core.alt.report import Locate, Report, Unreadable, kind_of, nearest, shown
from runner.core.alt.sound import sound_plan
from runner.core.alt.source import Source, nowhere
from runner.core.alt.toml_text import read_toml
from runner.core.alt.yaml_text import read_yaml
from runner.core.budgets import TOKEN_BUDGET, told_in
from runner.core.errors import InvalidDescriptor
from runner.core.findings import Finding
from runner.core.plan import Plan


class Decoded(msgspec.Struct, frozen=True):
    """A descriptor that may run."""

    plan: Plan
    warnings: tuple[Finding, ...]
    #: The plan as MessagePack, where that was made on the way; else empty.
    packed: bytes = b""


DEFAULT_LIMITS = DescriptorLimits()
_READERS: dict[Format, Callable[[bytes, Report], Source]] = {
    Format.JSON: read_json,
    Format.YAML: read_yaml,
    Format.TOML: read_toml,
    Format.MSGPACK: read_msgpack,
}


class Dialect(Protocol):
    """A module that reads one dialect."""

    #: The key of its list, which names the dialect.
    LIST: str
    SUPPORTED: str

    def read(self, raw: dict[str, Any], report: Report) -> Draft | None:
        """The plan as it is written; None if there is no list to read."""


_DIALECTS: tuple[Dialect, ...] = (tasks, segments, workflow)
_SUPPORTED = ", ".join(f"`{dialect.LIST}` {dialect.SUPPORTED}" for dialect in _DIALECTS)


def decode(
    data: bytes, *, content_type: str = "", limits: DescriptorLimits = DEFAULT_LIMITS, kinds: Kinds = NO_KINDS
) -> Decoded:
    """Decode a descriptor, in time and memory that `limits` bound, whatever the bytes are.

    Without a content type the format is recognised from the bytes. Parameters of tasks are checked where `kinds` knows
    what their handlers take.

    Raises InvalidDescriptor: with all that is wrong with it, and what is odd.
    """
    sound = sound_plan(data, content_type=content_type, limits=limits, kinds=kinds)
    if sound is not None:
        return Decoded(sound[0], (), sound[1])
    plan: Plan | None = None
    report = Report(limits)
    locate: Locate = nowhere
    try:
        source = parse(data, content_type, report)
        locate = source.locate
        plan = _plan(source.value, report, kinds, may_refer=source.may_refer)
    except Unreadable:
        pass
    errors, warnings = report.findings(locate) if report.errors or report.warnings else ((), ())
    if errors or plan is None:
        raise InvalidDescriptor(errors, warnings)
    return Decoded(plan, warnings)


def parse(data: bytes, content_type: str, report: Report) -> Source:
    limits = report.limits
    if not data.strip():
        raise report.fatal("EMPTY", "The descriptor is empty.")
    _check_size(data, limits.max_bytes, "max_bytes", report)
    chosen = format_of(data, content_type, report)
    if chosen is Format.YAML:
        _check_size(data, limits.max_yaml_bytes, "max_yaml_bytes", report)
    elif chosen is Format.TOML:
        _check_size(data, limits.max_toml_bytes, "max_toml_bytes", report)
    return _READERS[chosen](data, report)


def _check_size(data: bytes, limit: int, setting: str, report: Report) -> None:
    if len(data) > limit:
        message = f"{len(data)} bytes are more than setting `descriptor.{setting}` allows ({limit})."
        raise report.fatal("TOO_LARGE", message)


def _plan(raw: Any, report: Report, kinds: Kinds, *, may_refer: bool) -> Plan | None:
    if type(raw) is not dict:
        if not report.errors:
            report.error("BAD_TYPE", (), f"A descriptor must be an object, not {kind_of(raw)}.")
        return None
    draft = _read(raw, report)
    if draft is None:
        return None
    _check_budget(draft.plan, report)
    edges = check_graph(draft, report)
    if draft.flow is not None:
        edges = check_flow(draft, draft.flow, report)
    if may_refer:
        check_references(draft, edges, report)
    check_parameters(draft, kinds, report)
    check_children(draft, report, partial(_plan, kinds=kinds, may_refer=may_refer))
    return draft.plan if draft.flow is None or report.errors else assembled(draft.plan, draft.flow)


def _check_budget(plan: Plan, report: Report) -> None:
    try:
        told_in(plan.metadata)
    except ValueError as error:
        reason = "OUT_OF_RANGE" if type(plan.metadata[TOKEN_BUDGET]) is int else "BAD_TYPE"
        report.error(reason, ("metadata", TOKEN_BUDGET), str(error))


def _read(raw: dict[str, Any], report: Report) -> Draft | None:
    """Read it in the dialect that its keys name."""
    named = [dialect for dialect in _DIALECTS if dialect.LIST in raw]
    if len(named) == 1:
        return named[0].read(raw, report)
    found = ", ".join(f"`{dialect.LIST}`" for dialect in named)
    if named:
        message = f"The keys {found} are of different dialects; a descriptor has one of them."
        report.error("UNSUPPORTED_DIALECT", (), message)
        return None
    return _read_misspelt(raw, report)


def _read_misspelt(raw: dict[str, Any], report: Report) -> Draft | None:
    """None of the keys is a dialect's; where one is nearly, read on as if it were, to tell what else is wrong."""
    names = {dialect.LIST: dialect for dialect in _DIALECTS}
    for key, value in raw.items():
        meant = nearest(key, names)
        if meant:
            message = f"`{shown(key)}` names no dialect; supported are {_SUPPORTED}."
            report.error("UNSUPPORTED_DIALECT", (key,), message, suggestion=meant, at_key=True)
            if type(value) is not list:
                return None
            report.read_as[meant] = key
            return names[meant].read({**{k: v for k, v in raw.items() if k != key}, meant: value}, report)
    found = ", ".join(f"`{shown(key)}`" for key in list(raw)[:10]) or "none"
    message = f"No key names a dialect: supported are {_SUPPORTED}; found {found}."
    report.error("UNSUPPORTED_DIALECT", (), message)
    return None
