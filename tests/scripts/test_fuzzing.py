"""What `scripts/fuzz` finds can be found again."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from types import NoneType

import pytest

from runner.core.alt import DescriptorLimits, decode
from runner.core.errors import InvalidDescriptor
from runner.core.plan import Branch, Call, ForEach, ForRange, Plan, TaskPlan, While, every_task
from scripts.fuzzing.cases import load, save
from scripts.fuzzing.checks import Case
from scripts.fuzzing.flows import flow
from scripts.fuzzing.inputs import case
from scripts.fuzzing.running import play
from scripts.fuzzing.worker import Overtime, bounded_time
from tests.core.alt.descriptors import as_json

ROOT = Path(__file__).parents[2]


def test_an_input_is_made_of_its_seed_and_number_alone() -> None:
    assert [case(3, number) for number in range(50)] == [case(3, number) for number in range(50)]
    assert case(3, 1) != case(4, 1)


def test_control_flow_is_among_the_inputs_and_most_of_the_grammar_is_sound() -> None:
    plans = []
    for seed in range(100):
        with suppress(InvalidDescriptor):
            plans.append(decode(as_json(flow(Random(seed)))).plan)  # noqa: S311 -- not for secrets
    assert len(plans) > 90
    controls = {type(task.control) for plan in plans for task in every_task(plan)}
    assert controls == {NoneType, Branch, ForEach, ForRange, While, Call}
    assert any(plan.functions and plan.variables for plan in plans)


def test_a_job_that_stands_still_breaks_a_promise() -> None:
    told: list[str] = []
    waits_for_itself = TaskPlan(id="a", description="a", kind="delay", dependencies=("a",))
    plan = Plan(alt_id="a", dialect="tasks", version="1.0", title="t", tasks=(waits_for_itself,))
    play(plan, plan, lambda holds, promise: None if holds else told.append(promise))
    assert len(told) == 1
    assert "stands still" in told[0]


def test_a_case_is_kept_byte_for_byte_with_how_it_was_decoded(tmp_path: Path) -> None:
    kept = Case(b'\n\n{"a": "\xff\x00\n"}\n', "application/json", DescriptorLimits(max_depth=3))
    assert load(save(kept, "a\nreason", tmp_path)) == kept


def test_what_takes_too_long_is_stopped() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(Overtime), bounded_time(0.05):
        sum(number for number in itertools.count())
    signal.signal(signal.SIGVTALRM, before)


def test_a_run_and_a_replay_say_how_they_ended(tmp_path: Path) -> None:
    sound = save(Case(b"{}"), "why", tmp_path)
    for arguments, said in (
        (["--inputs", "20", "--jobs", "1"], "20 inputs"),
        (["--inputs", "20", "--jobs", "2", "--seed", "7"], "Every promise held."),
        (["--replay", str(sound)], "All promises hold: it was refused."),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "scripts.fuzzing", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert said in done.stdout + done.stderr
