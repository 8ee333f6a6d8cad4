"""`alt-runner handlers`: what tasks can do, and the parameters that they take."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import UNSET, to_builtins
from msgspec.json import encode

from runner.cli import options, output
from runner.cli.exits import Unusable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from runner.handlers.documentation import HandlerDocument, ParameterDocument


def handlers(
    task_type: Annotated[
        list[str] | None, typer.Argument(metavar="[TYPE]...", help="Only these; without any, all.", show_default=False)
    ] = None,
    *,
    as_json: options.Json = False,
) -> None:
    """Document the task types that this installation handles: what each does, and its parameters.

    Those of installed packages are among them. What none of them claims goes to the AI orchestrator.
    """
    documents = _chosen(options.run(_documents()), task_type or ())
    if as_json:
        for document in documents:
            output.json_line(to_builtins(document))
        return
    parts = [part for document in documents for part in _shown(document)]
    output.show(*parts[:-1])


def _chosen(documents: list[HandlerDocument], kinds: Sequence[str]) -> list[HandlerDocument]:
    """Those that handle these task types, in this order, each once. Raises Unusable: if nothing claims one."""
    if not kinds:
        return documents
    claimed = {kind: document for document in documents for kind in document.task_types}
    for kind in kinds:
        if kind not in claimed:
            close = get_close_matches(kind, claimed, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(claimed)}"
            raise Unusable(f"nothing here claims the task type `{kind}`, so it goes to the AI orchestrator; {hint}")
    return list({claimed[kind].task_types: claimed[kind] for kind in kinds}.values())


async def _documents() -> list[HandlerDocument]:
    from runner.handlers.documentation import documents, packages_of_handlers
    from runner.handlers.registry import open_handlers

    async with open_handlers({}) as opened:
        return documents(opened, packages_of_handlers())


def _shown(document: HandlerDocument) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    from runner.reports.standing import one_line

    others = " and every word that nothing else claims" if document.takes_others else ""
    package = f", from package {document.package}" if document.package else ""
    names = ", ".join(document.task_types)
    title = Text.assemble((one_line(names), "bold"), others, (one_line(package), "bright_black"))
    about = [Padding(Text(one_line(document.about)), (0, 0, 0, 2))] if document.about else []
    if document.parameters is None:
        told: RenderableType = Text("it does not tell its parameters", "bright_black")
    else:
        told = _table(document.parameters)
    return [title, *about, Padding(told, (0, 0, 0, 4)), Text()]


def _table(parameters: tuple[ParameterDocument, ...]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from runner.reports.standing import one_line

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for style in ("bold", "", "bright_black", ""):
        table.add_column(style=style, overflow="fold")
    for parameter in parameters:
        default = "" if parameter.default is UNSET else f"default {encode(parameter.default).decode()}"
        told = (parameter.name, parameter.type, "required" if parameter.required else default, parameter.meaning)
        table.add_row(*(Text(one_line(text)) for text in told))
    return table
