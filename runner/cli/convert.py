"""`alt-runner convert`: a descriptor in another format, or another dialect."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from runner.cli import descriptors, options, output
from runner.cli.exits import Exit, Unusable

if TYPE_CHECKING:
    from runner.cli.descriptors import Descriptor
    from runner.core.alt.conversion import Converted
    from runner.core.findings import Finding


class Target(enum.StrEnum):
    """What `--to` takes; the names of `runner.core.alt.media.Format`."""

    JSON = "json"
    YAML = "yaml"
    TOML = "toml"
    MSGPACK = "msgpack"


class Dialect(enum.StrEnum):
    """What `--dialect` takes; the names of `runner.core.alt.places.DialectName`."""

    TASKS = "tasks"
    SEGMENTS = "segments"
    WORKFLOW = "workflow"


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
    dialect: Annotated[
        Dialect | None,
        typer.Option("--dialect", help="The dialect; without it, that of FILE.", case_sensitive=False),
    ] = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Leave out what the dialect has no place for, and tell it.")
    ] = False,
    output_file: Annotated[
        str, typer.Option("--output", "-o", metavar="OUTPUT", help="Where to; without it, standard output.")
    ] = _STDOUT,
    as_json: options.Json = False,
) -> None:
    """Write a descriptor in another format: the same fields and values, in the same order.

    With `--dialect` in another dialect: the same job, in other words.

    What the other format or dialect cannot hold is told, and nothing is
    written. Exits with 6 then, and where the descriptor is wrong.
    """
    if lossy and dialect is None:
        raise Unusable("--lossy is about dialects: nothing else may be lost; say which with --dialect")
    target = _target(to, output_file, is_needed=dialect is None)
    found = descriptors.read([file])
    if len(found) > 1:
        raise Unusable(f"`{file}` names {len(found)} files; convert one at a time")
    (descriptor,) = found
    converted = _converted(descriptor, target, dialect, lossy=lossy, as_json=as_json)
    written_as = Target[converted.format.name]
    if output_file == _STDOUT:
        _check_terminal(written_as)
        output.raw(converted.content)
        if as_json and converted.lost:
            output.json_notice({"file": descriptor.name, "lost": _listed(converted.lost)})
        return
    _write(Path(output_file), converted.content)
    if not as_json:
        output.notice(f"wrote {output_file}")
        return
    warnings = _listed(converted.decoded.warnings)
    told = {"file": descriptor.name, "output": output_file, "format": written_as.value, "warnings": warnings}
    if dialect is not None:
        told |= {"dialect": dialect.value, "lost": _listed(converted.lost)}
    output.json_line(told)


def _listed(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [output.finding_json(finding) for finding in findings]


def _target(to: Target | None, output_file: str, *, is_needed: bool) -> Target | None:
    """The format that was asked for; None for the file's own.

    Raises Unusable: if none was and one is needed, or two were, or one that a terminal cannot show.
    """
    by_name = _ENDINGS.get(Path(output_file).suffix.lower())
    target = to or by_name
    if target is None and is_needed:
        raise Unusable(f"say which format: --to {'|'.join(Target)}, or an OUTPUT that ends like one, such as job.yaml")
    if by_name not in {None, target}:
        raise Unusable(f"`{output_file}` would be read as {by_name}, not as {target}; name it otherwise")
    if output_file == _STDOUT:
        _check_terminal(target)
    return target


def _check_terminal(target: Target | None) -> None:
    if target is Target.MSGPACK and sys.stdout.isatty():
        raise Unusable("MessagePack is nothing for a terminal; write it to a file: --output job.msgpack")


def _converted(
    descriptor: Descriptor, target: Target | None, dialect: Dialect | None, *, lossy: bool, as_json: bool
) -> Converted:
    """The descriptor, written again; what is wrong or odd about it, or gets lost, is told.

    Raises InvalidDescriptor, typer.Exit: if it is refused.
    """
    from runner.core.alt.conversion import convert as written_as
    from runner.core.alt.media import Format
    from runner.core.alt.places import DialectName
    from runner.core.errors import InvalidDescriptor

    try:
        converted = written_as(
            descriptor.content,
            Format[target.name] if target else None,
            dialect=DialectName[dialect.name] if dialect else None,
            lossy=lossy,
            content_type=descriptor.content_type,
        )
    except InvalidDescriptor as refused:
        if as_json:
            raise
        _tell(descriptor, refused.findings, refused.warnings)
        if not lossy and {finding.reason for finding in refused.findings} <= {"NO_PLACE", "TOO_MANY_FINDINGS"}:
            output.notice("  take that out of the file, or have it left out with --lossy")
        raise typer.Exit(Exit.REJECTED) from refused
    if not as_json:
        _tell(descriptor, (), (*converted.decoded.warnings, *converted.lost))
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
