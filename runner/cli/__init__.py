"""The command line: `alt-runner`. Heavy imports stand inside the commands, so that it answers at once."""

from __future__ import annotations

import functools
import os
import sys
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from runner import __version__
from runner.cli import (
    answer,
    breakers,
    convert,
    doctor,
    endpoints,
    exits,
    graph,
    handlers,
    jobs,
    last,
    options,
    output,
    pausing,
    retry,
    run,
    schema,
    serve,
    simulate,
    submit,
    validate,
    watch,
)
from runner.core.errors import RunnerError


class Commands(TyperGroup):
    """All commands; the one place where an error becomes a sentence and an exit code."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), meaning) for code, meaning in exits.MEANINGS.items()])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # What typer's own validation puts before its sentences is no word for a person.
            error.message = error.message.removeprefix("Value error, ")
            raise
        except RunnerError as error:
            code = exits.exit_of(error)
            if options.chosen(ctx).json:
                output.json_notice(output.error_json(error, code))
            else:
                output.notice(f"alt-runner: {error}")
            raise typer.Exit(code) from error
        except BrokenPipeError as error:
            output.close_quietly()
            raise typer.Exit(exits.Exit.BROKEN_PIPE) from error


def _version(value: bool) -> None:
    if value:
        output.line(f"alt-runner {__version__}")
        raise typer.Exit


def _root(
    server: options.RootServer = "",
    as_json: options.Json = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Runs .alt jobs: submit them to a daemon, watch them, read the .last records they leave."""


def application() -> typer.Typer:
    """Every command, in the order of its help."""
    app = typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    of_jobs = functools.partial(app.command, rich_help_panel="Jobs")
    of_jobs("run")(run.run)
    of_jobs("submit")(submit.submit)
    of_jobs("watch")(watch.watch)
    of_jobs("get")(jobs.get)
    of_jobs("list")(jobs.list_jobs)
    of_jobs("cancel")(jobs.cancel)
    of_jobs("pause")(pausing.pause)
    of_jobs("resume")(pausing.resume)
    of_jobs("retry")(retry.retry)
    of_jobs("approve")(answer.approve)
    of_jobs("reject")(answer.reject)
    of_jobs("validate")(validate.validate)
    of_jobs("convert")(convert.convert)
    of_jobs("graph")(graph.graph)
    of_jobs("schema")(schema.schema)
    of_jobs("handlers")(handlers.handlers)
    of_operation = functools.partial(app.command, rich_help_panel="Operation")
    of_operation("serve")(serve.serve)
    of_operation("doctor")(doctor.doctor)
    of_operation("simulate-orchestrator")(simulate.simulate_orchestrator)
    app.add_typer(breakers.commands(), name="breakers", rich_help_panel="Operation")
    app.add_typer(endpoints.commands(), name="endpoints", rich_help_panel="Operation")
    app.add_typer(last.commands(), name="last", rich_help_panel="Jobs")
    return app


def main() -> None:
    """The entry point of `alt-runner`."""
    sys.excepthook = _defect
    output.unbreakable()
    # What gRPC's C core writes to standard error, we say in our own words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    typer.main.get_command(application())(prog_name="alt-runner")


def _defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody foresaw. Told as one, with the place it comes from and without pages of code."""
    place = ""
    while trace is not None:
        place = f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
        trace = trace.tb_next
    output.notice(f"alt-runner: this is a defect, please report it: {kind.__name__}: {error} (at {place})")
