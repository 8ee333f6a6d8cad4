from __future__ import annotations

import pytest
from rich.cells import cell_len

from runner.cli.descriptors import Descriptor
from runner.cli.diagnostics import counted, diagnose
from runner.core.findings import Finding


def shown(content: str, finding: Finding) -> list[str]:
    (text,) = diagnose(Descriptor("job.alt", content.encode(), ""), [finding])
    return text.plain.split("\n")


def test_a_finding_stands_over_its_line_with_a_caret_and_what_was_meant() -> None:
    finding = Finding("UNKNOWN_DEPENDENCY", "tasks[1].dependencies[0]", "There is no task `fecth`.", "fetch", 2, 4)
    assert shown('{\n  ["fecth"]}', finding) == [
        "job.alt:2:4: error: There is no task `fecth`. [UNKNOWN_DEPENDENCY]",
        '    2 │   ["fecth"]}',
        "      │    ^",
        "      = at tasks[1].dependencies[0]; did you mean `fetch`?",
    ]


@pytest.mark.parametrize("before", ["şçğ", "日本", "\t", "\x1b[31m", "x" * 400])
def test_the_caret_is_under_its_place_whatever_stands_before_it(before: str) -> None:
    _, source, caret = shown(f"{before}HERE{'y' * 400}", Finding("R", "", "m", "", 1, len(before) + 1))
    start = source.index("HERE")
    assert cell_len(caret[: caret.index("^")]) == cell_len(source[:start])
    assert cell_len(source) < 120
    assert "\x1b" not in source


def test_a_finding_without_a_place_names_the_file() -> None:
    assert shown("x", Finding("EMPTY", "", "The descriptor is empty.")) == [
        "job.alt: error: The descriptor is empty. [EMPTY]"
    ]


def test_a_place_beyond_the_file_does_no_harm() -> None:
    assert len(shown("x", Finding("R", "", "m", "", 1, 99))) == 3
    assert len(shown("x", Finding("R", "", "m", "", 9, 1))) == 1


def test_findings_are_told_in_the_order_of_the_file() -> None:
    file = Descriptor("f", b"a\nb\nc", "")
    errors, warnings = [Finding("E", "", "m", "", 3, 1)], [Finding("W", "", "m", "", 2, 1)]
    assert [text.plain.split()[1] for text in diagnose(file, errors, warnings)] == ["warning:", "error:"]


def test_numbers_of_findings_are_words() -> None:
    assert [counted(2, 1), counted(1, 0), counted(0, 0)] == ["2 errors, 1 warning", "1 error", ""]
