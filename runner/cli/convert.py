"""`alt-runner convert`: a descriptor in another format."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner.cli import descriptors, options, output
from runner.cli.exits import Exit, Unusable

if TYPE_CHECKING:
    from runner.cli.descriptors import Descriptor
    from runner.core.alt.conversion import Converted
    from runner.core.alt.media import Format
    from runner.core.findings import Finding


class Target(enum.StrEnum):
    """What `--to` takes; the names of `runner.core.alt.media.Format`."""

    JSON = "json"
    YAML = "yaml"
    TOML = "toml"
    MSGPACK = "msgpack"


_ENDINGS: Final = {
    ".json": Target.JSON,
    ".yaml": Target.YAML,
    ".yml": Target.YAML,
    ".toml": Target.TOML,
    ".msgpack": Target.MSGPACK,
}
_STDOUT: Final = "-"


def convert(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A descriptor; `-` is standard input.", show_default=False)
    ],
    *,
    to: Annotated[
        Target | None,
        typer.Option("--to", help="The format; without it, what OUTPUT ends with.", case_sensitive=False),
    ] = None,
    output_file: Annotated[
        str, typer.Option("--output", "-o", metavar="OUTPUT", help="Where to; without it, standard output.")
    ] = _STDOUT,
    as_json: options.Json = False,
) -> None:
    """Write a descriptor in another format: the same fields and values, in the same order.

    What the other format cannot hold is told, and nothing is written. Exits
    with 6 then, and where the descriptor is wrong.
    """
    target = _target(to, output_file)
    found = descriptors.read([file])
    if len(found) > 1:
        raise Unusable(f"`{file}` names {len(found)} files; convert one at a time")
    (descriptor,) = found
    converted = _converted(descriptor, target, as_json=as_json)
    if output_file == _STDOUT:
        output.raw(converted.content)
        return
    _write(Path(output_file), converted.content)
    if as_json:
        warnings = [output.finding_json(warning) for warning in converted.decoded.warnings]
        told = {"file": descriptor.name, "output": output_file, "format": target.value, "warnings": warnings}
        output.json_line(told)
    else:
        output.notice(f"wrote {output_file}")


def _target(to: Target | None, output_file: str) -> Target:
    """The format that was asked for.

    Raises Unusable: if none was, or two, or one that a terminal cannot show.
    """
    by_name = _ENDINGS.get(Path(output_file).suffix.lower())
    target = to or by_name
    if target is None:
        raise Unusable(f"say which format: --to {'|'.join(Target)}, or an OUTPUT that ends like one, such as job.yaml")
    if by_name not in {None, target}:
        raise Unusable(f"`{output_file}` would be read as {by_name}, not as {target}; name it otherwise")
    if target is Target.MSGPACK and output_file == _STDOUT and sys.stdout.isatty():
        raise Unusable("MessagePack is nothing for a terminal; write it to a file: --output job.msgpack")
    return target


def _converted(descriptor: Descriptor, target: Target, *, as_json: bool) -> Converted:
    """The descriptor, written again; what is wrong or odd about it is told.

    Raises InvalidDescriptor, typer.Exit: if it is refused.
    """
    from runner.core.alt.conversion import convert as written_as
    from runner.core.alt.media import Format
    from runner.core.errors import InvalidDescriptor

    to: Format = Format[target.name]
    try:
        converted = written_as(descriptor.content, to, content_type=descriptor.content_type)
    except InvalidDescriptor as refused:
        if as_json:
            raise
        _tell(descriptor, refused.findings, refused.warnings)
        raise typer.Exit(Exit.REJECTED) from refused
    if not as_json:
        _tell(descriptor, (), converted.decoded.warnings)
    return converted


def _tell(descriptor: Descriptor, errors: tuple[Finding, ...], warnings: tuple[Finding, ...]) -> None:
    from runner.cli import diagnostics

    stderr = output.console(stderr=True)
    for text in diagnostics.diagnose(descriptor, errors, warnings):
        stderr.print(text)
    if errors:
        output.notice(f"alt-runner: {descriptor.name}: not converted, {diagnostics.counted(len(errors), 0)}")


def _write(path: Path, content: bytes) -> None:
    """Write the whole file or none of it."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Unusable(f"cannot write `{path}`: {error.strerror or error}") from error
