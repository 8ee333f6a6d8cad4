"""The examples are sound, and say what they claim to."""

from __future__ import annotations

from pathlib import Path

import jmespath
import pytest

from runner.core.alt import decode
from runner.core.references import required_inputs

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.alt*"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_accepted_without_a_warning(path: Path) -> None:
    decoded = decode(path.read_bytes())
    assert decoded.warnings == ()
    assert required_inputs(decoded.plan) == set()


def test_the_digest_leaves_out_teams_that_said_nothing() -> None:
    plan = decode((EXAMPLES[0].parent / "digest.alt").read_bytes()).plan
    (notes,) = [task for task in plan.tasks if task.kind == "data_processing"]
    data = [{"team": "A", "text": "one"}, {"team": "B", "text": None}, {"team": "C", "text": "two"}]
    assert jmespath.search(notes.parameters["expression"], data) == "A: one\nC: two"
