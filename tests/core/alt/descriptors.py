"""Descriptors for the tests of this directory: written in any of the four formats."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import yaml

from runner.core.alt import Decoded, DescriptorLimits, decode
from runner.core.errors import InvalidDescriptor
from runner.core.findings import Finding
from runner.core.plan import Plan


def tasks_file(*tasks: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": "alt_1",
        "version": "1.0",
        "title": "A job",
        "created_at": "2025-04-26T19:32:00Z",
        "tasks": list(tasks) or [task("a")],
    } | fields


def task(name: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "description": f"Do {name}", "dependencies": list(dependencies)} | fields


def segments_file(*segments: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": "alt_2",
        "version": "1.0",
        "timestamp": "2025-04-26T19:32:00Z",
        "command": "Do it",
        "segments": list(segments) or [segment("a")],
    } | fields


def segment(name: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "task_type": "search", "content": f"Do {name}", "dependencies": list(dependencies)} | fields


def workflow_file(*nodes: Any, edges: list[Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "id": "alt_3",
        "version": "1.0",
        "name": "A workflow",
        "nodes": list(nodes) or [node("a")],
        "edges": edges or [],
    } | fields


def node(name: str, piece: str = "http_request", **fields: Any) -> dict[str, Any]:
    kind = "trigger" if piece.endswith("_trigger") else "action"
    return {"id": name, "type": kind, "piece_type": piece, "config": {}, "position": {"x": 1, "y": 2}} | fields


def edge(source: str, target: str, **fields: Any) -> dict[str, Any]:
    return {"id": f"{source}-{target}", "source_node_id": source, "target_node_id": target} | fields


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False).encode()


def as_msgpack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def as_toml(value: Any) -> bytes:
    """Without nulls, which TOML has not."""
    return "".join(f"{_toml(key)} = {_toml(item)}\n" for key, item in value.items() if item is not None).encode()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def plan_of(value: Any) -> Plan:
    return decode(as_json(value)).plan


def refused(data: Any, content_type: str = "", limits: DescriptorLimits | None = None) -> tuple[Finding, ...]:
    """The findings of a descriptor that must be refused."""
    data = data if isinstance(data, bytes) else as_json(data)
    try:
        decode(data, content_type=content_type, limits=limits or DescriptorLimits())
    except InvalidDescriptor as e:
        return e.findings
    raise AssertionError("it was accepted")


def reasons(data: Any, content_type: str = "", limits: DescriptorLimits | None = None) -> list[str]:
    return [finding.reason for finding in refused(data, content_type, limits)]


def said(decoded: Decoded) -> tuple[Plan, tuple[Finding, ...]]:
    """What a file says, in whatever format."""
    return decoded.plan, decoded.warnings
