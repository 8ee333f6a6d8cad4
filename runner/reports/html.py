"""A `.last` record as one page that needs nothing else: no scripts, no requests, light or dark as the reader likes.

Outputs come from strangers and AIs. Everything is escaped where it becomes markup (`markup.py`), and the page's own
Content-Security-Policy forbids scripts, images and requests, should that ever fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from runner.core.record import ArtifactRecord, LastRecord, TaskRecord, UsageRecord, duration_text, tokens_of
from runner.reports.cards import cards, pretty
from runner.reports.markup import Markup, join, percent, stylesheet, tag
from runner.reports.picture import fitting, inline, is_drawn_whole
from runner.reports.rounds import loops
from runner.reports.sketch import critical_path, every_arrow, every_box, of_record
from runner.reports.standing import counted, headline_of, notable, standings
from runner.reports.timeline import lines_of, span_of, timeline
from runner.reports.tree import Tree, shapes, size_of, tree_of

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_DASH: Final = "–"
#: Long texts of one task: its output, its error, that of its last attempt, its metadata.
_TEXTS: Final = 4
#: Tasks of the critical path that are told by name.
_NAMED_PATH: Final = 7


class PageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much a page shows one by one; what is more is summed up, and the page says so."""

    #: Tasks of a drawn graph, and edges: beyond either it is collapsed into layers.
    graph_tasks: int = 120
    graph_edges: int = 600
    #: Rows of the timeline.
    timeline_tasks: int = 100
    #: Tasks with all their details.
    detailed_tasks: int = 500
    #: Characters of one output, error or metadata, and of all these together: then each has its share.
    output_characters: int = 20_000
    all_characters: int = 1_500_000
    #: Attempts of one task.
    attempts: int = 50
    #: Rounds of loops that have a row, in all loops together.
    rounds: int = 6_000


def html(record: LastRecord, settings: PageSettings | None = None) -> str:
    """The page. The same record always gives the same page."""
    settings = settings or PageSettings()
    tasks = list(record.task_results.values())
    tree = tree_of(record)
    detailed = notable(tasks, settings.detailed_tasks)
    anchors = {task.task_id: f"#task-{number}" for number, task in enumerate(detailed, start=1)}
    share = settings.all_characters // (_TEXTS * len(detailed) or 1)
    settings = msgspec.structs.replace(settings, output_characters=min(settings.output_characters, share))
    body = join(
        _header(record, tasks),
        _timeline_section(record, tree, anchors, settings),
        _graph_section(record, anchors, settings),
        _rounds_section(tree, anchors, settings),
        _tasks_section(record, tree, len(detailed), anchors, settings),
        _usage_section(record.usage_by),
        _artifacts_section(record.artifacts),
        _footer(record),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{record.title} – .last"),
        tag("style", join(*map(stylesheet, ("palette.css", "page.css", "graph.css")))),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', body)), lang='en')}\n"


# ------------------------------------------------------------------------------------------------------------ header


def _header(record: LastRecord, tasks: Sequence[TaskRecord]) -> Markup:
    standing, words = headline_of(record)
    return tag(
        "header",
        tag("p", tag("span", words, class_="pill"), tag("span", *_context(record)), class_="top"),
        tag("h1", record.title, dir="auto"),
        tag("p", record.summary, class_="summary", dir="auto") if record.summary else None,
        _share_bar(tasks),
        _facts(record, tasks),
        class_=f"card {standing.name.lower()}",
    )


def _context(record: LastRecord) -> list[str]:
    parts = [record.alt_file_id, f"mode {record.mode}"]
    parts += [f"priority {record.priority}"] if record.priority else []
    parts += [record.persona] if record.persona else []
    return [" · ".join([*parts, *record.tags])]


def _share_bar(tasks: Sequence[TaskRecord]) -> Markup | None:
    counts = standings(tasks)
    if not counts:
        return None
    total = counts.total()
    parts = [
        tag(
            "span",
            class_=standing.name.lower(),
            style=f"width:{percent(count / total)}",
            title=f"{count} {standing.word}",
        )
        for standing, count in counts.items()
    ]
    legend = [
        tag("span", tag("b", f"{count:,}"), f" {standing.word}", class_=f"{standing.name.lower()} key")
        for standing, count in counts.items()
    ]
    return join(tag("div", *parts, class_="shares"), tag("div", *legend, class_="legend"))


def _facts(record: LastRecord, tasks: Sequence[TaskRecord]) -> Markup:
    attempts = sum(len(task.attempts) for task in tasks)
    facts = [
        ("duration", duration_text(record.execution_time_ms)),
        ("waited in queue", None if record.queue_time_ms is None else duration_text(record.queue_time_ms)),
        ("success rate", _rate(record.success_rate)),
        ("attempts", f"{attempts:,}" if attempts else None),
        ("AI tokens", f"{tokens_of(record.usage):,}" if record.usage else None),
        ("AI calls", f"{record.usage.calls:,}" if record.usage else None),
        ("started", f"{record.start_time:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    return tag("dl", *(_fact(name, value) for name, value in facts if value is not None), class_="facts")


def _rate(rate: float) -> str:
    """Rounded down: 4,999 of 5,000 are not 100 %."""
    per_mille = math.floor(rate * 1_000 + 1e-9)
    return f"{per_mille // 10}%" if not per_mille % 10 else f"{per_mille / 10}%"


def _fact(name: str, value: str) -> Markup:
    return tag("div", tag("dt", name), tag("dd", value))


# ---------------------------------------------------------------------------------------------------------- sections


def _section(title: str, note: str | None, *content: Markup | None) -> Markup:
    heading = tag("h2", title, tag("small", note) if note else None)
    return tag("section", heading, *content, class_="card")


def _timeline_section(record: LastRecord, tree: Tree, anchors: dict[str, str], settings: PageSettings) -> Markup | None:
    if not tree.top:
        return None
    shaped = shapes(tree)
    shown = lines_of(shaped, settings.timeline_tasks, span_of(record))
    note = _partial_note(len(shown), sum(map(size_of, shaped)), "timeline_tasks")
    note = note or "a bar is an attempt, a dotted line a wait"
    if any(len(line.tasks) > 1 for line in shown):
        note += "; what ran in many rounds has one row, blue where some were under way, the higher the more, "
        note += "red where one ended badly"
    return _section("Timeline", note, timeline(record, shown, anchors))


def _graph_section(record: LastRecord, anchors: dict[str, str], settings: PageSettings) -> Markup | None:
    graph = record.execution_graph
    if not graph.nodes:
        return None
    sketch = of_record(record)
    drawn = inline(fitting(sketch, settings.graph_tasks, settings.graph_edges, anchors))
    note = _path_note(critical_path(record))
    if not is_drawn_whole(sketch, settings.graph_tasks, settings.graph_edges):
        boxes, arrows = sum(1 for _ in every_box(sketch.boxes)), sum(1 for _ in every_arrow(sketch))
        size = f"{counted(boxes, 'task')} and {counted(arrows, 'edge')}"
        what = "these are their layers" if boxes == len(sketch.boxes) else "what is inside of some boxes is left out"
        note = f"{size} are too many to draw (settings graph_tasks, graph_edges): {what}"
    return _section("Execution graph", note, tag("div", drawn, class_="scroll"))


def _rounds_section(tree: Tree, anchors: dict[str, str], settings: PageSettings) -> Markup | None:
    drawn, left_out = loops(tree, anchors, settings.rounds)
    note = f"{counted(left_out, 'round')} more are in the record (setting rounds)" if left_out else None
    return _section("Rounds", note, *drawn) if drawn else None


def _path_note(path: Sequence[str]) -> str | None:
    if len(path) <= 1:
        return None
    named = path if len(path) <= _NAMED_PATH else [path[0], f"{len(path) - 2} more", path[-1]]
    return f"the bold line is what the end waited for: {' → '.join(named)}"


def _tasks_section(
    record: LastRecord, tree: Tree, detailed: int, anchors: dict[str, str], settings: PageSettings
) -> Markup | None:
    if not detailed:
        return None
    note = _partial_note(detailed, len(record.task_results), "detailed_tasks")
    shown = cards(record, tree, anchors, characters=settings.output_characters, attempts=settings.attempts)
    return _section("Tasks", note, *shown)


def _partial_note(shown: int, count: int, setting: str) -> str | None:
    if shown == count:
        return None
    chosen = "first those that did not complete, then the longest"
    return f"{shown:,} of {counted(count, 'task')}: {chosen} (setting {setting})"


def _counts(usage: UsageRecord) -> tuple[str, str, str, str]:
    """Calls, prompt, completion, tokens. An endpoint that tells only the sum has told no parts: a dash, and not 0."""
    total = tokens_of(usage)
    told = usage.prompt_tokens or usage.completion_tokens or not total
    parts = (f"{usage.prompt_tokens:,}", f"{usage.completion_tokens:,}") if told else (_DASH, _DASH)
    return (f"{usage.calls:,}", *parts, f"{total:,}")


def _usage_section(usage: Sequence[UsageRecord]) -> Markup | None:
    if not usage:
        return None
    head = tag("tr", *(tag("th", name) for name in ("endpoint", "model", "calls", "prompt", "completion", "tokens")))
    rows = [
        tag(
            "tr",
            tag("td", each.endpoint or _DASH, class_="id"),
            tag("td", each.model or _DASH, class_="id"),
            *(tag("td", count, class_="number") for count in _counts(each)),
        )
        for each in usage
    ]
    note = "of all attempts, those that failed among them"
    return _section("AI usage", note, tag("div", tag("table", head, *rows), class_="scroll"))


def _artifacts_section(artifacts: Sequence[ArtifactRecord]) -> Markup | None:
    if not artifacts:
        return None
    head = tag("tr", *(tag("th", name) for name in ("name", "type", "size", "task", "resource")))
    rows = [
        tag(
            "tr",
            tag("td", artifact.name),
            tag("td", artifact.mime_type or str(artifact.artifact_type)),
            tag("td", _DASH if artifact.size_bytes is None else f"{artifact.size_bytes:,} B", class_="number"),
            tag("td", artifact.task_id),
            tag("td", tag("code", artifact.path)),
        )
        for artifact in artifacts
    ]
    return _section("Artifacts", None, tag("div", tag("table", head, *rows), class_="scroll"))


def _footer(record: LastRecord) -> Markup:
    names = [
        ("job", record.job_id),
        ("execution", record.execution_id),
        ("record", record.id),
        ("runner", record.runner_id),
        ("trace", record.trace_id),
        ("descriptor SHA-256", record.descriptor_sha256),
        ("checksum", record.checksum if isinstance(record.checksum, str) else ""),
    ]
    rows = [_fact(name, value) for name, value in names if value]
    metadata = {key: value for key, value in record.metadata.items() if key != "error"}
    more = tag("details", tag("summary", "metadata"), tag("pre", pretty(metadata))) if metadata else None
    return tag("footer", tag("dl", *rows), more, class_="card")
