from __future__ import annotations

import json
import string
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.errors import InvalidRequest
from runner.core.events import JobState
from runner.core.filters import (
    ANY,
    MAX_DEPTH,
    MAX_LENGTH,
    And,
    Comparison,
    Filter,
    Not,
    Or,
    matches,
    page_token,
    parse_filter,
    parse_order,
    parse_page_token,
)
from runner.core.findings import Finding
from runner.core.job import JobSummary
from runner.core.plan import Priority

JOB = JobSummary(
    id="j1",
    alt_id="alt_0042",
    title="Haftalık Özet: weekly Digest",
    state=JobState.RUNNING,
    priority=Priority.HIGH,
    queue="default",
    labels={"team": "blue", "app.kubernetes.io/name": "mail", "odd key": "x"},
    request_id="",
    created_at=1_767_225_600_000_000,  # 2026-01-01T00:00:00Z
    started_at=None,
    ended_at=None,
    not_before=None,
    deadline=None,
    progress=0.0,
    last_sequence=3,
    error=None,
    cancel_requested=False,
    task_count=1,
    descriptor_sha256="",
)


def meets(text: str, **changes: object) -> bool:
    found = parse_filter(text)
    return found is None or matches(found, msgspec.structs.replace(JOB, **changes))


def refused(text: str) -> Finding:
    with pytest.raises(InvalidRequest) as caught:
        parse_filter(text)
    (finding,) = caught.value.findings
    assert (finding.reason, finding.path) == ("BAD_FILTER", "filter")
    assert f"at column {finding.column}" in finding.message
    return finding


def state(name: str) -> Comparison:
    return Comparison("state", "", "=", JobState[name])


def title(word: str) -> Comparison:
    return Comparison("title", "", ":", word)


# ----------------------------------------------------------------------------------------------------------- grammar


@pytest.mark.parametrize("keyword", ["and", "Or", "not"])
def test_a_keyword_in_small_letters_is_not_looked_for_in_titles_in_silence(keyword: str) -> None:
    finding = refused(f"state = FAILED {keyword} queue = slow")
    assert (finding.suggestion, finding.column) == (keyword.upper(), 16)
    assert parse_filter(f'"{keyword}"') == title(keyword)


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_a_blank_filter_is_none(blank: str) -> None:
    assert parse_filter(blank) is None


def test_the_example_of_the_contract_is_read() -> None:
    assert parse_filter('state = RUNNING AND labels.team = "blue" AND create_time > "2026-01-01T00:00:00Z"') == And(
        (
            state("RUNNING"),
            Comparison("labels", "team", "=", "blue"),
            Comparison("created_at", "", ">", 1_767_225_600_000_000),
        )
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", And((title("a"), title("b")))),
        ("a AND b c", And((title("a"), title("b"), title("c")))),
        ("a b OR c d", And((title("a"), Or((title("b"), title("c"))), title("d")))),
        ("a AND b OR c", And((title("a"), Or((title("b"), title("c")))))),
        ("(a AND b) OR c", Or((And((title("a"), title("b"))), title("c")))),
        ("NOT a OR b", Or((Not(title("a")), title("b")))),
        ("-a b", And((Not(title("a")), title("b")))),
        ("NOT (a OR -b)", Not(Or((title("a"), Not(title("b")))))),
        ("-state=running", Not(state("RUNNING"))),
        ("ANDROID NOTE ORDER", And((title("ANDROID"), title("NOTE"), title("ORDER")))),
    ],
)
def test_or_binds_tighter_than_and_and_neighbours_are_joined_by_and(text: str, expected: Filter) -> None:
    assert parse_filter(text) == expected


@pytest.mark.parametrize("text", ["state = RUNNING", "state=running", "state:Running", "state = JOB_STATE_RUNNING"])
def test_states_are_read_in_any_case_with_or_without_prefix(text: str) -> None:
    assert parse_filter(text) == state("RUNNING")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'title = "a \"b\" \\ \u00e9\n"', 'a "b" \\ é\n'),
        (r"title = 'it\'s (AND) = : '", "it's (AND) = : "),
        ("title = çay", "çay"),
        ("title = a-b.c:d,e/f", "a-b.c:d,e/f"),
        ('title = ""', ""),
    ],
)
def test_values_are_quoted_or_bare(text: str, value: str) -> None:
    assert parse_filter(text) == Comparison("title", "", "=", value)


@pytest.mark.parametrize(
    "text", ["create_time >= 2026-01-01T00:00:00Z", 'create_time >= "2026-01-01T02:00:00.000000+02:00"']
)
def test_times_become_instants_whatever_their_zone(text: str) -> None:
    assert parse_filter(text) == Comparison("created_at", "", ">=", 1_767_225_600_000_000)


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "column", "suggestion"),
    [
        ("stat = RUNNING", 1, "state"),
        ("queue = a AND label.team = b", 15, "labels.KEY"),
        ("state = RUNING", 9, "RUNNING"),
        ("priority = hihg", 12, "HIGH"),
        ("state", 6, ""),
        ("state <= RUNNING", 1, ""),
        ("title > a", 1, ""),
        ("state = ", 9, ""),
        ("state == RUNNING", 8, ""),
        ("state = (a OR b)", 9, ""),
        ("state:*", 7, ""),
        ("(a", 1, ""),
        ("a)", 2, ""),
        ("a AND", 6, ""),
        ("OR a", 1, ""),
        ("a OR OR b", 6, ""),
        ('title = "open', 9, ""),
        (r'title = "\q"', 9, ""),
        (r'title = "\u0000"', 9, ""),
        (r'title = "\ud800"', 9, ""),
        ("title = a\0b", 10, ""),
        ('title = a"b"', 10, ""),
        ("labels = a", 1, ""),
        ("labels. = a", 1, ""),
        ("create_time > yesterday", 15, ""),
        ("create_time > 2026-01-01", 15, ""),
        ("create_time > 2026-01-01T00:00:00", 15, ""),
        ("create_time:*", 1, ""),
        ("!a", 1, ""),
    ],
)
def test_a_mistake_is_told_with_its_column_and_what_was_probably_meant(text: str, column: int, suggestion: str) -> None:
    finding = refused(text)
    assert (finding.column, finding.suggestion) == (column, suggestion)


def test_length_and_depth_are_bounded() -> None:
    assert parse_filter("a" * MAX_LENGTH)
    assert refused("a" * (MAX_LENGTH + 1)).column == MAX_LENGTH + 1
    assert parse_filter("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH) == title("a")
    assert refused("(" * 1000).column == MAX_DEPTH + 2
    assert refused("-" * 1000).column == MAX_DEPTH + 2


@given(
    st.text(st.characters() | st.sampled_from("()\"'=<>!:-* \\"), max_size=60) | st.text("()-\"' aORNTD=:", max_size=60)
)
def test_any_text_is_read_or_refused_with_a_finding(text: str) -> None:
    columns: list[int] = []
    try:
        meets(text)
    except InvalidRequest as error:
        columns = [finding.column for finding in error.findings]
    assert all(1 <= column <= len(text) + 1 for column in columns)


# ---------------------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize(
    "text",
    [
        "priority >= high",
        "priority = HIGH",
        "title : digest",
        "title : 'weekly d'",
        "WEEKLY",
        'title = "Haftalık Özet: weekly Digest"',
        "labels.team : *",
        "labels.team : BLU",
        "labels.team != red",
        "labels.absent != red",
        "-labels.absent : *",
        "labels.app.kubernetes.io/name = mail",
        'labels."odd key" = x',
        "title : *",
        'request_id = ""',
        "-end_time : *",
        "end_time != 2026-01-01T00:00:00Z",
        "create_time = 2026-01-01T00:00:00Z",
        "create_time < 2026-01-01T00:00:00.000001Z",
    ],
)
def test_a_job_that_meets_a_filter_matches(text: str) -> None:
    assert meets(text)


@pytest.mark.parametrize(
    "text",
    [
        "priority > high",
        "state = QUEUED",
        "title = digest",
        "ÖZET2",
        "labels.absent : *",
        "labels.absent = red",
        "labels.TEAM = blue",
        "request_id : *",
        "end_time : *",
        "end_time < 2100-01-01T00:00:00Z",
        "create_time > 2026-01-01T00:00:00Z",
    ],
)
def test_a_job_that_does_not_does_not(text: str) -> None:
    assert not meets(text)


def test_an_ended_job_has_an_end_time() -> None:
    assert meets("end_time : * AND end_time < 2026-01-02T00:00:00Z", ended_at=JOB.created_at + 1)


words = st.text(string.ascii_letters + "çğıöşü ()\"'\\:=-*", min_size=1, max_size=8)
leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Comparison, st.just("title"), st.just(""), st.sampled_from(["=", "!=", ":"]), words.filter(ANY.__ne__)),
    st.builds(Comparison, st.just("labels"), words, st.sampled_from(["=", "!=", ":"]), words),
    st.builds(Comparison, st.just("state"), st.just(""), st.sampled_from(["=", "!="]), st.sampled_from(JobState)),
    st.builds(
        Comparison,
        st.just("created_at"),
        st.just(""),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.integers(0, 10**10).map(lambda second: second * 1_000_000),
    ),
)
filters = st.recursive(
    leaves,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(lambda *some: And(some), inner, inner)
        | st.builds(lambda *some: Or(some), inner, inner)
    ),
    max_leaves=8,
)


def write(found: Filter) -> str:  # noqa: PLR0911 -- one return for each shape
    """A filter as text; parentheses everywhere, so that it does not lean on precedence."""
    match found:
        case Comparison("labels", key, sign, value):
            return f"labels.{json.dumps(key)} {sign} {json.dumps(value)}"
        case Comparison("created_at", _, sign, int(value)):
            return f'create_time {sign} "{datetime.fromtimestamp(value // 1_000_000, UTC).isoformat()}"'
        case Comparison("state", _, sign, value):
            return f"state {sign} {JobState(int(value)).name.lower()}"
        case Comparison(field, _, sign, value):
            return f"{field} {sign} {json.dumps(value)}"
        case Not(operand):
            return f"NOT ({write(operand)})"
        case And(operands):
            return " AND ".join(f"({write(operand)})" for operand in operands)
        case Or(operands):
            return " OR ".join(f"({write(operand)})" for operand in operands)


@given(filters)
def test_a_filter_written_out_is_read_back(found: Filter) -> None:
    assert parse_filter(write(found)) == found


@given(filters, st.sampled_from(JobState), words)
def test_not_is_the_opposite_and_spelling_does_not_matter(found: Filter, some: JobState, label: str) -> None:
    job = msgspec.structs.replace(JOB, state=some, labels={label: label})
    assert matches(Not(found), job) is not matches(found, job)
    assert meets(write(found), state=some, labels={label: label}) is matches(found, job)


# ------------------------------------------------------------------------------------------------- order, page tokens


@pytest.mark.parametrize(
    ("text", "ascending"),
    [("", False), ("create_time desc", False), (" create_time  asc", True), ("create_time", True)],
)
def test_jobs_are_ordered_by_acceptance_newest_first_by_default(text: str, *, ascending: bool) -> None:
    assert parse_order(text) is ascending


def test_no_other_order_is_offered() -> None:
    with pytest.raises(InvalidRequest, match=r"order_by: cannot order by `title`.*create_time"):
        parse_order("title")


@given(st.integers(-(2**63), 2**63 - 1), st.text(string.ascii_letters + "-çş", max_size=40), words)
def test_a_page_token_leads_back_to_its_place_under_the_same_filter_and_order(at: int, job: str, text: str) -> None:
    token = page_token((at, job), filter_text=text, order_text="")
    assert token.isascii()
    assert "=" not in token
    assert parse_page_token(token, filter_text=f" {text} ", order_text="create_time desc") == (at, job)
    for other, order in ((text + "x", ""), (text, "create_time")):
        with pytest.raises(InvalidRequest, match=r"page_token: .*another filter or order"):
            parse_page_token(token, filter_text=other, order_text=order)


def test_an_empty_token_is_the_first_page() -> None:
    assert parse_page_token("", filter_text="", order_text="") is None


@given(st.text(max_size=40).filter(bool))
def test_a_token_that_we_never_made_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token: "):
        parse_page_token(token, filter_text="", order_text="")
