from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runner.cli.arguments import inputs, moment, pairs
from runner.cli.exits import Unusable

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("+90s", NOW + timedelta(seconds=90)),
        ("+1h30m", NOW + timedelta(minutes=90)),
        ("+2d", NOW + timedelta(days=2)),
        ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T10:00:00+02:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_a_time_is_absolute_or_from_now(text: str, expected: datetime | None) -> None:
    assert moment(text, now=NOW, option="--deadline") == expected


@pytest.mark.parametrize("text", ["tomorrow", "+", "+5", "5m", "2026-01-31T08:00:00", "+99999999999d"])
def test_what_is_no_time_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(Unusable, match=r"^--deadline: `"):
        moment(text, now=NOW, option="--deadline")


def test_pairs_keep_everything_after_the_first_equals_sign() -> None:
    assert pairs(["a=1", "b=x=y", "c="], option="--label") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("entry", ["a", "=1", " =1"])
def test_a_pair_without_a_name_or_a_value_is_refused(entry: str) -> None:
    with pytest.raises(Unusable, match="must be like name=value"):
        pairs([entry], option="--label")


def test_inputs_are_json_where_they_can_be_and_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "inputs.json"
    file.write_text('{"count": 1, "who": "file"}')
    given = inputs(["count=2", "who=me", 'list=["ş"]', "text=NaN", "empty="], file)
    assert json.loads(given) == {"count": 2, "who": "me", "list": ["ş"], "text": "NaN", "empty": ""}
    assert inputs([], None) == b""


@pytest.mark.parametrize("content", ["[1]", "nonsense", '{"a": NaN}'])
def test_a_file_of_inputs_must_hold_an_object(tmp_path: Path, content: str) -> None:
    file = tmp_path / "inputs.json"
    file.write_text(content)
    with pytest.raises(Unusable, match=r"--inputs-file: "):
        inputs([], file)
