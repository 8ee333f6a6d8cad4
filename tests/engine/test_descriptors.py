"""Descriptors are decoded once and remembered, within bounds; what is not about the descriptor is asked every time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from runner.core.alt import DescriptorLimits
from runner.core.errors import InvalidDescriptor, InvalidRequest
from runner.core.plan import Priority
from runner.engine.descriptors import Descriptors
from runner.engine.submission import Submission
from tests.engine.stage import Stage

pytestmark = pytest.mark.timeout(30)


def descriptor(title: str = "A job", **parameters: Any) -> bytes:
    task = {"id": "a", "description": "do it", "parameters": {"prompt": "Tell me", **parameters}}
    file = {"id": "alt", "version": "1.0", "created_at": "2026-01-05T08:00:00Z", "title": title, "tasks": [task]}
    return json.dumps(file).encode()


def remembering(size: int) -> Descriptors:
    return Descriptors(DescriptorLimits(), remembered_bytes=size)


def test_the_same_bytes_are_decoded_once_for_each_content_type() -> None:
    descriptors = remembering(100_000)
    first = descriptors.read(descriptor(), "")
    assert descriptors.read(descriptor(), "") is first
    assert descriptors.remembers(descriptor(), "")
    # What is JSON is YAML, too, and may mean something else there.
    assert not descriptors.remembers(descriptor(), "application/yaml")
    assert descriptors.read(descriptor(), "application/yaml") is not first


def test_the_least_recently_used_are_forgotten_and_the_bound_is_kept() -> None:
    size = len(descriptor("number 00"))
    descriptors = remembering(20 * size)
    files = [descriptor(f"number {number:02}") for number in range(25)]
    for file in files[:20]:
        descriptors.read(file, "")
    descriptors.read(files[0], "")
    for file in files[20:]:
        descriptors.read(file, "")
    remembered = [number for number, file in enumerate(files) if descriptors.remembers(file, "")]
    assert remembered == [0, *range(6, 25)]


def test_a_smaller_bound_holds_at_once() -> None:
    size = len(descriptor("number 00"))
    descriptors = remembering(100 * size)
    files = [descriptor(f"number {number:02}") for number in range(50)]
    for file in files:
        descriptors.read(file, "")
    descriptors.resize(20 * size)
    assert [descriptors.remembers(file, "") for file in files] == [False] * 30 + [True] * 20
    descriptors.resize(0)
    assert not any(descriptors.remembers(file, "") for file in files)


def test_what_is_large_is_not_remembered_at_the_cost_of_all_others() -> None:
    small, large = descriptor(), descriptor("large", text="x" * 10_000)
    descriptors = remembering(100_000)
    for file in (small, large):
        descriptors.read(file, "")
    assert descriptors.remembers(small, "")
    assert not descriptors.remembers(large, "")
    none = remembering(0)
    none.read(small, "")
    assert not none.remembers(small, "")


def test_what_grows_when_it_is_decoded_counts_as_large_as_it_is() -> None:
    """A YAML file of 7 KB whose aliases make 3.6 MB; and a content type of any length, which is remembered with it."""
    named, more = "z" * 4_000, ",".join(["*b"] * 900)
    head = 'id: a\nversion: "1.0"\ntitle: t\ncreated_at: 2026-01-05T08:00:00Z\n'
    task = f'tasks: [{{id: a, description: x, parameters: {{prompt: p, one: &b "{named}", more: [{more}]}}}}]\n'
    bomb = (head + task).encode()
    descriptors = remembering(1024 * 1024)
    assert len(descriptors.read(bomb, "").packed) > 3_000_000
    assert not descriptors.remembers(bomb, "")
    long = f"application/json; v={'1' * 100_000}"
    descriptors.read(descriptor(), long)
    assert not descriptors.remembers(descriptor(), long)


def test_what_is_wrong_is_told_every_time() -> None:
    descriptors = remembering(100_000)
    for _ in range(2):
        with pytest.raises(InvalidDescriptor, match="title"):
            descriptors.read(descriptor(title=""), "")


def test_threads_that_read_at_a_time_keep_the_bound() -> None:
    size = len(descriptor("number 00"))
    descriptors = remembering(20 * size)
    files = [descriptor(f"number {number % 40:02}") for number in range(800)]
    with ThreadPoolExecutor(8) as threads:
        titles = [read.plan.title for read in threads.map(lambda file: descriptors.read(file, ""), files)]
    assert titles == [f"number {number % 40:02}" for number in range(800)]
    assert sum(descriptors.remembers(file, "") for file in set(files)) == 20


async def test_inputs_are_asked_of_each_submission() -> None:
    file = descriptor(text="${inputs.subject}")
    stage = Stage()
    async with stage.engine() as engine:
        for _ in range(2):
            await engine.runner.submit(Submission(descriptor=file, inputs=b'{"subject": "bees"}'))
            with pytest.raises(InvalidRequest) as refused:
                await engine.runner.submit(Submission(descriptor=file))
            assert [finding.path for finding in refused.value.findings] == ["inputs.subject"]


async def test_what_a_submitter_overrides_holds_for_that_job_alone() -> None:
    file = descriptor()
    stage = Stage()
    async with stage.engine() as engine:
        urgent = await engine.runner.submit(
            Submission(descriptor=file, priority=Priority.CRITICAL, fail_fast=True, token_budget=9)
        )
        plain = await engine.runner.submit(Submission(descriptor=file))
        runs = [(await engine.runner.job_run(accepted.job.id))[1].plan for accepted in (urgent, plain)]
    assert [(plan.priority, plan.fail_fast, plan.token_budget) for plan in runs] == [
        (Priority.CRITICAL, True, 9),
        (Priority.MEDIUM, False, None),
    ]
    assert (urgent.job.priority, plain.job.priority) == (Priority.CRITICAL, Priority.MEDIUM)
    assert urgent.job.descriptor_sha256 == plain.job.descriptor_sha256
