"""A `.last` record as one page that needs nothing else: no scripts, no requests, light or dark as the reader likes.

Outputs come from strangers and AIs. Everything is escaped where it becomes markup (`markup.py`), and the page's own
Content-Security-Policy forbids scripts, images and requests, should that ever fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from runner.core.events import Json
from runner.core.record import ArtifactRecord, AttemptRecord, LastRecord, TaskRecord, duration_text, tokens_of
from runner.reports.markup import Markup, join, percent, stylesheet, tag
from runner.reports.picture import fitting, inline, is_drawn_whole
from runner.reports.rounds import loops
from runner.reports.sketch import critical_path, every_arrow, every_box, of_record
from runner.reports.standing import Standing, counted, headline_of, notable, outcome_of, standing_of, standings, took
from runner.reports.timeline import in_order, lines_of, span_of, timeline
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
        _tasks_section(record, detailed, len(tasks), anchors, settings),
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
        note += "; what ran in many rounds has one row, the higher the more were under way"
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
    record: LastRecord, detailed: Sequence[TaskRecord], count: int, anchors: dict[str, str], settings: PageSettings
) -> Markup | None:
    if not detailed:
        return None
    note = _partial_note(len(detailed), count, "detailed_tasks")
    span = span_of(record)
    rows = (_task(record, task, anchors[task.task_id][1:], settings) for task in in_order(detailed, span))
    return _section("Tasks", note, *rows)


def _partial_note(shown: int, count: int, setting: str) -> str | None:
    if shown == count:
        return None
    chosen = "first those that did not complete, then the longest"
    return f"{shown:,} of {counted(count, 'task')}: {chosen} (setting {setting})"


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
    more = tag("details", tag("summary", "metadata"), tag("pre", _pretty(metadata))) if metadata else None
    return tag("footer", tag("dl", *rows), more, class_="card")


# ------------------------------------------------------------------------------------------------------------- tasks


def _task(record: LastRecord, task: TaskRecord, anchor: str, settings: PageSettings) -> Markup:
    standing = standing_of(task)
    attempts = len(task.attempts)
    summary = tag(
        "summary",
        tag("span", standing.glyph, class_="glyph", title=standing.word),
        tag("b", task.task_id),
        tag("span", task.description, class_="about", dir="auto"),
        tag("span", task.task_type, class_="kind") if task.task_type else None,
        tag("span", counted(attempts, "attempt") if attempts > 1 else "", class_="tries"),
        tag("span", took(task), class_="took"),
    )
    return tag(
        "details",
        summary,
        tag("p", _clipped(task.error, settings), class_="error", dir="auto") if task.error else None,
        _attempts(record, task.attempts, settings) if attempts else None,
        _output(task.output, settings.output_characters),
        tag("pre", _clipped(_pretty(task.metadata), settings), class_="metadata") if task.metadata else None,
        class_=f"{standing.name.lower()} task",
        id=anchor,
        open=standing in (Standing.FAILED, Standing.TIMEOUT),
    )


def _clipped(text: str, settings: PageSettings) -> str:
    limit = settings.output_characters
    return text if len(text) <= limit else f"{text[:limit]}…"


def _attempts(record: LastRecord, attempts: Sequence[AttemptRecord], settings: PageSettings) -> Markup:
    names = ("#", "begun", "took", "outcome", "endpoint", "model", "tokens", "error")
    head = tag("tr", *(tag("th", name) for name in names))
    rows = (_attempt(record, attempt, settings) for attempt in attempts[-settings.attempts :])
    left = len(attempts) - settings.attempts
    note = tag("p", f"the last {settings.attempts} of {len(attempts):,} (setting attempts)") if left > 0 else None
    return tag("div", note, tag("table", head, *rows), class_="scroll")


def _attempt(record: LastRecord, attempt: AttemptRecord, settings: PageSettings) -> Markup:
    begun = max(0, round(span_of(record).since_start(attempt.started)))
    lasted = None if attempt.ended is None else round((attempt.ended - attempt.started).total_seconds() * 1_000)
    look = outcome_of(attempt.outcome).name.lower()
    return tag(
        "tr",
        tag("td", str(attempt.number or 1), class_="number"),
        tag("td", f"+{duration_text(begun)}", class_="number"),
        tag("td", _DASH if lasted is None else duration_text(lasted), class_="number"),
        tag("td", tag("span", attempt.outcome.replace("_", " "), class_=f"{look} word")),
        tag("td", attempt.endpoint or _DASH, class_="id"),
        tag("td", attempt.model or _DASH, class_="id"),
        tag("td", _DASH if attempt.tokens is None else f"{attempt.tokens:,}", class_="number"),
        tag("td", _clipped(attempt.error or "", settings), dir="auto"),
    )


def _output(output: Json, limit: int) -> Markup | None:
    """Text as text, everything else as indented JSON."""
    if output is None:
        return None
    content = output["text"] if isinstance(output, dict) and set(output) == {"text"} else output
    shown: str = content if isinstance(content, str) else _pretty(output)
    cut = len(shown) - limit
    note = tag("p", f"… {cut:,} more characters are in the record (setting output_characters)") if cut > 0 else None
    return join(tag("pre", shown[:limit], class_="output", dir="auto"), note)


def _pretty(content: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
