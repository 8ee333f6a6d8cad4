"""`alt-runner last`: show and verify the records that jobs leave."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from runner.cli import options, output
from runner.cli.exits import Exit, FileNotThere, Unusable, exit_of, worst
from runner.core.errors import RunnerError

_PATTERN: Final = "last_*.json"


class _Records(TyperGroup):
    """Whoever names a record and no command wants to see it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        meant = get_close_matches(args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args if meant else ["show", *args])


def commands() -> typer.Typer:
    """The commands under `last`."""
    app = typer.Typer(
        cls=_Records, no_args_is_help=True, help="Show and verify .last records. `last JOB` is `last show JOB`."
    )
    app.command("show")(show)
    app.command("verify")(verify)
    return app


def show(
    record: Annotated[
        str, typer.Argument(metavar="JOB|FILE", help="A job's id, a .last file, or - for input.", show_default=False)
    ],
    *,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a report for browsers; - is standard output.")
    ] = None,
    dot: Annotated[bool, typer.Option("--dot", help="Print the execution graph for Graphviz.")] = False,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="Show at most this many tasks.")] = 100,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Show what a job did, from its record: summary, tasks, attempts, and where the time went.

    With --json the record itself is printed, as it was written.
    """
    content = _content(record, server)
    if as_json:
        output.raw(content)
        return
    from runner.core.record import Verdict, parse
    from runner.core.record import verify as verdict_of

    parsed = parse(content)
    if verdict_of(content) is Verdict.MISMATCH:
        output.notice(f"alt-runner: {record}: {Verdict.MISMATCH.value}")
    if dot:
        from runner.reports.dot import dot as drawn
        from runner.reports.sketch import of_record

        output.line(drawn(of_record(parsed)).rstrip("\n"))
    elif html is not None:
        from runner.reports.html import html as page

        _write(html, page(parsed))
    else:
        from runner.reports import terminal

        terminal.show(parsed, output.console(piped_width=100), tasks=tasks)


def _write(path: Path, text: str) -> None:
    if str(path) == "-":
        output.raw(text.encode())
        return
    output.write_file(path, text)
    output.notice(f"wrote {path}; open it in a browser")


def verify(
    records: Annotated[
        list[str],
        typer.Argument(metavar="FILE|DIR|JOB", help="Files, directories of records, job ids.", show_default=False),
    ],
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Tell only what is wrong.")] = False,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Check that records are as they were written, by their checksums.

    Exits with 6 if any was changed or is no record. One without a checksum, as older runners wrote them, is fine.
    """
    raise typer.Exit(_verify(records, server, quiet=quiet, as_json=as_json))


def _verify(records: list[str], server: str, *, quiet: bool, as_json: bool) -> Exit:
    codes = []
    intact = 0
    for name, content in _all(records, server):
        code, verdict, detail = _judged(content)
        codes.append(code)
        intact += code is Exit.OK
        if as_json:
            output.json_line({"record": name, "ok": code is Exit.OK, "verdict": verdict, "detail": detail})
        elif code is not Exit.OK or not quiet:
            output.line(f"{'✓' if code is Exit.OK else '✗'} {name}: {detail}")
    if not as_json and len(codes) > 1:
        output.notice(f"{intact} of {len(codes)} records are intact")
    return worst(codes)


def _judged(content: bytes | RunnerError) -> tuple[Exit, str, str]:
    from runner.core.record import Verdict
    from runner.core.record import verify as verdict_of

    if isinstance(content, RunnerError):
        return exit_of(content), "NOT_READ", str(content)
    verdict = verdict_of(content)
    fine = verdict in {Verdict.OK, Verdict.NO_CHECKSUM}
    return Exit.OK if fine else Exit.REJECTED, verdict.name, verdict.value


def _all(names: Iterable[str], server: str) -> Iterator[tuple[str, bytes | RunnerError]]:
    """Every record that the names mean, or why it cannot be read."""
    for name in names:
        if not Path(name).is_dir():
            yield name, _read(name, server)
            continue
        found = sorted(file for file in Path(name).rglob(_PATTERN) if ".incoming" not in file.parts)
        if not found:
            yield name, FileNotThere(name, f"no records ({_PATTERN}) under `{name}`")
        for file in found:
            yield str(file), _read(str(file), server)


def _read(name: str, server: str) -> bytes | RunnerError:
    try:
        return _content(name, server)
    except RunnerError as error:
        return error


def _content(name: str, server: str) -> bytes:
    """A record, from a file if there is one of that name, else from the daemon."""
    if name == "-":
        return sys.stdin.buffer.read()
    path = Path(name)
    if not path.exists() and not path.suffix and "/" not in name:
        return options.run(_fetched(name, server))
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotThere(name, f"there is no file `{name}`") from error
    except OSError as error:
        raise Unusable(f"cannot read `{name}`: {error.strerror or error}") from error


async def _fetched(job: str, server: str) -> bytes:
    async with options.connected(server) as client:
        return await client.record(job)
