from __future__ import annotations

import pytest

from runner.outgoing import MAX_RETRY_AFTER, retry_after_seconds

NOON = "Wed, 01 Jul 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("Wed, 01 Jul 2026 12:00:30 GMT", 30.0),
        ("Wed, 01 Jul 2026 11:00:00 GMT", 0.0),
        ("Fri, 01 Jan 9999 00:00:00 GMT", MAX_RETRY_AFTER),
        ("9" * 400, MAX_RETRY_AFTER),
        ("-5", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_beyond_reason(value: str, seconds: float | None) -> None:
    assert retry_after_seconds({"Retry-After": value, "Date": NOON}) == seconds


def test_a_date_is_compared_with_the_servers_own_clock() -> None:
    """Ours may be wrong by hours; the server's `Date` and its `Retry-After` are not."""
    asked = {"Retry-After": "Wed, 01 Jul 2026 12:00:30 GMT", "Date": "Wed, 01 Jul 2026 12:00:20 GMT"}
    assert retry_after_seconds(asked) == 10.0


def test_an_answer_without_it_asks_for_nothing() -> None:
    assert retry_after_seconds({}) is None
