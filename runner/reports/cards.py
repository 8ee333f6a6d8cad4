"""The tasks of a page with all their details, each a card that folds, below what ran it; the rounds of a loop fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from runner.core.events import Json
from runner.core.record import AttemptRecord, LastRecord, TaskRecord, duration_text
from runner.reports.markup import Markup, join, tag
from runner.reports.standing import Standing, counted, outcome_of, standing_of, took
from runner.reports.timeline import Span, in_order, span_of
from runner.reports.tree import BodyRun, Tree, local_name, told_rounds
from runner.reports.wording import elsewhere, of_answer, of_metadata, reused_from, short, stood_in

_DASH: Final = "–"
_BAD: Final = frozenset({Standing.FAILED, Standing.TIMEOUT})


def cards(
    record: LastRecord, tree: Tree, anchors: Mapping[str, str], *, characters: int, attempts: int
) -> list[Markup]:
    """A card for each task that has an anchor; at most so many characters of each text, and attempts of each task."""
    drawn = _Cards(tree, span_of(record), anchors, characters, attempts)
    return drawn.of(tree.top, nested=False)


class _Cards(msgspec.Struct, frozen=True):
    tree: Tree
    span: Span
    anchors: Mapping[str, str]
    characters: int
    attempts: int

    def of(self, tasks: Sequence[TaskRecord], *, nested: bool) -> list[Markup]:
        """The tasks as they began, below each what it ran."""
        drawn: list[Markup] = []
        for task in in_order(tasks, self.span):
            shown = task.task_id in self.anchors
            if shown:
                drawn.append(self._card(task, nested=nested))
            drawn += self._bodies(task, nested=shown)
        return drawn

    def _bodies(self, task: TaskRecord, *, nested: bool) -> list[Markup]:
        runs = self.tree.runs.get(task.task_id, [])
        drawn = [(run, content) for run in runs if (content := self.of(run.tasks, nested=nested))]
        if not drawn:
            return []
        if runs[0].body == "round":
            return [_loop(task, runs, drawn)]
        return [tag("div", _heading(run), *content, class_="inner") for run, content in drawn]

    def _card(self, task: TaskRecord, *, nested: bool) -> Markup:
        standing = standing_of(task)
        attempts = len(task.attempts)
        summary = tag(
            "summary",
            tag("span", standing.glyph, class_="glyph", title=standing.word),
            tag("b", local_name(task) if nested else task.task_id, title=task.task_id),
            tag("span", task.description, class_="about", dir="auto"),
            tag("span", task.task_type, class_="kind") if task.task_type else None,
            tag("span", counted(attempts, "attempt") if attempts > 1 else "", class_="tries"),
            tag("span", took(task), class_="took"),
        )
        reused = reused_from(task)
        return tag(
            "details",
            summary,
            tag("p", tag("code", task.task_id)) if nested else None,
            tag("p", self._clipped(task.error), class_="error", dir="auto") if task.error else None,
            tag("p", f"reused from job {reused}") if reused else None,
            tag("p", self._clipped(instead), dir="auto") if (instead := stood_in(task)) else None,
            tag("p", self._clipped(answer), dir="auto") if (answer := of_answer(task)) else None,
            self._attempts(task.attempts) if attempts else None,
            self._output(task.output),
            self._metadata(task.metadata),
            class_=f"{standing.name.lower()} task",
            id=self.anchors[task.task_id].removeprefix("#"),
            open=standing in _BAD,
        )

    def _clipped(self, text: str) -> str:
        return text if len(text) <= self.characters else f"{text[: self.characters]}…"

    def _attempts(self, attempts: Sequence[AttemptRecord]) -> Markup:
        names = ("#", "begun", "took", "outcome", "endpoint", "model", "tokens", "error")
        head = tag("tr", *(tag("th", name) for name in names))
        left = len(attempts) - self.attempts
        note = tag("p", f"the last {self.attempts} of {len(attempts):,} (setting attempts)") if left > 0 else None
        return tag("div", note, tag("table", head, *map(self._attempt, attempts[-self.attempts :])), class_="scroll")

    def _attempt(self, attempt: AttemptRecord) -> Markup:
        begun = max(0, round(self.span.since_start(attempt.started)))
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
            tag("td", self._clipped(attempt.error or ""), _among(attempt), dir="auto"),
        )

    def _output(self, output: Json) -> Markup | None:
        """Text as text, everything else as indented JSON."""
        if output is None:
            return None
        content = output["text"] if isinstance(output, dict) and set(output) == {"text"} else output
        shown: str = content if isinstance(content, str) else pretty(output)
        cut = len(shown) - self.characters
        note = tag("p", f"… {cut:,} more characters are in the record (setting output_characters)") if cut > 0 else None
        return join(_label("output"), tag("pre", shown[: self.characters], class_="output", dir="auto"), note)

    def _metadata(self, metadata: Mapping[str, Any]) -> Markup | None:
        if not metadata:
            return None
        return join(_label("metadata"), tag("pre", self._clipped(pretty(metadata)), class_="metadata"))


def _loop(task: TaskRecord, runs: Sequence[BodyRun], drawn: Sequence[tuple[BodyRun, list[Markup]]]) -> Markup:
    """The rounds of which there are cards; open where one of them ended badly."""
    told = told_rounds(runs) if len(drawn) == len(runs) else f"tasks of {len(drawn):,} of {counted(len(runs), 'round')}"
    return tag(
        "details",
        tag("summary", f"{of_metadata(task.metadata)} · {told}"),
        *(tag("div", _heading(run), *content, class_="inner") for run, content in drawn),
        class_="inner loop",
        open=any(run.standing in _BAD for run, _ in drawn),
    )


def _heading(run: BodyRun) -> Markup | None:
    """`round 3 · id: T-3`, `if`; nothing for a call, of which there is one body."""
    if run.body != "round":
        return _label(run.body) if run.body in {"if", "else"} else None
    return _label(f"round {run.round or 0}{'' if run.value is None else f' · {short(run.value)}'}")


def _label(text: str) -> Markup:
    return tag("p", text, class_="label", dir="auto")


def pretty(content: Any) -> str:
    """JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def _among(attempt: AttemptRecord) -> Markup | None:
    """What of an attempt's calls and tokens was consumed elsewhere."""
    told = elsewhere(attempt)
    return tag("p", f"of the tokens and calls: {told}") if told else None
