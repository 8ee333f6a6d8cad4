from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.events import UsageAt
from runner.core.last import seal
from runner.core.record import FallbackRecord, LastRecord, UsageRecord, parse
from runner.reports.html import PageSettings, html
from runner.reports.markup import join, tag
from runner.reports.sketch import critical_path

#: All that may ever stand on the page.
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section"),
    *("div", "span", "p", "b", "h1", "h2", "small", "dl", "dt", "dd", "details", "summary", "pre", "code"),
    *("table", "tr", "th", "td", "a", "svg", "g", "rect", "circle", "line", "path", "text"),
}


class Page(HTMLParser):
    """What a browser would make of it: elements, their attributes, their text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def assert_harmless(page: Page) -> None:
    assert {name for name, _ in page.tags} <= TAGS
    for _, attributes in page.tags:
        assert not {key for key in attributes if key.startswith("on") or key in ("src", "srcdoc", "action")}
        assert (attributes.get("href") or "#").startswith("#"), "links lead within the page"
    assert not any(control in "".join(page.text) for control in "\x1b\x00\u202e")


def test_the_page_stands_on_its_own_and_what_an_ai_wrote_is_only_text(digest: LastRecord) -> None:
    page = Page(html(digest))
    assert_harmless(page)
    assert "<script>alert('x')</script>" in "".join(page.text)
    assert ("meta", {"http-equiv": "Content-Security-Policy"}) in [
        (name, {key: value for key, value in attributes.items() if key != "content"}) for name, attributes in page.tags
    ]
    assert "url(" not in html(digest)
    assert "@import" not in html(digest)


def test_it_tells_tasks_attempts_errors_outputs_and_artifacts(digest: LastRecord) -> None:
    text = "".join(Page(html(digest)).text)
    for told in (
        "Haftalık özet",
        "partially succeeded",
        "plan_week",
        "TIMED_OUT: no answer within 12 s",
        "parked",
        "2 attempts",
        "Acil olan tek şey",
        "metrics.png",
        "7,887",
        "fetch_tickets → triage → summarise_urgent → plan_week",
        "prefers-color-scheme: dark",
    ):
        assert told in text


def test_every_link_leads_to_a_task(digest: LastRecord) -> None:
    page = Page(html(digest))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {(attributes["href"] or "")[1:] for name, attributes in page.tags if name == "a"}
    assert links == ids
    assert len(ids) == len(digest.task_results)


def test_every_attempt_has_a_bar(digest: LastRecord) -> None:
    bars = [name for name, attributes in Page(html(digest)).tags if "bar" in (attributes.get("class") or "").split()]
    assert len(bars) == sum(len(task.attempts) for task in digest.task_results.values())


def test_failed_tasks_stand_open(digest: LastRecord) -> None:
    opened = [
        attributes["class"]
        for name, attributes in Page(html(digest)).tags
        if name == "details" and "open" in attributes
    ]
    assert opened == ["failed task", "timeout task"]


def test_a_large_record_is_summed_up_and_says_so(large: LastRecord) -> None:
    page = Page(html(large))
    text = "".join(page.text)
    assert "layer 2: 1,200 tasks" in text
    for setting in ("graph_tasks", "graph_edges", "timeline_tasks", "detailed_tasks"):
        assert setting in text
    assert sum(name == "details" for name, _ in page.tags) <= PageSettings().detailed_tasks + 1
    assert len(html(large)) < 1_000_000


def test_a_long_output_is_cut_and_says_so(digest: LastRecord) -> None:
    text = "".join(Page(html(digest, PageSettings(output_characters=100))).text)
    assert "more characters are in the record (setting output_characters)" in text


def test_a_record_with_nothing_in_it_still_makes_a_page(empty: LastRecord) -> None:
    assert_harmless(Page(html(empty)))


def test_a_record_of_an_older_runner_makes_a_page(digest: LastRecord) -> None:
    """Without attempts and all else that is ours; the bars are those of the tasks."""
    content: dict[str, Any] = msgspec.json.decode(seal(digest))
    for task in content["task_results"].values():
        for ours in ("attempts", "usage", "description", "task_type"):
            del task[ours]
    page = Page(html(parse(msgspec.json.encode(content))))
    assert_harmless(page)
    assert any("bar" in (attributes.get("class") or "").split() for _, attributes in page.tags)


@given(st.text(max_size=30), st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=2))
@settings(max_examples=30)
def test_no_text_of_a_record_becomes_markup(words: str, metadata: dict[str, str]) -> None:
    nasty = f"{words}\"'><script>x</script>&lt;"
    content = {
        "id": nasty,
        "execution_id": nasty,
        "alt_file_id": nasty,
        "title": nasty,
        "status": "failure",
        "success_rate": 0,
        "execution_time_ms": 1,
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T00:00:01Z",
        "persona": nasty,
        "tags": [nasty],
        "summary": nasty,
        "metadata": {nasty: metadata},
        "task_results": {
            nasty: {
                "task_id": nasty,
                "status": "failed",
                "error": nasty,
                "output": [nasty],
                "description": nasty,
                "task_type": nasty,
                "metadata": {nasty: nasty},
                "attempts": [{"started": "2026-01-01T00:00:00Z", "outcome": nasty, "endpoint": nasty, "error": nasty}],
            }
        },
        "execution_graph": {"nodes": [{"id": nasty, "task_id": nasty, "status": "failed"}], "edges": []},
    }
    assert_harmless(Page(html(parse(msgspec.json.encode(content)))))


def test_the_critical_path_is_what_the_end_waited_for(digest: LastRecord) -> None:
    assert critical_path(digest) == ["fetch_tickets", "triage", "summarise_urgent", "plan_week"]


def test_the_same_record_gives_the_same_page(digest: LastRecord) -> None:
    assert html(digest) == html(parse(seal(digest))).replace(_checksum_of(digest), "")


def _checksum_of(record: LastRecord) -> str:
    sealed = parse(seal(record)).checksum
    return str(tag("div", tag("dt", "checksum"), tag("dd", str(sealed))))


@pytest.mark.parametrize(
    ("element", "text"),
    [
        (tag("p", "<b>", None, tag("b", "&")), "<p>&lt;b&gt;<b>&amp;</b></p>"),
        (tag("p", title='"<', hidden=True, open=False), '<p title="&quot;&lt;" hidden="hidden"></p>'),
        (tag("p", class_="x", stroke_width=1.5), '<p class="x" stroke-width="1.5"></p>'),
        (tag("meta", name="a"), '<meta name="a">'),
        (join("a<", tag("i")), "a&lt;<i></i>"),
    ],
)
def test_markup_escapes_all_but_markup(element: str, text: str) -> None:
    assert element == text


#: Prompt, completion and sum. An endpoint that tells only the sum has not said that there was nothing of either.
_CELLS: Final = "".join('<td class="number">{}</td>' for _ in range(3))


def test_usage_has_a_table_by_endpoint_and_model(digest: LastRecord) -> None:
    row = UsageRecord(endpoint="main", model="m<1>", calls=3, prompt_tokens=900, completion_tokens=335)
    page = html(msgspec.structs.replace(digest, usage_by=(row,)))
    assert "AI usage" in page
    assert "m&lt;1&gt;" in page
    assert "1,235" in page
    assert _CELLS.format("900", "335", "1,235") in page
    sum_alone = msgspec.structs.replace(row, prompt_tokens=0, completion_tokens=0, total_tokens=206)
    assert _CELLS.format("–", "–", "206") in html(msgspec.structs.replace(digest, usage_by=(sum_alone,)))
    assert "AI usage" not in html(msgspec.structs.replace(digest, usage_by=()))


def test_what_an_attempt_consumed_elsewhere_is_told_beside_it(digest: LastRecord) -> None:
    task = digest.task_results["triage"]
    parts = tuple(UsageAt(f"e{number}", "m", 1, total_tokens=7 * number) for number in range(6))
    attempts = (*task.attempts[:-1], msgspec.structs.replace(task.attempts[-1], elsewhere=parts))
    results = digest.task_results | {"triage": msgspec.structs.replace(task, attempts=attempts)}
    text = "".join(Page(html(msgspec.structs.replace(digest, task_results=results))).text)
    assert "1 call, 14 tokens at e2 · m" in text
    assert "and 2 more places" in text
    assert "of the tokens and calls" not in "".join(Page(html(digest)).text)


def test_what_stood_in_for_a_first_choice_is_told_in_its_card(digest: LastRecord) -> None:
    task = digest.task_results["triage"]
    used = FallbackRecord(kind="value", instead_of="a", reason="BREAKER_OPEN: `a` is open")
    attempts = (*task.attempts[:-1], msgspec.structs.replace(task.attempts[-1], fallback=used))
    results = digest.task_results | {"triage": msgspec.structs.replace(task, attempts=attempts)}
    text = "".join(Page(html(msgspec.structs.replace(digest, task_results=results))).text)
    assert "the value that the task gives stood in for a: BREAKER_OPEN: `a` is open" in text
