from __future__ import annotations

import json
import socket
import urllib.request
from typing import Any

from tests.cli.processes import CommandLine, first_line


def verdicts(command: CommandLine, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = command("doctor", "--json", *arguments)
    told = done.json
    assert told["ok"] is (done.code == 0)
    assert all(check["advice"] for check in told["checks"] if check["verdict"] != "ok")
    return done.code, {check["name"]: check for check in told["checks"]}


def ports(grpc: int, http: int = 0) -> tuple[str, ...]:
    return "--set", f"grpc.port={grpc}", "--set", f"http.port={http}"


def test_a_good_setup_without_a_daemon_passes_and_nothing_is_left_behind(
    command: CommandLine, orchestrator: str
) -> None:
    code, found = verdicts(command, *ports(0), "--orchestrator", orchestrator)
    assert code == 0, found
    assert found["orchestrator default"]["verdict"] == "ok"
    assert "can be made" in found["data_dir"]["detail"]
    assert list(command.directory.iterdir()) == []


def test_a_running_daemon_is_recognised(command: CommandLine, daemon: Any) -> None:
    grpc, http = (int(daemon[name].rpartition(":")[2]) for name in ("grpc", "http"))
    flags = ("--grpc-port", str(grpc), "--http-port", str(http))
    code, found = verdicts(command, *flags, "--data-dir", f"{daemon['directory']}/var")
    assert code == 0, found
    assert "a daemon answers" in found["gRPC port"]["detail"]
    assert "says that it is ready" in found["HTTP port"]["detail"]
    assert "is held by process" in found["ledger"]["detail"]


def test_what_is_wrong_is_told_with_what_to_do(command: CommandLine) -> None:
    (command.directory / "file").write_text("")
    (command.directory / "ledger.db").write_text("This is a letter and no database.")
    secrets = command.directory / "secrets"
    secrets.mkdir(mode=0o755)
    (secrets / "key").write_text("open to all")
    (secrets / "key").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, found = verdicts(
            command,
            *ports(other.getsockname()[1]),
            *("--data-dir", "file"),
            *("--set", f"ledger.url=sqlite:///{command.directory}/ledger.db"),
            *("--set", "orchestrator.endpoints.0.url=http://127.0.0.1:9"),
            *("--set", "secrets.directory=secrets"),
            *("--set", "health.min_free_bytes=9000000000000000000"),
        )
    assert code == 1
    failed = {name for name, check in found.items() if check["verdict"] == "fail"}
    assert failed == {"gRPC port", "orchestrator default", "data_dir", "disk", "ledger", "records"}
    assert "is no daemon" in found["gRPC port"]["detail"]
    assert found["permissions"]["verdict"] == "warn"


def test_a_daemon_that_should_be_there_is_missed(command: CommandLine) -> None:
    code, found = verdicts(command, "--server", "127.0.0.1:9", *ports(0))
    assert code == 1
    assert "nothing answers at 127.0.0.1:9" in found["gRPC port"]["detail"]


def test_wrong_settings_end_the_examination(command: CommandLine) -> None:
    done = command("doctor", "--set", "grpc.port=none", "--set", "nix=1")
    assert done.code == 1
    assert done.out.count("✗ settings") == 2
    assert "2 of 2 checks failed" in done.err


def test_each_orchestrator_is_examined_by_itself_with_its_key_and_its_certificates(
    command: CommandLine, orchestrator: str
) -> None:
    key = command.directory / "key.pem"
    key.write_text("no key")
    key.chmod(0o644)
    endpoints = [
        {"name": "well", "group": "gpu", "url": orchestrator},
        {"name": "gone", "group": "gpu", "url": "http://127.0.0.1:9"},
        {"name": "sealed", "url": "https://127.0.0.1:9", "tls_ca_file": "nowhere.pem", "tls_key_file": str(key)},
    ]
    (command.directory / "s.json").write_text(json.dumps({"orchestrator": {"endpoints": endpoints}}))
    (command.directory / "s.json").chmod(0o600)
    code, found = verdicts(command, *ports(0), "--settings", "s.json")
    assert code == 1
    told = {name: check["verdict"] for name, check in found.items() if name.startswith("orchestrator")}
    assert told == {"orchestrator well": "ok", "orchestrator gone": "fail", "orchestrator sealed": "fail"}
    assert "`orchestrator.endpoints[sealed].tls_" in found["orchestrator sealed"]["detail"]
    assert "TLS key for orchestrator sealed" in found["permissions"]["detail"]


def test_a_refused_key_is_told_as_such(command: CommandLine) -> None:
    with command.started("simulate-orchestrator", "--json") as process:
        told = first_line(process)
        body = json.dumps({"api_key": "another"}).encode()
        request = urllib.request.Request(told["control"], body, method="PATCH")  # noqa: S310 -- our own address
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 -- as above
        url = ("--set", f"orchestrator.endpoints.0.url={told['url']}", "--set")
        code, found = verdicts(command, *ports(0), *url, "orchestrator.endpoints.0.protocol=openai")
    assert code == 1
    assert found["orchestrator default"]["advice"] == "set `orchestrator.endpoints[default].api_key`"
