from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.orchestrators.event_stream import EventStream


def read(*chunks: bytes) -> list[bytes]:
    stream = EventStream()
    return [event for chunk in chunks for event in stream.feed(chunk)]


def test_an_event_ends_with_an_empty_line() -> None:
    assert read(b"data: one\n", b"\ndata:two\n\n", b"data: unfinished\n") == [b"one", b"two"]


def test_every_kind_of_line_end_is_known() -> None:
    assert read(b"data: a\r\n\r\ndata: b\r\rdata: c\n\nx") == [b"a", b"b", b"c"]


def test_several_data_lines_are_one_event() -> None:
    assert read(b"data: a\ndata: b\n\n") == [b"a\nb"]


def test_comments_names_ids_and_events_without_data_are_read_over() -> None:
    assert read(b": keep-alive\n\nevent: x\nid: 3\nretry: 5\n\nevent: y\ndata: a\n\n") == [b"a"]


def test_a_byte_order_mark_is_read_over() -> None:
    assert read(b"\xef\xbb", b"\xbfdata: a\n\n") == [b"a"]


@settings(deadline=None)
@given(st.data())
def test_however_the_bytes_are_cut_the_events_are_the_same(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.text().map(lambda text: text.replace("\r", "").replace("\n", "")), max_size=8))
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    whole = b"".join(b"data: " + text.encode("utf-8", "replace") + end + end for text in texts) + b": the end\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    edges = [0, *cuts, len(whole)]
    chunks = [whole[start:stop] for start, stop in itertools.pairwise(edges)]
    assert read(*chunks) == [text.encode("utf-8", "replace") for text in texts]


def test_a_line_that_comes_byte_by_byte_costs_linear_time() -> None:
    """Searching the whole line again for each byte of 200,000 would take minutes."""
    stream = EventStream()
    for _ in range(200_000):
        stream.feed(b"x")
    assert stream.feed(b"\ndata: a\n\n") == [b"a"]
