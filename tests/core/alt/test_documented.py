"""docs/formats.md names every reason that the decoder gives, and every limit."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from runner.core.alt import DescriptorLimits

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "formats.md").read_text()
SOURCES = [*(ROOT / "runner/core/alt").glob("*.py"), ROOT / "runner/core/references.py"]


def test_every_reason_is_documented() -> None:
    reason = "[A-Z]+(?:_[A-Z]+)+|EMPTY|SYNTAX|BLANK|CYCLE"
    said = {name for path in SOURCES for name in re.findall(f'"({reason})"', path.read_text())}
    tables = DOCUMENT.partition("\n## What can be wrong\n")[2].partition("\n## ")[0]
    # A task's own failure, where one of these is found out only when it runs.
    assert said - {"UNRESOLVED_REFERENCE"} == set(re.findall(f"`({reason})`", tables))


def test_every_limit_is_documented() -> None:
    limits = {f"descriptor.{field.name}" for field in msgspec.structs.fields(DescriptorLimits)}
    assert limits == set(re.findall(r"`(descriptor\.\w+)` \|", DOCUMENT))
