"""The descriptor files that a command line names."""

from __future__ import annotations

import glob
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from runner.cli.exits import FileNotThere, Unusable

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE", help="`.alt` files; `-` is standard input, a quoted pattern is expanded.", show_default=False
    ),
]

#: Endings that leave no doubt; `.alt` alone is recognised from the bytes.
_CONTENT_TYPES: Final = {
    ".json": "application/json",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".msgpack": "application/msgpack",
}


class Descriptor(msgspec.Struct, frozen=True):
    """A file, read."""

    #: As the person named it.
    name: str
    content: bytes
    content_type: str


def read(names: Sequence[str]) -> list[Descriptor]:
    """Read all files before anything is done with any of them.

    Raises FileNotThere: naming the first that is missing.
    Raises Unusable: naming the first that cannot be read.
    """
    if names.count("-") > 1:
        raise Unusable("standard input can be read only once; give `-` once")
    return [_read(file) for name in names for file in _expanded(name)]


def _expanded(name: str) -> list[str]:
    if name == "-" or Path(name).exists() or not glob.has_magic(name):
        return [name]
    found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute patterns
    if not found:
        raise FileNotThere(name, f"no file matches `{name}`")
    return found


def _read(name: str) -> Descriptor:
    if name == "-":
        return Descriptor("<stdin>", sys.stdin.buffer.read(), "")
    path = Path(name)
    try:
        return Descriptor(name, path.read_bytes(), _CONTENT_TYPES.get(path.suffix.lower(), ""))
    except FileNotFoundError as error:
        raise FileNotThere(name, f"there is no file `{name}`") from error
    except IsADirectoryError as error:
        raise Unusable(f"`{name}` is a directory; name its files, such as '{path / '*.alt'}'") from error
    except OSError as error:
        raise Unusable(f"cannot read `{name}`: {error.strerror or error}") from error
