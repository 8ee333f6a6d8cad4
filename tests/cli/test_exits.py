from __future__ import annotations

import inspect

import grpc
import pytest

from runner.cli.exits import MEANINGS, OF_STATE, Exit, Unusable, exit_of, worst
from runner.client import CallRefused, Unreachable
from runner.core import errors
from runner.core.events import JobState
from runner.core.findings import Finding


def test_every_way_to_end_has_a_meaning_in_the_help() -> None:
    assert set(MEANINGS) == set(Exit) - {Exit.BROKEN_PIPE}


def test_every_end_of_a_job_has_an_exit_code_of_its_own() -> None:
    assert set(OF_STATE) == {state for state in JobState if state.terminal}
    assert len(set(OF_STATE.values())) == len(OF_STATE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidDescriptor([Finding("CYCLE", "", "a → a")]), Exit.REJECTED),
        (errors.InvalidRequest(Finding("BAD", "queue", "no")), Exit.REJECTED),
        (errors.InvalidRecord("no"), Exit.REJECTED),
        (errors.RequestIdReused("r", "j"), Exit.REJECTED),
        (errors.JobNotFound("j"), Exit.NOT_FOUND),
        (errors.RecordNotFound("j"), Exit.NOT_FOUND),
        (errors.QueueFull("q", 1, 1.0), Exit.TRY_LATER),
        (errors.InvalidSettings(["no"]), Exit.USAGE),
        (Unusable("no"), Exit.USAGE),
        (errors.LedgerHeld("no"), Exit.ERROR),
        (Unreachable("h:1", "no"), Exit.UNREACHABLE),
        (CallRefused(grpc.StatusCode.RESOURCE_EXHAUSTED, "full"), Exit.TRY_LATER),
        (CallRefused(grpc.StatusCode.ALREADY_EXISTS, "reused"), Exit.REJECTED),
        (CallRefused(grpc.StatusCode.UNAVAILABLE, "draining"), Exit.UNREACHABLE),
        (CallRefused(grpc.StatusCode.INTERNAL, "defect"), Exit.ERROR),
    ],
)
def test_an_error_has_one_exit_code(error: errors.RunnerError, code: Exit) -> None:
    assert exit_of(error) is code


def test_no_error_of_the_tree_is_without_an_exit_code() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.RunnerError)]
    assert all(isinstance(exit_of(kind.__new__(kind)), Exit) for kind in kinds)


def test_the_worst_of_several_ends_counts() -> None:
    assert worst([]) is Exit.OK
    assert worst([Exit.OK, Exit.CANCELLED, Exit.FAILED, Exit.PARTIALLY_SUCCEEDED]) is Exit.FAILED
    assert worst([Exit.FAILED, Exit.UNREACHABLE]) is Exit.UNREACHABLE
