from __future__ import annotations

from runner.handlers.trigger import PassOn
from runner.testing import FakeAttempt


async def test_a_trigger_passes_on_what_it_is_given() -> None:
    assert (await PassOn().run(FakeAttempt({"input": {"a": [1]}}))).output == {"a": [1]}
    assert PassOn().needs_slot is False
