from __future__ import annotations

import json
from pathlib import Path

from runner.cli.exits import Exit
from tests.cli.processes import CommandLine, Write

EXAMPLES = Path(__file__).parents[2] / "examples"
WRONG = b'{"id": "x", "version": "1", "created_at": "2026-01-05T08:00:00Z", "title": "x", "tasks": [{"id": "a"}]}'


def test_a_plan_is_drawn_in_layers(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="İş", after={"c": ["a", "b"]}, a={"prompt": "x"}, b={"url": "http://x"}, c={})
    done = command.process("graph", file)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "İş: 3 tasks in 2 layers, up to 2 at once",
        "1  ┌  a  ai_prompt",
        "   └  b  http_request",
        "2  ─  c  ai_prompt     after a, b",
    ]
    assert command("graph", "-", "--text", stdin=file.read_bytes()).out == done.out
    again = command("graph", file, file)
    assert again.out == f"{done.out}\n{done.out}"


def test_it_is_drawn_for_graphviz_and_as_a_picture_too(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(after={"b": ["a"]}, a={"prompt": "x"}, b={"prompt": "y"})
    done = command("graph", file, "--dot")
    assert done.out.startswith("digraph ")
    assert '"a" -> "b"' in done.out
    assert command("graph", file, "--svg").out.startswith("<svg ")
    written = command("graph", file, "--svg", "-o", "plan.svg")
    assert (written.code, written.out, written.err) == (0, "", "wrote plan.svg\n")
    assert (command.directory / "plan.svg").read_text() == command("graph", file, "--svg", "-o", "-").out
    few = command("graph", file, "--svg", "--tasks", "1")
    assert "layer 2: 1 task" in few.out
    assert few.err == "2 tasks and 1 dependency are drawn as layers; to draw them one by one: --tasks 2\n"
    assert command("graph", file, "-o", "plan.txt").code == 0
    assert (command.directory / "plan.txt").read_text() == command("graph", file).out


def test_a_wrong_descriptor_is_told_about_as_validate_does(command: CommandLine, descriptor: Write) -> None:
    validated = command("validate", "-", stdin=WRONG)
    for form in ("--text", "--dot", "--svg"):
        done = command("graph", "-", form, stdin=WRONG)
        assert (done.code, done.out, done.err) == (Exit.REJECTED, "", validated.out)
    good = descriptor(a={"prompt": "x"}, title="Good")
    both = command("graph", "-", good, stdin=WRONG)
    assert both.code == Exit.REJECTED
    assert both.out.startswith("Good: 1 task in 1 layer\n")


def test_with_json_there_are_nodes_edges_and_layers(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(after={"b": ["a"]}, a={"prompt": "x"}, b={"task_type": "delay"})
    told = command("graph", "--json", file, "-", stdin=WRONG).lines
    assert told[0]["nodes"] == [
        {"id": "a", "kind": "ai_prompt", "description": "a", "layer": 1},
        {"id": "b", "kind": "delay", "description": "b", "layer": 2},
    ]
    assert told[0]["edges"] == [{"source": "a", "target": "b"}]
    assert told[0]["layers"] == [["a"], ["b"]]
    assert told[1] == command("validate", "--json", "-", stdin=WRONG).json


def test_names_do_not_steer_the_terminal(command: CommandLine) -> None:
    name = "a\x1b[2J\n\u202eb"
    tasks = [{"id": name, "description": "x"}, {"id": "b", "description": name, "dependencies": [name]}]
    file = {"id": "a", "version": "1.0", "created_at": "2026-01-05T08:00:00Z", "title": name, "tasks": tasks}
    for form in ("--text", "--dot", "--svg"):
        done = command("graph", "-", form, stdin=json.dumps(file).encode())
        assert done.code == 0
        assert not {"\x1b", "\u202e"} & set(done.out + done.err), form


def test_forms_that_exclude_each_other_are_refused(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(a={"prompt": "x"})
    for arguments in (("--dot", "--svg"), ("--json", "--dot"), ("--svg", file), ("-o", "/nowhere/x")):
        done = command("graph", file, *arguments)
        assert (done.code, done.out) == (Exit.USAGE, "")
    assert command("graph", "none.alt").code == Exit.NOT_FOUND


def test_control_flow_is_drawn_in_every_form(command: CommandLine) -> None:
    file = EXAMPLES / "triage.alt.yaml"
    shown = command("graph", file).out
    assert "for each ticket in ${tasks.fetch.output}, 2 at once" in shown
    assert "while attempts < 3" in shown
    assert "score(severity, customers)" in shown
    assert 'subgraph "cluster_urgent"' in command("graph", file, "--dot").out
    assert "box frame" in command("graph", file, "--svg").out
    few = command("graph", file, "--svg", "--tasks", "10")
    assert "without what is inside of some; to draw them one by one: --tasks 13" in few.err
    told = command("graph", file, "--json").json
    nodes = {node["id"]: node for node in told["nodes"]}
    assert list(nodes)[:5] == ["fetch", "each_ticket", "ask_again", "days", "report"]
    assert len(nodes) == 12
    assert (nodes["rate"]["body_of"], nodes["rate"]["body"], nodes["rate"]["calls"]) == (
        "each_ticket",
        "round",
        "score",
    )
    assert (nodes["file_away"]["body_of"], nodes["file_away"]["body"]) == ("urgent", "else")
    assert (nodes["weigh"]["function"], nodes["weigh"]["body"]) == ("score", "call")
    assert nodes["urgent"]["layer"] == 2
    assert {"source": "rate", "target": "urgent"} in told["edges"]
    assert told["layers"] == [["fetch", "ask_again", "days"], ["each_ticket"], ["report"]]
