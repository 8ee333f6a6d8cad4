"""One frozen tree of settings, read once when the daemon starts.

Sources, later over earlier: defaults, profile, file, environment, flags. All mistakes are told at once, each with its
source. This is the only module that knows the environment's names.
"""

from __future__ import annotations

import enum
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import yaml
from msgspec import Meta, Struct

from runner.core.alt.limits import DescriptorLimits
from runner.core.budgets import LabelBudget
from runner.core.errors import InvalidSettings
from runner.core.retry import RetryPolicy
from runner.core.secret import MASK, Secret
from runner.engine.settings import DEFAULT_QUEUE, EngineSettings, QueueSettings
from runner.handlers.settings import (
    CodeExecutorSettings,
    DataProcessingSettings,
    FileOperationSettings,
    HttpRequestSettings,
    PythonSettings,
    SystemCommandSettings,
)
from runner.ledgers.settings import LedgerSettings
from runner.orchestrators.settings import OrchestratorSettings
from runner.sources import DERIVED, Checker, Given, Node, close_to, fields_of, join, known_paths, plant, type_at
from runner.telemetry.settings import LogSettings, MetricsSettings, TraceSettings
from runner.web.settings import HealthSettings, HttpSettings

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0)]


class GrpcSettings(Struct, frozen=True, kw_only=True):
    """The gRPC port."""

    #: Address to listen on.
    host: str = "127.0.0.1"
    #: Port to listen on; 0 takes a free one and tells which.
    port: Port = 50051
    #: Bytes of one message, in and out; it bounds the size of a descriptor.
    max_message_bytes: Annotated[int, Meta(ge=64 * 1024)] = 8 * 1024 * 1024
    #: Seconds of silence on a watch after which a heartbeat is sent.
    heartbeat_seconds: Seconds = 15.0
    #: Seconds after which a connection is closed in good order, so that clients spread over daemons; 0: never.
    max_connection_age_seconds: Annotated[float, Meta(ge=0)] = 0.0
    #: Seconds calls under way have to end when their connection is closed.
    max_connection_age_grace_seconds: Seconds = 30.0
    #: Whether the server tells its services to clients that have no `.proto` (grpcurl).
    reflection: bool = True


class RecordSettings(Struct, frozen=True, kw_only=True):
    """Where `.last` records are written."""

    #: Directory for the records; empty: `last` in `data_dir`.
    directory: str = ""


class SecretsSettings(Struct, frozen=True, kw_only=True):
    """What `${secrets.NAME}` gives."""

    #: Directory with one file a secret, as Docker and Kubernetes mount them; read at the moment of the call.
    directory: str = ""
    #: Secrets by name; usually from `RUNNER_SECRET_<NAME>`.
    values: dict[str, Secret] = {}


class Profile(enum.StrEnum):
    """A set of defaults for a kind of place."""

    DEV = "dev"
    PROD = "prod"


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that may be set."""

    #: Which defaults hold.
    profile: Profile = Profile.DEV
    #: Directory for all that the daemon keeps; relative to the working directory.
    data_dir: str = "var"
    ledger: LedgerSettings = LedgerSettings()
    records: RecordSettings = RecordSettings()
    grpc: GrpcSettings = GrpcSettings()
    http: HttpSettings = HttpSettings()
    health: HealthSettings = HealthSettings()
    descriptor: DescriptorLimits = DescriptorLimits()
    engine: EngineSettings = EngineSettings()
    retry: RetryPolicy = RetryPolicy()
    #: Tokens that jobs with a label may take together.
    budgets: tuple[LabelBudget, ...] = ()
    queues: dict[str, QueueSettings] = msgspec.field(default_factory=lambda: {DEFAULT_QUEUE: QueueSettings()})
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    http_request: HttpRequestSettings = HttpRequestSettings()
    python: PythonSettings = PythonSettings()
    data_processing: DataProcessingSettings = DataProcessingSettings()
    file_operation: FileOperationSettings = FileOperationSettings()
    system_command: SystemCommandSettings = SystemCommandSettings()
    code_executor: CodeExecutorSettings = CodeExecutorSettings()
    secrets: SecretsSettings = SecretsSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TraceSettings = TraceSettings()
    #: Path of a setting to its source; one that is missing has its default.
    origins: Annotated[dict[str, str], DERIVED] = {}

    def __post_init__(self) -> None:
        if contradictions := list(self._contradictions()):
            raise ValueError("; ".join(contradictions))

    def _contradictions(self) -> Iterator[str]:
        if self.http.enabled and self.grpc.port == self.http.port != 0:
            yield f"`grpc.port` and `http.port` are both {self.http.port}"
        if self.retry.base_seconds < 0 or self.retry.cap_seconds < self.retry.base_seconds:
            yield "`retry.base_seconds` must be at least 0 and at most `retry.cap_seconds`"
        if self.retry.multiplier < 1:
            yield "`retry.multiplier` must be at least 1"
        names = [budget.name for budget in self.budgets]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"`budgets` has `{name}` more than once"
        if self.engine.poll_seconds >= self.health.stall_seconds:
            yield "`engine.poll_seconds` must be less than `health.stall_seconds`, or an idle daemon looks stalled"
        for name, limit in msgspec.structs.asdict(self.descriptor).items():
            if limit < 1:
                yield f"`descriptor.{name}` must be at least 1"

    def __repr__(self) -> str:
        # The address of a ledger may hold a password; `describe` shows all that may be seen.
        return f"<Settings of profile {self.profile.value}>"

    @property
    def descriptors(self) -> DescriptorLimits:
        """What descriptors may measure."""
        return self.descriptor

    @property
    def ledger_url(self) -> str:
        """The ledger's address, with its default."""
        return self.ledger.url or f"sqlite:///{Path(self.data_dir) / 'ledger.db'}"

    @property
    def record_directory(self) -> Path:
        """Where records go, with its default."""
        return Path(self.records.directory or Path(self.data_dir) / "last")

    @property
    def work_root(self) -> Path:
        """Where the work directories of jobs are."""
        return Path(self.data_dir) / "work"


PROFILES: Final[Mapping[Profile, Mapping[str, Any]]] = {
    # A person who pressed Ctrl-C does not want to wait 20 seconds.
    # And jobs of theirs call what runs beside it.
    Profile.DEV: {"engine": {"drain_grace_seconds": 2.0}, "http_request": {"allow_private": True}},
    Profile.PROD: {
        "data_dir": "/var/lib/alt-runner",
        "log": {"format": "json"},
        "health": {"min_free_bytes": 512 * 1024 * 1024},
        "traces": {"sample_ratio": 0.1},
    },
}

#: Names of the runner service that came before, and ours.
LEGACY_VARIABLES: Final[Mapping[str, str]] = {
    "RUNNER_LOG_LEVEL": "log.level",
    "RUNNER_MAX_CONCURRENT_TASKS": "engine.max_concurrent_tasks",
    "RUNNER_OUTPUT_DIR": "records.directory",
    "RUNNER_AI_SERVICE_URL": "orchestrator.endpoints.0.url",
    "RUNNER_AI_API_KEY": "orchestrator.endpoints.0.api_key",
    "RUNNER_AI_DEFAULT_MODEL": "orchestrator.endpoints.0.model",
    "RUNNER_AI_TIMEOUT_SECONDS": "orchestrator.endpoints.0.timeout_seconds",
    "RUNNER_AI_MAX_RETRIES": "engine.default_retries",
}

SETTINGS_VARIABLE: Final = "RUNNER_SETTINGS"
SECRET_PREFIX: Final = "RUNNER_SECRET_"  # noqa: S105  a prefix of names
DEFAULT_FILE: Final = "alt-runner.toml"

# Set by others under our prefix: Kubernetes for a Service named `runner`, GitHub's CI for every step, and our own
# command line for the address of a daemon. Refusing them would keep the daemon from starting where they are set.
_OTHERS: Final = re.compile(
    r"RUNNER_(SERVICE_(HOST|PORT.*)|PORT(_\d+_.*)?|ADDRESS"
    r"|OS|ARCH|NAME|TEMP|TOOL_CACHE|WORKSPACE|ENVIRONMENT|DEBUG|USER|ALLOW_RUNASROOT|PERFLOG|TRACKING_ID)"
)

#: What the daemon takes over while it runs; a name stands for everything under it.
RELOADABLE: Final = frozenset({"log.level", "engine", "retry", "queues", "secrets", "budgets"})


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    profile: str | None = None,
) -> Settings:
    """Read every source and give the settings that hold.

    `path` names the file (TOML, YAML or JSON); without one it is what `RUNNER_SETTINGS` says, else `alt-runner.toml`
    in the working directory if there is one. `environ` is the process's unless given. `overrides` are flags, by path:
    `{"grpc.port": 0}`; text is read as in the environment.

    Raises InvalidSettings: with every mistake of every source.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    root: Node = {"queues": {DEFAULT_QUEUE: {}}}
    given = _file_values(path, environ, problems)
    given += [*_environment_values(environ, problems), *_flag_values(overrides or {}, problems)]
    if profile is not None:
        given.append((("profile",), Given(profile, "flag profile", text=True)))
    for place, value in [*_profile_values(given), *given]:
        plant(root, place, value, type_at(Settings, place))
    checker = Checker()
    checker.problems += problems
    settings: Settings = checker.check(root, Settings)
    if checker.problems:
        raise InvalidSettings([_without_password(problem) for problem in checker.problems])
    return msgspec.structs.replace(settings, origins=checker.origins)


Values = list[tuple[tuple[str, ...], Given]]


def _profile_values(given: Values) -> Values:
    """What the profile that was named last sets; nothing where there is no such profile, which is told later."""
    names = [str(value.value).lower() for place, value in given if place == ("profile",)]
    name = names[-1] if names else Profile.DEV
    defaults = PROFILES[Profile(name)] if name in set(Profile) else {}
    return [((key,), Given(value, f"profile {name}")) for key, value in defaults.items()]


def _file_values(path: Path | None, environ: Mapping[str, str], problems: list[str]) -> Values:
    named = path or (Path(environ[SETTINGS_VARIABLE]) if environ.get(SETTINGS_VARIABLE) else None)
    file = named or Path(DEFAULT_FILE)
    if named is None and not file.exists():
        return []
    try:
        content = _parsed(file)
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror or error}")
    except (ValueError, yaml.YAMLError) as error:
        problems.append(f"{file}: is not valid: {_place_in_file(error)}")
    else:
        if isinstance(content, dict):
            return [((str(key),), Given(value, str(file))) for key, value in content.items()]
        problems.append(f"{file}: must hold settings by name, not a {type(content).__name__}")
    return []


def _place_in_file(error: Exception) -> str:
    # PyYAML's own text quotes the lines around the mistake, and a key may stand there.
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (at line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return str(error)


def _parsed(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    match file.suffix.lower():
        case ".toml":
            return tomllib.loads(text)
        case ".json":
            return json.loads(text)
        case ".yaml" | ".yml":
            return yaml.safe_load(text) or {}
        case suffix:
            msg = f"a settings file ends in .toml, .yaml or .json, not `{suffix}`"
            raise ValueError(msg)


def _environment_values(environ: Mapping[str, str], problems: list[str]) -> Values:
    values: Values = []
    for name in sorted(environ, key=lambda name: (name not in LEGACY_VARIABLES, name.count("__"), name)):
        place = _place_of(name)
        if place is None:
            continue
        if type_at(Settings, place) is None:
            problems.append(f"{name}: there is no such setting.{close_to(name, _variables())}")
        else:
            values.append((place, Given(environ[name], name, text=True)))
    return values


def _place_of(name: str) -> tuple[str, ...] | None:
    """The path that a variable sets; None if the variable is not about settings."""
    if not name.startswith("RUNNER_") or name == SETTINGS_VARIABLE or _OTHERS.fullmatch(name):
        return None
    if name in LEGACY_VARIABLES:
        return tuple(LEGACY_VARIABLES[name].split("."))
    if name.startswith(SECRET_PREFIX):
        return ("secrets", "values", name.removeprefix(SECRET_PREFIX))
    return tuple(name.removeprefix("RUNNER_").lower().split("__"))


def _variables() -> Iterator[str]:
    yield from LEGACY_VARIABLES
    for place in known_paths(Settings):
        yield "RUNNER_" + "__".join(place).upper()


def _flag_values(overrides: Mapping[str, Any], problems: list[str]) -> Values:
    values: Values = []
    for name, value in overrides.items():
        place = tuple(name.split("."))
        if type_at(Settings, place) is None:
            names = (".".join(known) for known in known_paths(Settings))
            problems.append(f"flag {name}: there is no such setting.{close_to(name, names)}")
        else:
            values.append((place, Given(value, f"flag {name}", text=isinstance(value, str))))
    return values


class Entry(Struct, frozen=True):
    """One setting that holds."""

    name: str
    #: As text; `***` for a secret.
    value: str
    source: str


def entries(settings: Settings) -> list[Entry]:
    """Every setting with its value and source, and no secret."""
    return [Entry(name, _shown(value), settings.origins.get(name, "default")) for name, value in _flat(settings)]


def describe(settings: Settings) -> str:
    """The settings that hold, one a line with its source, for `--print-settings`. Never holds a secret."""
    lines = [(f"{entry.name} = {entry.value}", entry.source) for entry in entries(settings)]
    width = min(60, max(len(line) for line, _ in lines))
    return "\n".join(f"{line:<{width}}  # {source}" for line, source in lines)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Struct):
        for name in fields_of(type(value)):
            yield from _flat(getattr(value, name), join(path, name))
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, join(path, name))
    elif isinstance(value, tuple) and value and isinstance(value[0], Struct):
        for place, inner in enumerate(value):
            yield from _flat(inner, join(path, str(place)))
    else:
        yield path, value


_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")


def _shown(value: Any) -> str:
    if isinstance(value, Secret):
        return MASK if value else '""'
    return _without_password(json.dumps(value, default=str, ensure_ascii=False))


def _without_password(text: str) -> str:
    """A text without the passwords of addresses in it."""
    return _PASSWORD.sub(rf"\1:{MASK}@", text)


def known_secrets(settings: Settings) -> dict[str, str]:
    """Every secret of the settings by its path, for those who keep them out of logs."""
    return {name: value.reveal() for name, value in _flat(settings) if isinstance(value, Secret) and value}


class Reloaded(Struct, frozen=True):
    """What a reload comes to."""

    #: The old settings with what may change taken from the new.
    settings: Settings
    #: Paths whose change holds from now on.
    applied: tuple[str, ...]
    #: Paths whose change waits for a restart.
    restart: tuple[str, ...]


def reload(old: Settings, new: Settings, *, reloadable: Collection[str] = RELOADABLE) -> Reloaded:
    """Take over what may change while the daemon runs, API keys of orchestrators too, and tell what needs a restart.

    Raises InvalidSettings: if what may change contradicts what holds until a restart.
    """
    same = [_endpoint_names(old), _endpoint_names(new)]

    def free(name: str) -> bool:
        # A key belongs to an endpoint, not to its place in the list.
        if _KEY.fullmatch(name):
            return same[0] == same[1]
        return any(name == key or name.startswith(f"{key}.") for key in reloadable)

    before, after = dict(_flat(old)), dict(_flat(new))
    names = [*before, *(name for name in after if name not in before)]
    changed = [name for name in names if before.get(name) != after.get(name)]
    settings = old if same[0] != same[1] else _with_keys(old, new)
    origins = {name: source for name, source in old.origins.items() if not free(name)}
    origins |= {name: source for name, source in new.origins.items() if free(name)}
    try:
        for key in reloadable:
            settings = _taken_over(settings, new, key.split("."))
    except ValueError as error:
        # Each part was right by itself, but what may change and what may not contradict each other.
        raise InvalidSettings([f"together with what needs a restart: {error}"]) from error
    return Reloaded(
        msgspec.structs.replace(settings, origins=origins),
        applied=tuple(name for name in changed if free(name)),
        restart=tuple(name for name in changed if not free(name)),
    )


_KEY: Final = re.compile(r"orchestrator\.endpoints\.\d+\.api_key")


def _endpoint_names(settings: Settings) -> list[str]:
    return [endpoint.name for endpoint in settings.orchestrator.endpoints]


def _with_keys(old: Settings, new: Settings) -> Settings:
    """The old settings with the API keys of the new ones, which have the same endpoints."""
    endpoints = tuple(
        msgspec.structs.replace(kept, api_key=read.api_key)
        for kept, read in zip(old.orchestrator.endpoints, new.orchestrator.endpoints, strict=True)
    )
    return msgspec.structs.replace(old, orchestrator=msgspec.structs.replace(old.orchestrator, endpoints=endpoints))


def _taken_over(old: Any, new: Any, place: list[str]) -> Any:
    name, *rest = place
    inner = getattr(new, name)
    return msgspec.structs.replace(old, **{name: _taken_over(getattr(old, name), inner, rest) if rest else inner})


class SettingsSecrets:
    """`${secrets.NAME}`: a file of that name in `secrets.directory`, else `secrets.values`, in any case of letters."""

    def __init__(self, settings: SecretsSettings) -> None:
        self._directory = Path(settings.directory) if settings.directory else None
        self._values = {name.lower(): value for name, value in settings.values.items()}

    def get(self, name: str) -> str | None:
        """The value without the newline at its end, or None. Read anew each time, so that a rotated file holds."""
        if self._directory is not None and _SECRET_NAME.fullmatch(name):
            try:
                return (self._directory / name).read_text(encoding="utf-8").rstrip("\r\n")
            except (FileNotFoundError, IsADirectoryError):
                pass
        found = self._values.get(name.lower())
        return None if found is None else found.reveal()


# No slash and no leading dot: a name never leads out of the directory.
_SECRET_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
