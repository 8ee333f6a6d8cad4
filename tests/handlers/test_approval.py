from __future__ import annotations

import pytest

from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.job import Signal
from runner.handlers.approval import Approval
from runner.testing import FakeAttempt


async def test_without_an_answer_it_waits_for_what_is_left_of_its_time() -> None:
    attempt = FakeAttempt({"deadline_seconds": 60}, description="Ship it?", waited=20.0)
    attempt.began = 1_000_000
    with pytest.raises(AttemptPutOff, match="Ship it") as caught:
        await Approval().run(attempt)
    assert caught.value.until == 41_000_000


@pytest.mark.parametrize("parameters", [{"default": "maybe"}, {"deadline_seconds": 0}, {"on_reject": 1}])
async def test_wrong_parameters_are_told_by_name(parameters: dict[str, object]) -> None:
    with pytest.raises(AttemptError, match=f"parameter `{next(iter(parameters))}`"):
        await Approval().run(FakeAttempt(parameters))


async def test_an_answer_is_its_output() -> None:
    outcome = await Approval().run(FakeAttempt(signal=Signal("task-1", True, "ok", "a", b"[1]")))
    assert outcome.output == {"approved": True, "by": "a", "comment": "ok", "data": [1]}
