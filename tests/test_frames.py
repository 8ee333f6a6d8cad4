"""The codec: what is encoded comes back, and frames cut and joined as bytes are the events cut and joined."""

from __future__ import annotations

import itertools

import pytest
from altrunner.v1 import event_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import frames
from runner.core.events import (
    Artifact,
    AttemptFailed,
    AttemptOutput,
    AttemptParked,
    AttemptProgressed,
    AttemptStarted,
    AttemptSucceeded,
    BodyStarted,
    ControlSucceeded,
    Event,
    Failure,
    FallbackKind,
    FallbackUsed,
    JobAccepted,
    JobCancelled,
    JobCancelling,
    JobEvent,
    JobFailed,
    JobPartiallySucceeded,
    JobPaused,
    JobReleased,
    JobResumed,
    JobStarted,
    JobSucceeded,
    Recorded,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskReused,
    TaskSignalled,
    TaskSkipped,
    TaskTimedOut,
    Usage,
    UsageAt,
    WaitReason,
)
from runner.core.findings import Finding
from runner.core.plan import Priority

texts = st.text(st.characters(codec="utf-8"), max_size=20)
counts = st.integers(0, 2**31 - 1)
numbers = st.integers(1, 2**31 - 1)
#: From 1677 to 2262, and to the microsecond.
instants = st.integers(-9_223_372_036_000_000, 9_223_372_036_000_000)
failures = st.builds(Failure, texts, texts, texts)
parts = st.builds(UsageAt, texts, texts, counts, counts, counts, counts)
usages = st.none() | st.builds(
    Usage, counts, counts, counts, counts, st.just(()) | st.lists(parts, max_size=3).map(tuple)
)
findings = st.builds(Finding, texts, texts, texts, texts, counts, counts)
artifacts = st.builds(
    Artifact,
    id=texts,
    name=texts,
    artifact_type=texts,
    task_id=texts,
    mime_type=texts,
    size_bytes=counts,
    sha256=texts,
    created_at=instants,
)
optional = st.none() | counts
EVENTS: dict[type[Event], st.SearchStrategy[Event]] = {
    JobAccepted: st.builds(
        JobAccepted, texts, counts, texts, st.sampled_from(Priority), st.lists(findings, max_size=3).map(tuple)
    ),
    JobStarted: st.builds(JobStarted, texts, counts),
    JobReleased: st.builds(JobReleased, texts, texts),
    JobCancelling: st.builds(JobCancelling, texts),
    JobPaused: st.builds(JobPaused),
    JobResumed: st.builds(JobResumed, st.booleans()),
    JobSucceeded: st.builds(JobSucceeded),
    JobPartiallySucceeded: st.builds(JobPartiallySucceeded, failures),
    JobFailed: st.builds(JobFailed, failures),
    JobCancelled: st.builds(JobCancelled, texts),
    AttemptStarted: st.builds(AttemptStarted, texts, numbers, texts),
    AttemptProgressed: st.builds(
        AttemptProgressed, texts, numbers, st.none() | st.floats(0, 1), optional, optional, texts
    ),
    AttemptOutput: st.builds(AttemptOutput, texts, numbers, counts, texts),
    AttemptSucceeded: st.builds(
        AttemptSucceeded,
        texts,
        attempt=numbers,
        output=st.binary(max_size=20),
        output_artifact_id=texts,
        artifacts=st.lists(artifacts, max_size=3).map(tuple),
        usage=usages,
        endpoint=texts,
        model=texts,
        variables=st.binary(max_size=20),
        fallback=st.none()
        | st.builds(
            FallbackUsed,
            kind=st.sampled_from(FallbackKind),
            position=numbers,
            instead_of=texts,
            failure=failures,
            age_seconds=st.floats(0, 1e9),
        ),
    ),
    AttemptFailed: st.builds(
        AttemptFailed,
        texts,
        attempt=numbers,
        failure=failures,
        retry_at=instants,
        endpoint=texts,
        model=texts,
        usage=usages,
    ),
    AttemptParked: st.builds(
        AttemptParked,
        texts,
        attempt=numbers,
        reason=st.sampled_from(WaitReason),
        until=instants,
        endpoint=texts,
        message=texts,
        usage=usages,
    ),
    TaskFailed: st.builds(
        TaskFailed, texts, attempt=counts, failure=failures, endpoint=texts, model=texts, usage=usages
    ),
    TaskTimedOut: st.builds(
        TaskTimedOut, texts, attempt=counts, failure=failures, endpoint=texts, model=texts, usage=usages
    ),
    TaskCancelled: st.builds(
        TaskCancelled, texts, attempt=counts, reason=texts, endpoint=texts, model=texts, usage=usages
    ),
    TaskSkipped: st.builds(TaskSkipped, texts, texts),
    TaskReused: st.builds(
        TaskReused,
        texts,
        output=st.binary(max_size=20),
        output_artifact_id=texts,
        artifacts=st.lists(artifacts, max_size=3).map(tuple),
        job_id=texts,
        variables=st.binary(max_size=20),
    ),
    BodyStarted: st.builds(
        BodyStarted,
        texts,
        body=texts,
        round=counts,
        task_count=counts,
        value=st.binary(max_size=20),
        name=texts,
        rounds=counts,
    ),
    ControlSucceeded: st.builds(ControlSucceeded, texts),
    TaskSignalled: st.builds(
        TaskSignalled, texts, approved=st.booleans(), comment=texts, sender=texts, data=st.binary(max_size=20)
    ),
}


@st.composite
def histories(draw: st.DrawFn) -> list[Recorded]:
    events = draw(st.lists(st.one_of(*EVENTS.values()), min_size=1, max_size=12))
    first = draw(st.integers(1, 2**40))
    return [Recorded(first + place, draw(instants), event) for place, event in enumerate(events)]


def cut(history: list[Recorded], places: list[int]) -> list[list[Recorded]]:
    """Neighbouring parts of a history, none empty."""
    bounds = sorted({0, len(history), *(place % len(history) for place in places)})
    return [history[start:end] for start, end in itertools.pairwise(bounds)]


def test_no_kind_of_event_is_left_out() -> None:
    assert EVENTS.keys() == {*JobEvent.__subclasses__(), *TaskEvent.__subclasses__()}
    assert len(EVENTS) == len(event_pb2.JobEvent.DESCRIPTOR.oneofs_by_name["event"].fields)


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_an_event_comes_back_as_it_was(kind: type[Event]) -> None:
    @settings(max_examples=15, deadline=None)
    @given(EVENTS[kind], st.integers(1, 2**62), instants)
    def comes_back(event: Event, sequence: int, time: int) -> None:
        recorded = Recorded(sequence, time, event)
        assert frames.decode([frames.encode([recorded])]) == [recorded]

    comes_back()


@settings(max_examples=30, deadline=None)
@given(histories())
def test_a_frame_knows_its_bounds_and_whether_the_job_ended(history: list[Recorded]) -> None:
    frame = frames.encode(history)
    ended = isinstance(history[-1].event, JobSucceeded | JobPartiallySucceeded | JobFailed | JobCancelled)
    assert (frame.first, frame.last, frame.terminal) == (history[0].sequence, history[-1].sequence, ended)
    assert frames.decode([frame]) == history


@settings(max_examples=30, deadline=None)
@given(histories(), st.lists(st.integers(0, 11)))
def test_joined_frames_are_the_bytes_of_one(history: list[Recorded], places: list[int]) -> None:
    parts = [frames.encode(part) for part in cut(history, places)]
    assert frames.join(parts) == frames.encode(history)
    assert frames.decode(parts) == history


@settings(max_examples=30, deadline=None)
@given(histories(), st.integers(-2, 11))
def test_a_trimmed_frame_is_the_slice_of_its_events(history: list[Recorded], place: int) -> None:
    after = history[0].sequence + min(place, len(history) - 2)
    rest = [entry for entry in history if entry.sequence > after]
    assert frames.trim(frames.encode(history), after=after) == frames.encode(rest)


def test_an_event_of_a_newer_version_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="event 7 is of a kind"):
        frames.decode_event(event_pb2.JobEvent(sequence=7))


@given(instants)
def test_an_instant_keeps_its_microseconds_on_the_wire(instant: int) -> None:
    assert frames.instant(frames.timestamp(instant)) == instant


def test_a_usage_of_a_version_that_told_no_places_is_all_of_the_place_that_its_event_names() -> None:
    """The bytes are such a version's: event 1, `task_failed`, with the four counts of its usage."""
    stored = bytes.fromhex("0801a2020d0a017432080801100218032005")
    event = frames.decode_event(event_pb2.JobEvent.FromString(stored)).event
    assert event == TaskFailed("t", attempt=0, failure=Failure("", ""), usage=Usage(1, 2, 3, 5))
