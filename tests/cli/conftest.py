"""The real command line against a real daemon and a simulated orchestrator."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import CommandLine, Write, first_line


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    """The command line, and no daemon."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def orchestrator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a simulated orchestrator."""
    directory = tmp_path_factory.mktemp("orchestrator")
    with CommandLine(directory).started("simulate-orchestrator", "--json", "--answer-tokens", "40") as process:
        yield first_line(process)["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory, orchestrator: str) -> Iterator[Any]:
    """What a daemon printed when it was ready, and its directory."""
    directory = tmp_path_factory.mktemp("daemon")
    flags = ("--json", "--data-dir", "var", "--grpc-port", "0", "--http-port", "0", "--log-level", "error")
    openai = ("--set", "orchestrator.endpoints.0.protocol=openai", "--set", "orchestrator.endpoints.0.model=m")
    with CommandLine(directory).started("serve", *flags, "--orchestrator", orchestrator, *openai) as process:
        yield {**first_line(process), "directory": str(directory)}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.fixture
def alt(daemon: Any, tmp_path: Path) -> CommandLine:
    """The command line with RUNNER_ADDRESS set to a running daemon."""
    return CommandLine(tmp_path, daemon["grpc"])


@pytest.fixture
def descriptor(tmp_path: Path) -> Write:
    """Write a descriptor from its tasks, `id=parameters`."""

    def write(
        name: str = "job.alt", *, title: str = "A job", after: Mapping[str, list[str]] | None = None, **tasks: Any
    ) -> Path:
        rows = [
            {"id": task, "description": task, "parameters": parameters, "dependencies": (after or {}).get(task, [])}
            for task, parameters in tasks.items()
        ]
        content = {"id": "a", "version": "1.0", "created_at": "2026-01-05T08:00:00Z", "title": title, "tasks": rows}
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write
