"""What holds for every input of the decoder, however hostile."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any, Final

import msgspec

from runner.core.alt import DescriptorLimits, decode
from runner.core.alt.conversion import convert
from runner.core.alt.decoder import Decoded, parse
from runner.core.alt.media import Format, format_of
from runner.core.alt.report import Report
from runner.core.errors import InvalidDescriptor
from runner.core.findings import Finding
from runner.core.plan import Plan
from runner.core.references import required_inputs
from scripts.fuzzing.running import play

BOM: Final = b"\xef\xbb\xbf"
#: Characters of one finding. It travels in an answer of a hundred.
LONGEST_FINDING: Final = 20_000
#: Writing and reading it in all formats takes far longer than reading it: one in so many is.
_RARELY: Final = 32
#: Beside the bytes of a descriptor, what its other forms may need.
_ROOM: Final = 64 << 20

_REASON: Final = re.compile("[A-Z]+(_[A-Z]+)*")


class Case(msgspec.Struct, frozen=True):
    """An input of the decoder."""

    data: bytes
    content_type: str = ""
    limits: DescriptorLimits = DescriptorLimits()


class Broken(AssertionError):
    """A promise was broken; the message says which."""


def check(case: Case) -> bool:
    """Decode, and check all that is promised about the answer. True if it was accepted.

    Raises Broken: if a promise was broken. Whatever else is raised broke one as well.
    """
    try:
        decoded = decode(case.data, content_type=case.content_type, limits=case.limits)
    except InvalidDescriptor as refused:
        _hold(bool(refused.findings), "it was refused without a finding")
        _check_findings(case, refused.findings + refused.warnings)
        return False
    _check_findings(case, decoded.warnings)
    _check_plan(decoded.plan)
    _check_other_forms(case, decoded)
    return True


def _hold(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)


def _check_findings(case: Case, findings: tuple[Finding, ...]) -> None:
    lines: list[str] | None = None
    for finding in findings:
        _hold(_REASON.fullmatch(finding.reason) is not None, f"no stable reason: {finding!r}")
        _hold(bool(finding.message), f"no message: {finding!r}")
        told = (finding.message, finding.path, finding.suggestion)
        _hold(sum(map(len, told)) <= LONGEST_FINDING, f"a finding of {list(map(len, told))} characters")
        for text in told:
            text.encode()
        if finding.line or finding.column:
            lines = lines or case.data.removeprefix(BOM).decode("utf-8", "replace").split("\n")
            inside = 1 <= finding.line <= len(lines) and 1 <= finding.column <= len(lines[finding.line - 1]) + 1
            _hold(inside, f"a place outside of the text: {finding!r}")


def _check_plan(plan: Plan) -> None:
    stored = msgspec.msgpack.encode(plan)
    again = msgspec.msgpack.decode(stored, type=Plan)
    _hold(repr(again) == repr(plan), "the plan is stored as another")
    _hold(b"\0" not in msgspec.json.encode(plan), "the plan holds a NUL")
    for name in required_inputs(plan):
        name.encode()
    play(plan, again, _hold)


def _check_other_forms(case: Case, decoded: Decoded) -> None:
    """The same descriptor gives the same plan in every format, and whichever way JSON is read."""
    limits = msgspec.structs.replace(case.limits, max_bytes=_ROOM, max_yaml_bytes=_ROOM, max_toml_bytes=_ROOM)
    if format_of(case.data, case.content_type, Report(case.limits)) is Format.JSON:
        # A byte order mark turns away the quick way for sound JSON.
        slow = decode(BOM + case.data.removeprefix(BOM), content_type=Format.JSON, limits=limits)
        _hold(_same(slow.plan, decoded.plan), "the quick way and the tables give different plans")
        _hold(slow.warnings == decoded.warnings, "the quick way and the tables tell different warnings")
        _check_against_another_reader(case, limits)
    if zlib.crc32(case.data) % _RARELY == 0:
        for form in Format:
            _check_converted(case, decoded, form, limits)


def _check_against_another_reader(case: Case, limits: DescriptorLimits) -> None:
    """Both ways of reading JSON share what they look for keys that stand twice with; Python's reader does not."""
    value = json.loads(case.data.removeprefix(BOM), object_pairs_hook=_without_doubles)
    read = parse(case.data, case.content_type, Report(limits)).value
    _hold(repr(read) == repr(value), "Python reads another value")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    _hold(len(made) == len(pairs), "a key that stands twice was overlooked")
    return made


def _check_converted(case: Case, decoded: Decoded, to: Format, limits: DescriptorLimits) -> None:
    try:
        content = convert(case.data, to, content_type=case.content_type, limits=limits).content
    except InvalidDescriptor as refused:
        only_toml = to is Format.TOML and all("TOML" in finding.message for finding in refused.findings)
        _hold(only_toml, f"it could not be written as {to}: {refused}")
        return
    again = decode(content, content_type=to, limits=limits)
    _hold(_same(again.plan, decoded.plan), f"written as {to} it is another plan")
    _hold(_said(again.warnings) == _said(decoded.warnings), f"written as {to} it is warned about otherwise")


def _same(one: Plan, other: Plan) -> bool:
    """Tells apart what Python takes for equal: 1, 1.0 and true; and keys in another order."""
    return repr(one) == repr(other)


def _said(warnings: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    return sorted((warning.reason, warning.path, warning.message) for warning in warnings)
