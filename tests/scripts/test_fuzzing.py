"""What `scripts/fuzz` finds can be found again."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.core.alt import DescriptorLimits
from scripts.fuzzing.cases import load, save
from scripts.fuzzing.checks import Case
from scripts.fuzzing.inputs import case
from scripts.fuzzing.worker import Overtime, bounded_time

ROOT = Path(__file__).parents[2]


def test_an_input_is_made_of_its_seed_and_number_alone() -> None:
    assert [case(3, number) for number in range(50)] == [case(3, number) for number in range(50)]
    assert case(3, 1) != case(4, 1)


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
        (["--count", "20", "--jobs", "1"], "20 inputs"),
        (["--replay", str(sound)], "All promises hold: it was refused."),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "scripts.fuzzing", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert said in done.stdout + done.stderr
