"""An input that broke a promise, as a file: a line of JSON that says how it is decoded, then its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from runner.core.alt import DescriptorLimits
from scripts.fuzzing.checks import Case

ROOT: Final = Path(__file__).parents[2]
DIRECTORY: Final = ROOT / "var" / "fuzz"


class _Header(msgspec.Struct, frozen=True):
    why: str
    content_type: str
    limits: DescriptorLimits


def save(case: Case, why: str, directory: Path = DIRECTORY) -> Path:
    """Keep it; the same case has the same name."""
    directory.mkdir(parents=True, exist_ok=True)
    header = msgspec.json.encode(_Header(why, case.content_type, case.limits))
    content = header + b"\n" + case.data
    path = directory / f"{hashlib.sha256(content).hexdigest()[:16]}.case"
    path.write_bytes(content)
    return path


def load(path: Path) -> Case:
    """What `save` wrote."""
    line, _, data = path.read_bytes().partition(b"\n")
    header = msgspec.json.decode(line, type=_Header)
    return Case(data, header.content_type, header.limits)
