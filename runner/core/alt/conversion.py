"""A descriptor in another format: what it says, in the order in which it says it. In another dialect: the same plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
import tomli_w
import yaml

from runner.core.alt.decoder import DEFAULT_LIMITS, Decoded, decode, parse
from runner.core.alt.limits import DescriptorLimits
from runner.core.alt.losses import essence
from runner.core.alt.media import Format, format_of
from runner.core.alt.places import DialectName
from runner.core.alt.report import Path, Report
from runner.core.alt.source import Source
from runner.core.alt.translation import translate
from runner.core.errors import InvalidDescriptor
from runner.core.findings import Finding
from runner.core.plan import Plan

#: TOML 1.0: what a reader must be able to keep.
_GREATEST_IN_TOML: Final = 2**63 - 1
#: PyYAML writes these as they are, and then they are line breaks, or a byte order mark.
_ESCAPED_IN_YAML: Final = re.compile("[\x85\u2028\u2029\ufeff]")
#: YAML breaks no line of its own: a text of one line stays one.
_ENDLESS: Final = 1 << 30


class Converted(msgspec.Struct, frozen=True):
    """A descriptor, written again."""

    content: bytes
    format: Format
    #: Of the descriptor as it was.
    decoded: Decoded
    #: What was left out, where that was allowed.
    lost: tuple[Finding, ...] = ()


def convert(
    data: bytes,
    to: Format | None,
    *,
    dialect: DialectName | None = None,
    lossy: bool = False,
    content_type: str = "",
    limits: DescriptorLimits = DEFAULT_LIMITS,
) -> Converted:
    """Write a descriptor in another format, another dialect, or both; None stands for those that it has.

    In its own dialect it keeps its fields and values, in the same order. In another it decodes to a plan of the same
    `essence`; if `lossy` without what `lost` tells.

    Raises InvalidDescriptor: if it is wrong, or says something that the other format or dialect cannot hold.
    """
    decoded = decode(data, content_type=content_type, limits=limits)
    report = Report(limits)
    source = parse(data, content_type, report)
    to = to or format_of(data, content_type, report)
    plan = decoded.plan
    lost: tuple[Finding, ...] = ()
    same = _is_same
    if dialect is not None and dialect != plan.dialect:
        same = _is_equivalent
        translation = translate(source.value, plan, dialect, report, lossy=lossy)
        _refuse(source, report)
        lost = report.findings(source.locate)[1]
        source, plan = Source(translation.value), translation.plan
    content = _written(source, to, limits)
    again = _read_again(content, to, limits)
    written = parse(content, to, Report(limits)).value
    # Equality would not tell 1, 1.0 and true apart, nor keys in another order.
    if repr(written) != repr(source.value) or not same(again.plan, plan):
        message = f"Written as `{to}` it would say something else, so it is not; this is a defect."
        report.error("CANNOT_BE_WRITTEN", (), message)
        _refuse(source, report)
    return Converted(content, to, decoded, lost)


def _is_same(one: Plan, other: Plan) -> bool:
    return repr(one) == repr(other)


def _is_equivalent(one: Plan, other: Plan) -> bool:
    return essence(one) == essence(other)


def _written(source: Source, to: Format, limits: DescriptorLimits) -> bytes:
    if to is Format.TOML:
        report = Report(limits)
        _check_toml(source.value, (), report)
        _refuse(source, report)
    return _WRITERS[to](source.value)


def _read_again(content: bytes, to: Format, limits: DescriptorLimits) -> Decoded:
    try:
        return decode(content, content_type=to, limits=limits)
    except InvalidDescriptor as refused:
        # Nobody sees the lines that they speak of.
        findings = [msgspec.structs.replace(finding, line=0, column=0) for finding in refused.findings]
        raise InvalidDescriptor(tuple(findings)) from refused


def _refuse(source: Source, report: Report) -> None:
    if report.errors:
        raise InvalidDescriptor(report.findings(source.locate)[0])


# ---------------------------------------------------------------------------------------------- JSON, MessagePack


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


# ----------------------------------------------------------------------------------------------------------- YAML


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _ESCAPED_IN_YAML.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _yaml_text)


def _yaml(value: Any) -> bytes:
    return yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=_ENDLESS).encode()


# ----------------------------------------------------------------------------------------------------------- TOML


def _check_toml(value: Any, path: Path, report: Report) -> None:
    """Report what TOML cannot hold."""
    if value is None:
        report.error("CANNOT_BE_WRITTEN", path, "TOML has no null; leave the field out, or convert to another format.")
    elif type(value) is int and value > _GREATEST_IN_TOML:
        message = f"TOML's integers end at {_GREATEST_IN_TOML}; write it as text, or convert to another format."
        report.error("CANNOT_BE_WRITTEN", path, message)
    elif isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _check_toml(inner, (*path, step), report)


def _toml(value: dict[str, Any]) -> bytes:
    return "".join(_table(value, "")).lstrip("\n").encode()


def _table(value: Mapping[str, Any], name: str) -> Iterable[str]:
    """The lines of a table. A table inside of it gets a header, unless a field behind it would then be its own."""
    below = len(value)
    for item in reversed([*value.values()]):
        if not isinstance(item, dict) and not _is_tables(item):
            break
        below -= 1
    for index, (key, item) in enumerate(value.items()):
        inner = f"{name}.{_key(key)}" if name else _key(key)
        if index < below:
            yield f"{_key(key)} = {_inline(item)}\n"
        elif isinstance(item, dict):
            yield f"\n[{inner}]\n"
            yield from _table(item, inner)
        else:
            for row in item:
                yield f"\n[[{inner}]]\n"
                yield from _table(row, inner)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    # tomli-w takes a carriage return out of a text of several lines.
    is_block = isinstance(value, str) and "\n" in value and "\r" not in value
    return tomli_w.dumps({"x": value}, multiline_strings=is_block).removeprefix("x = ").removesuffix("\n")


def _key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")


_WRITERS: Final[Mapping[Format, Callable[[Any], bytes]]] = {
    Format.JSON: _json,
    Format.YAML: _yaml,
    Format.TOML: _toml,
    Format.MSGPACK: msgspec.msgpack.encode,
}
