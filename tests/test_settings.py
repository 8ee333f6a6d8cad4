"""Settings: which source wins, what is refused, what is shown, what may be reloaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runner.core.errors import InvalidSettings
from runner.core.secret import Secret
from runner.engine.settings import queue_limits
from runner.ports import Secrets
from runner.settings import (
    LEGACY_VARIABLES,
    RELOADABLE,
    Profile,
    Settings,
    SettingsSecrets,
    describe,
    entries,
    known_secrets,
    load,
    reload,
)
from runner.sources import known_paths, type_at

ROOT = Path(__file__).parents[1]
HIDDEN = "corn-flakes-at-dawn"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "alt-runner.toml"
    path.write_text("[grpc]\nport = 1001\nhost = '127.0.0.2'\nheartbeat_seconds = 3\n", encoding="utf-8")
    return path


def problems(**given: object) -> list[str]:
    arguments: dict[str, object] = {"environ": {}, **given}
    with pytest.raises(InvalidSettings) as caught:
        load(**arguments)  # type: ignore[arg-type]
    return list(caught.value.problems)


def test_defaults_hold_where_nothing_is_said() -> None:
    settings = load(environ={})
    assert settings.grpc.port == 50051
    assert settings.grpc.host == settings.http.host == "127.0.0.1"
    assert settings.profile is Profile.DEV
    assert settings.ledger_url == "sqlite:///var/ledger.db"
    assert settings.record_directory == Path("var/last")


def test_a_flag_goes_over_the_environment_over_the_file_over_the_profile_over_the_default(file: Path) -> None:
    environ = {"RUNNER_GRPC__PORT": "1002", "RUNNER_GRPC__HEARTBEAT_SECONDS": "4"}
    settings = load(file, environ, {"grpc.port": 1003}, "prod")
    assert settings.grpc.port == 1003
    assert settings.grpc.heartbeat_seconds == 4.0
    assert settings.grpc.host == "127.0.0.2"
    assert settings.data_dir == "/var/lib/alt-runner"
    assert settings.engine.poll_seconds == 1.0
    sources = {entry.name: entry.source for entry in entries(settings)}
    assert sources["grpc.port"] == "flag grpc.port"
    assert sources["grpc.heartbeat_seconds"] == "RUNNER_GRPC__HEARTBEAT_SECONDS"
    assert sources["grpc.host"] == str(file)
    assert sources["data_dir"] == "profile prod"
    assert sources["engine.poll_seconds"] == "default"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", "[queues.mail]\nconcurrency = 2\n[log]\nlevel = 'debug'"),
        ("a.yaml", "queues: {mail: {concurrency: 2}}\nlog: {level: debug}"),
        ("a.json", '{"queues": {"mail": {"concurrency": 2}}, "log": {"level": "debug"}}'),
    ],
)
def test_a_file_may_be_toml_yaml_or_json(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    settings = load(path, {})
    assert settings.queues["mail"].concurrency == 2
    assert settings.log.level == "debug"


def test_the_file_and_the_profile_may_be_named_in_the_environment(file: Path) -> None:
    settings = load(environ={"RUNNER_SETTINGS": str(file), "RUNNER_PROFILE": "prod"})
    assert settings.grpc.port == 1001
    assert settings.profile is Profile.PROD
    assert settings.log.format == "json"


def test_a_file_may_name_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("profile: prod", encoding="utf-8")
    assert load(path, {}).data_dir == "/var/lib/alt-runner"
    assert load(path, {}, profile="dev").data_dir == "var"


def test_the_names_of_the_service_before_keep_working() -> None:
    settings = load(
        environ={
            "RUNNER_LOG_LEVEL": "WARN",
            "RUNNER_MAX_CONCURRENT_TASKS": "7",
            "RUNNER_OUTPUT_DIR": "/srv/last",
            "RUNNER_AI_SERVICE_URL": "http://127.0.0.1:9999",
            "RUNNER_AI_API_KEY": HIDDEN,
            "RUNNER_AI_TIMEOUT_SECONDS": "12",
            "RUNNER_AI_MAX_RETRIES": "3",
            "RUNNER_AI_DEFAULT_MODEL": "small",
        }
    )
    [endpoint] = settings.orchestrator.endpoints
    assert (endpoint.url, endpoint.model, endpoint.timeout_seconds) == ("http://127.0.0.1:9999", "small", 12.0)
    assert endpoint.api_key.reveal() == HIDDEN
    assert settings.log.level == "warning"
    assert settings.engine.max_concurrent_tasks == 7
    assert settings.engine.default_retries == 3
    assert settings.record_directory == Path("/srv/last")


def test_our_own_name_of_a_setting_goes_over_the_old_one() -> None:
    settings = load(environ={"RUNNER_LOG_LEVEL": "error", "RUNNER_LOG__LEVEL": "debug"})
    assert settings.log.level == "debug"


def test_every_old_name_and_every_reloadable_key_is_a_setting() -> None:
    for name in [*LEGACY_VARIABLES.values(), *RELOADABLE]:
        assert type_at(Settings, name.split(".")) is not None, name


def test_all_mistakes_of_all_sources_are_told_at_once_with_their_sources(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(
        "data_dirr = 'x'\n[grpc]\nport = 'many'\nprot = 1\n[log]\nlevel = 'loud'\n"
        "[[orchestrator.endpoints]]\nname = 'a'\n",
        encoding="utf-8",
    )
    environ = {
        "RUNNER_HTTP__PORT": "99999",
        "RUNNER_GRPC_PORT": "1",
        "RUNNER_ENGINE__POLL_SECONDS": "nan",
        "RUNNER_ENGINE__LEASE_SECONDS": "inf",
    }
    told = problems(path=path, environ=environ, overrides={"engine.max_btch": 3, "retry.base_seconds": "soon"})
    assert len(told) == 11
    text = "\n".join(told)
    for part in [
        f"{path}: there is no setting `data_dirr`. Did you mean `data_dir`?",
        f"{path}: there is no setting `grpc.prot`. Did you mean `port`?",
        f"{path}: `grpc.port`: Expected `int`, got `str` (it says 'many')",
        f"{path}: `log.level`: Invalid enum value 'loud' (one of debug, info, warning, error)",
        f"{path}: `orchestrator.endpoints.0.url` is missing",
        "RUNNER_HTTP__PORT: `http.port`: Expected `int` <= 65535",
        "RUNNER_GRPC_PORT: there is no such setting. Did you mean `RUNNER_GRPC__PORT`?",
        "RUNNER_ENGINE__POLL_SECONDS: `engine.poll_seconds`: Expected",
        "RUNNER_ENGINE__LEASE_SECONDS: `engine.lease_seconds`: Expected a finite `float`",
        "flag engine.max_btch: there is no such setting. Did you mean `engine.max_batch`?",
        "flag retry.base_seconds: `retry.base_seconds`: Expected `float`, got `str`",
    ]:
        assert part in text, part


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        ({"RUNNER_GRPC__PORT": "7", "RUNNER_HTTP__PORT": "7"}, "`grpc.port` and `http.port` are both 7"),
        ({"RUNNER_ENGINE__POLL_SECONDS": "60"}, "`engine`: `poll_seconds` must be less than `lease_seconds`"),
        ({"RUNNER_RETRY__MULTIPLIER": "0.5"}, "`retry.multiplier` must be at least 1"),
        ({"RUNNER_RETRY__CAP_SECONDS": "0.1"}, "`retry.base_seconds` must be at least 0 and at most"),
        ({"RUNNER_DESCRIPTOR__MAX_TASKS": "0"}, "`descriptor.max_tasks` must be at least 1"),
        ({"RUNNER_PROFILE": "staging"}, "RUNNER_PROFILE: `profile`: Invalid enum value 'staging' (one of dev, prod)"),
        ({"RUNNER_GRPC": "7"}, "RUNNER_GRPC: `grpc`: Expected `object`, got `int`"),
        ({"RUNNER_SETTINGS": "/nowhere/at.toml"}, "/nowhere/at.toml: cannot be read: No such file or directory"),
    ],
)
def test_what_contradicts_itself_is_refused(environ: dict[str, str], part: str) -> None:
    [told] = problems(environ=environ)
    assert part in told


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.toml", "port = ", "is not valid: Invalid value (at"),
        ("a.json", "{,", "is not valid: Expecting property name"),
        ("a.yaml", "a: [1", "is not valid: expected ',' or ']', but got '<stream end>' (at line 1, column 6)"),
        ("a.yaml", "- 1", "must hold settings by name, not a list"),
        ("a.ini", "a=1", "a settings file ends in .toml, .yaml or .json, not `.ini`"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_beside_the_other_mistakes(
    tmp_path: Path, name: str, content: str, part: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    told = problems(path=path, environ={"RUNNER_GRPC__PORT": "x"})
    assert len(told) == 2
    assert part in told[0]


def test_variables_of_others_under_our_prefix_are_left_alone() -> None:
    others = ["SERVICE_HOST", "SERVICE_PORT_GRPC", "PORT", "PORT_50051_TCP_ADDR", "OS", "TEMP", "ADDRESS"]
    assert load(environ={f"RUNNER_{name}": "x" for name in others}).grpc.port == 50051


def test_maps_and_lists_may_come_as_text() -> None:
    settings = load(
        environ={
            "RUNNER_PYTHON__ALLOW": "jobs.*, tools:run",
            "RUNNER_ORCHESTRATOR__ENDPOINTS": '[{"name": "a", "url": "http://a"}, {"name": "b", "url": "http://b"}]',
            "RUNNER_ORCHESTRATOR__ENDPOINTS__1__MODEL": "large",
            "RUNNER_QUEUES__MAIL__CONCURRENCY": "2",
        }
    )
    assert settings.python.allow == ("jobs.*", "tools:run")
    assert [(endpoint.name, endpoint.model) for endpoint in settings.orchestrator.endpoints] == [
        ("a", ""),
        ("b", "large"),
    ]
    assert settings.queues["mail"].concurrency == 2


def test_a_queue_without_settings_has_the_limits_of_the_default_queue() -> None:
    queues = load(environ={"RUNNER_QUEUES__DEFAULT__MAX_QUEUED": "5", "RUNNER_QUEUES__MAIL__MAX_QUEUED": "2"}).queues
    assert queue_limits(queues, "mail").max_queued == 2
    assert queue_limits(queues, "anything").max_queued == 5


def test_no_secret_is_ever_shown() -> None:
    settings = load(
        environ={
            "RUNNER_AI_SERVICE_URL": "http://127.0.0.1:9",
            "RUNNER_AI_API_KEY": HIDDEN,
            "RUNNER_SECRET_MAIL": HIDDEN,
            "RUNNER_TRACES__HEADERS__AUTHORIZATION": HIDDEN,
            "RUNNER_LEDGER__URL": f"postgresql://runner:{HIDDEN}@db/runner",
        }
    )
    for shown in [describe(settings), repr(settings), str(entries(settings)), f"{settings.secrets.values}"]:
        assert HIDDEN not in shown
    assert "secrets.values.MAIL = ***" in describe(settings)
    assert 'ledger.url = "postgresql://runner:***@db/runner"' in describe(settings)
    assert set(known_secrets(settings)) == {
        "orchestrator.endpoints.0.api_key",
        "secrets.values.MAIL",
        "traces.headers.authorization",
    }


def test_a_mistake_beside_a_secret_does_not_tell_it() -> None:
    told = problems(
        environ={
            "RUNNER_SECRET_A__B": HIDDEN,
            "RUNNER_AI_SERVICE_URL": f"htp://me:{HIDDEN}@h",
            "RUNNER_GRPC__PORT": "x",
        }
    )
    assert len(told) == 2
    assert HIDDEN not in "".join(told)


@pytest.mark.parametrize("name", ["a.yaml", "a.toml", "a.json"])
def test_a_file_that_breaks_beside_a_secret_does_not_tell_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(f"{{\napi_key: '{HIDDEN}\nb: [}}", encoding="utf-8")
    [told] = problems(path=path)
    assert "is not valid" in told
    assert HIDDEN not in told


def test_secrets_come_from_files_first_and_are_read_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("first\n", encoding="utf-8")
    environ = {"RUNNER_SECRETS__DIRECTORY": str(tmp_path), "RUNNER_SECRET_MAIL": "env", "RUNNER_SECRET_OTHER": "two"}
    secrets: Secrets = SettingsSecrets(load(environ=environ).secrets)
    assert secrets.get("mail") == "first"
    (tmp_path / "mail").write_text("second", encoding="utf-8")
    assert secrets.get("mail") == "second"
    assert secrets.get("other") == "two"
    assert secrets.get("missing") is None


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "..", ".hidden", "a/../../outside", ""])
def test_the_name_of_a_secret_never_leads_out_of_its_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("x", encoding="utf-8")
    (tmp_path / ".hidden").write_text("x", encoding="utf-8")
    (tmp_path / "a").mkdir()
    environ = {"RUNNER_SECRETS__DIRECTORY": str(tmp_path / "a")}
    assert SettingsSecrets(load(environ=environ).secrets).get(name) is None


def test_a_secret_is_masked_however_it_is_printed() -> None:
    secret = Secret(HIDDEN)
    assert HIDDEN not in f"{secret} {secret!r} {[secret]} {secret!s:>30}"
    assert secret == Secret(HIDDEN)
    assert not Secret()


def test_a_reload_takes_over_what_may_change_and_tells_what_needs_a_restart() -> None:
    old = load(environ={"RUNNER_LOG__LEVEL": "info"})
    new = load(
        environ={
            "RUNNER_LOG__LEVEL": "debug",
            "RUNNER_GRPC__PORT": "1",
            "RUNNER_QUEUES__MAIL__CONCURRENCY": "2",
            "RUNNER_ENGINE__MAX_RUNNING_JOBS": "5",
        }
    )
    result = reload(old, new, reloadable={"log.level", "queues", "engine.max_running_jobs"})
    assert result.settings.log.level == "debug"
    assert result.settings.queues["mail"].concurrency == 2
    assert result.settings.engine.max_running_jobs == 5
    assert result.settings.grpc.port == 50051
    assert result.restart == ("grpc.port",)
    assert set(result.applied) == {
        "log.level", "engine.max_running_jobs", "queues.mail.concurrency", "queues.mail.max_queued",
    }  # fmt: skip
    assert {entry.name: entry.source for entry in entries(result.settings)}["log.level"] == "RUNNER_LOG__LEVEL"


def test_a_reload_takes_over_the_keys_of_the_same_endpoints_only() -> None:
    def with_keys(*endpoints: tuple[str, str]) -> Settings:
        rows = [{"name": name, "url": "http://127.0.0.1:9", "api_key": key} for name, key in endpoints]
        return load(environ={}, overrides={"orchestrator.endpoints": rows})

    old = with_keys(("one", "a"), ("two", "b"))
    result = reload(old, with_keys(("one", "a"), ("two", HIDDEN)))
    assert result.applied == ("orchestrator.endpoints.1.api_key",)
    assert result.restart == ()
    assert [endpoint.api_key.reveal() for endpoint in result.settings.orchestrator.endpoints] == ["a", HIDDEN]
    turned = reload(old, with_keys(("two", "b"), ("one", "a")))
    assert turned.applied == ()
    assert turned.settings.orchestrator == old.orchestrator


def test_what_makes_an_idle_daemon_look_stalled_is_refused_at_the_start_and_at_a_reload() -> None:
    slow = {"RUNNER_ENGINE__POLL_SECONDS": "12"}
    with pytest.raises(InvalidSettings, match=r"`engine\.poll_seconds` must be less than `health\.stall_seconds`"):
        load(environ=slow)
    with pytest.raises(InvalidSettings, match=r"together with what needs a restart: `engine\.poll_seconds` must"):
        reload(load(environ={}), load(environ=slow | {"RUNNER_HEALTH__STALL_SECONDS": "30"}))


def test_a_reload_without_changes_does_nothing() -> None:
    result = reload(load(environ={}), load(environ={}))
    assert result.applied == result.restart == ()


def test_every_setting_can_be_written_down_and_read_back(tmp_path: Path) -> None:
    """What `describe` shows, given again as a file, is the same tree."""
    environ = {"RUNNER_QUEUES__MAIL__CONCURRENCY": "2", "RUNNER_AI_SERVICE_URL": "http://127.0.0.1:9"}
    settings = load(environ=environ)
    tree: dict[str, object] = {}
    for entry in entries(settings):
        if entry.value == '""' and entry.name.endswith("api_key"):
            continue
        *way, last = entry.name.split(".")
        place = tree
        for name in way:
            place = place.setdefault(name, {})  # type: ignore[assignment]
        place[last] = json.loads(entry.value)
    tree["orchestrator"]["endpoints"] = list(tree["orchestrator"]["endpoints"].values())  # type: ignore[index]
    path = tmp_path / "again.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert reload(settings, load(path, {})).restart == ()


def test_the_documentation_tells_every_setting_and_is_fresh() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "settings_table.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for path in known_paths(Settings):
        assert f"`{'.'.join(path).replace('*', '<name>')}`" in text or "*" in path, path


def test_budgets_of_labels_are_a_list_of_tables(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    table = "[[budgets]]\nlabel = 'team'\nvalue = 'research'\ntokens = 1_000_000\nper = 'day'\n"
    file.write_text(table + table.replace("research", "sales").replace("per =", "on_exceeded = 'wait' #"))
    day, month = load(file, {}).budgets
    assert (day.name, day.tokens, day.on_exceeded) == ("team=research/day", 1_000_000, "fail")
    assert (month.name, month.on_exceeded) == ("team=sales/month", "wait")
    file.write_text(table + table)
    with pytest.raises(InvalidSettings, match="`budgets` has `team=research/day` more than once"):
        load(file, {})
    file.write_text(table.replace("1_000_000", "0"))
    with pytest.raises(InvalidSettings, match="tokens"):
        load(file, {})


def test_a_budget_can_be_raised_while_the_daemon_runs() -> None:
    budget = {"label": "team", "value": "research", "tokens": 5}
    old, new = (
        load(environ={}, overrides={"budgets": [budget]}),
        load(environ={}, overrides={"budgets": [budget | {"tokens": 9}]}),
    )
    result = reload(old, new)
    assert result.settings.budgets[0].tokens == 9
    assert not result.restart
