from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.quoting import quoted, unquoted
from runner.core.references import Scope, resolve, scan

TEXTS = st.text(alphabet="${}a.\"'`\\", max_size=30)
VALUES: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=10
)


def nothing(name: str) -> Any:
    raise KeyError(name)


@settings(max_examples=100)
@given(VALUES)
def test_what_is_quoted_holds_no_reference_and_comes_back_as_it_was(value: Any) -> None:
    held = quoted(value)
    assert list(scan(held)) == []
    assert resolve(held, Scope(output=nothing, inputs={}, job_id="j", secret=nothing)) == value
    assert unquoted(held) == value
