from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from rich.console import Console

from runner.core.record import FallbackRecord, LastRecord, UsageRecord
from runner.reports.terminal import show


def shown(record: LastRecord, width: int = 100, *, terminal: bool = False, tasks: int = 100) -> str:
    told = io.StringIO()
    colours: Literal["standard"] | None = "standard" if terminal else None
    console = Console(file=told, width=width, force_terminal=terminal, color_system=colours, no_color=not terminal)
    show(record, console, tasks=tasks)
    return told.getvalue()


def test_piped_it_is_plain_text(digest: LastRecord) -> None:
    text = shown(digest)
    assert "\x1b" not in text
    for told in ("◐ partially succeeded", "Haftalık özet", "where 21.9 s went", "7,887 tokens", "1 timed out"):
        assert told in text


def test_on_a_terminal_it_has_colours(digest: LastRecord) -> None:
    assert "\x1b[32m" in shown(digest, terminal=True)


def test_what_an_ai_wrote_cannot_steer_the_terminal(digest: LastRecord) -> None:
    nasty = "\x1b]0;owned\x07\x9b2J\u202e[bold]x[/]\r"
    results = {
        nasty: msgspec.structs.replace(digest.task_results["plan_week"], task_id=nasty, error=nasty, description=nasty)
    }
    text = shown(msgspec.structs.replace(digest, title=nasty, summary=nasty, task_results=results))
    assert not set(text) & set("\x1b\x07\x9b\u202e\r")
    assert "[bold]x[/]" in text, "nor is it markup of ours"


@pytest.mark.parametrize("width", [20, 40, 60, 72, 80, 120, 200])
def test_it_keeps_to_the_width_of_the_console(digest: LastRecord, width: int) -> None:
    assert max(map(len, shown(digest, width).splitlines())) <= width


def test_bars_show_attempts_and_the_waits_between(digest: LastRecord) -> None:
    row = next(line for line in shown(digest).splitlines() if "summarise_rest" in line)
    assert "░···" in row
    assert "█" in row
    failed = next(line for line in shown(digest).splitlines() if "detect_anomalies" in line and "11.2 s" in line)
    assert failed.count("▒") > 10


def test_failed_tasks_tell_why_below(digest: LastRecord) -> None:
    assert "◷ plan_week  TIMED_OUT: no answer within 12 s" in shown(digest)


def test_a_large_record_is_cut_and_says_so(large: LastRecord) -> None:
    text = shown(large, tasks=10)
    assert text.count("part_") < 11
    assert "… and 1,192 tasks more" in text


def test_a_record_with_nothing_in_it_is_shown(empty: LastRecord) -> None:
    assert "partially succeeded" in shown(empty)


def test_a_file_gets_no_colours_without_being_told(digest: LastRecord, tmp_path: Path) -> None:
    with (tmp_path / "shown").open("w+") as file:
        show(digest, Console(file=file))
        file.seek(0)
        assert "\x1b" not in file.read()


def test_usage_is_told_by_endpoint_and_model_where_there_are_several(digest: LastRecord) -> None:
    assert "AI main" not in shown(digest)
    rows = tuple(UsageRecord(endpoint="main", model=f"m{n}", calls=n, total_tokens=1000 * n) for n in range(12, 0, -1))
    text = shown(msgspec.structs.replace(digest, usage_by=rows))
    assert "AI main · m12  12 calls, 12,000 tokens" in text
    assert "and 2 more models" in text


STOOD_IN = [
    (FallbackRecord(kind="endpoint", instead_of="a", reason="BREAKER_OPEN: `a` is open"), "b · m stood in for a: BRE"),
    (FallbackRecord(kind="cached", instead_of="a", age_seconds=300), "an answer of 5 min 0 s ago stood in for a"),
    (FallbackRecord(kind="value", instead_of="a"), "the value that the task gives stood in for a"),
]


@pytest.mark.parametrize(("used", "told"), STOOD_IN)
def test_what_stood_in_for_a_first_choice_is_told_below(digest: LastRecord, used: FallbackRecord, told: str) -> None:
    task = digest.task_results["triage"]
    last = msgspec.structs.replace(task.attempts[-1], endpoint="b", model="m", fallback=used)
    results = {"triage": msgspec.structs.replace(task, attempts=(*task.attempts[:-1], last))}
    assert f"triage  {told}" in shown(msgspec.structs.replace(digest, task_results=results), 200)
