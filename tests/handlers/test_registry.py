from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from runner.core.alt.dialect import TRIGGERS
from runner.core.errors import InvalidSettings
from runner.handlers.registry import ENTRY_POINTS, FALLBACK, load_entry_points, open_handlers
from runner.ports import Attempt, Outcome
from runner.testing import FakeAttempt


class Shout:
    """A third party's Handler."""

    async def run(self, attempt: Attempt) -> Outcome:
        return Outcome(output=attempt.task.description.upper())


shout = Shout()
not_a_handler = 5


def broken() -> Shout:
    raise RuntimeError("out of order")


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=ENTRY_POINTS)


def here(attribute: str, name: str = "shout") -> EntryPoint:
    return point(name, f"{__name__}:{attribute}")


async def test_the_built_in_task_types_are_claimed_and_the_fallback_is_the_orchestrator() -> None:
    async with open_handlers({}) as handlers:
        assert set(handlers) >= {
            "ai_prompt",
            FALLBACK,
            "http_request",
            "python",
            "delay",
            "data_processing",
            "system_command",
            "code_executor",
            "file_operation",
            "approval",
            "job",
        }
        assert set(handlers) >= TRIGGERS
        assert handlers[FALLBACK] is handlers["ai_prompt"]
        assert FALLBACK == "orchestrator"


@pytest.mark.parametrize("attribute", ["Shout", "shout"])
async def test_a_package_offers_a_handler_or_what_makes_one(attribute: str) -> None:
    handlers = load_entry_points([here(attribute)])
    outcome = await handlers["shout"].run(FakeAttempt(description="ahoy"))
    assert outcome.output == "AHOY"


def test_every_broken_package_is_named_with_what_is_wrong() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load_entry_points(
            [
                point("one", "no_such_module_here:X"),
                here("nothing", "two"),
                here("broken", "three"),
                here("not_a_handler", "four"),
                here("Shout", "five"),
                here("Shout", "five"),
            ]
        )
    told = caught.value.problems
    assert [problem.split("`")[1] for problem in told] == ["one", "two", "three", "four", "five"]
    assert "ModuleNotFoundError" in told[0]
    assert "AttributeError" in told[1]
    assert "RuntimeError: out of order" in told[2]
    assert "another package offers the same name" in told[4]


async def test_an_installed_package_is_found_and_may_not_claim_what_is_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shouting_of_tests.py").write_text("class Shout:\n    async def run(self, attempt): ...\n")
    package = tmp_path / "shouting-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    offers = package / "entry_points.txt"
    monkeypatch.syspath_prepend(str(tmp_path))
    offers.write_text(f"[{ENTRY_POINTS}]\nshout = shouting_of_tests:Shout\n")
    async with open_handlers({}) as handlers:
        assert "shout" in handlers
    offers.write_text(f"[{ENTRY_POINTS}]\ndelay = shouting_of_tests:Shout\n")
    with pytest.raises(InvalidSettings, match="claims the task type `delay`"):
        async with open_handlers({}):
            pass
    offers.write_text(f"[{ENTRY_POINTS}]\nshout = shouting_of_tests:Missing\n")
    with pytest.raises(InvalidSettings, match="the handler `shout` of package `shouting`"):
        load_entry_points()
