from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.core.events import Usage
from runner.core.record import tokens_of
from runner.core.runs import AttemptRun
from runner.core.usage import usage_by

counts = st.integers(0, 10_000)
attempts = st.builds(
    AttemptRun,
    number=st.just(1),
    handler=st.just("orchestrator"),
    started_at=st.just(0),
    outcome=st.sampled_from(["succeeded", "failed", "timed_out", "parked"]),
    endpoint=st.sampled_from(["", "main", "spare"]),
    model=st.sampled_from(["", "small", "large"]),
    usage=st.none() | st.builds(Usage, counts, counts, counts, counts),
)


@given(st.lists(attempts))
def test_every_token_stands_in_one_row_and_the_dearest_row_is_first(told: list[AttemptRun]) -> None:
    rows = usage_by(told)
    assert len({(row.endpoint, row.model) for row in rows}) == len(rows)
    for name in Usage.__struct_fields__:
        assert sum(getattr(row, name) for row in rows) == sum(getattr(a.usage, name) for a in told if a.usage)
    assert [tokens_of(row) for row in rows] == sorted(map(tokens_of, rows), reverse=True)


def test_attempts_that_told_nothing_have_no_row() -> None:
    assert usage_by([AttemptRun(1, "http_request", 0, endpoint="main")]) == []
