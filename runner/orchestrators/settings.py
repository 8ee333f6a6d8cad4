"""What an operator may set about AI orchestrators."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta, Struct
from msgspec.structs import replace

from runner.core.answers import AnswerCachePolicy
from runner.core.breaker import BreakerPolicy
from runner.core.retry_budget import RetryBudgetPolicy
from runner.core.secret import Secret

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Amount = Annotated[float, Meta(ge=0)]


class Protocol(enum.StrEnum):
    """What an endpoint speaks."""

    ALTLAS = "altlas"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class EndpointSettings(Struct, frozen=True, kw_only=True):
    """One AI orchestrator."""

    #: What tasks (`parameters.endpoint`), metrics and records call it.
    name: str = "default"
    protocol: Protocol = Protocol.ALTLAS
    #: Base address: `http://127.0.0.1:8080`; a path is kept.
    url: str
    #: Sent as `Authorization: Bearer …`, by `anthropic` as `x-api-key`; empty: nothing is sent.
    api_key: Secret = Secret()
    #: Endpoints of one group stand in for each other: tasks may name it, and each call goes to the one that is best
    #: off. Empty: the endpoint's own name.
    group: str = ""
    #: Its share of its group's calls, beside the weights of the others.
    weight: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    #: The model for tasks that name none, an alias or a label of it; empty: the endpoint's own choice (`openai` and
    #: `anthropic` have none).
    model: str = ""
    #: The models that it serves; empty: it is asked for its catalogue.
    models: tuple[str, ...] = ()
    #: Other names for its models: `{"gpt": "gpt-large-2026"}`.
    aliases: Mapping[str, str] = {}
    #: What its models are, by model: `{"mini": ["fast", "cheap"]}`. Tasks may name a label instead of a model.
    labels: Mapping[str, tuple[str, ...]] = {}
    #: Seconds for one whole call; a task's own time bounds it further.
    timeout_seconds: Seconds = 60.0
    #: Seconds of silence within an answer that has begun.
    idle_timeout_seconds: Seconds = 30.0
    #: Seconds for a connection to be made.
    connect_timeout_seconds: Seconds = 10.0
    #: Bytes of one answer.
    max_answer_bytes: Count = 8 * 1024 * 1024
    #: Calls, and so connections, under way at a time; further tasks wait and take no slot meanwhile. Keep it well below
    #: `engine.max_concurrent_tasks`, or an endpoint that hangs holds up every other task.
    max_connections: Count = 32
    #: Seconds that a call waits for room, or for its turn under a rate, before its task is parked; a quarter of its
    #: attempt's time at most.
    max_wait_seconds: Amount = 2.0
    #: Calls a minute; 0: no bound.
    requests_per_minute: Amount = 0.0
    #: Tokens a minute, as the endpoint counts them; 0: no bound.
    tokens_per_minute: Amount = 0.0
    #: Whether a call that takes longer than most is made a second time, at another endpoint of the group; the first
    #: answer wins. Costs tokens.
    hedge: bool = False
    #: Share of calls that are quicker than the one that is hedged.
    hedge_quantile: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    #: Seconds between two health checks in the background; 0: none.
    health_interval_seconds: Amount = 10.0
    #: Seconds in which an endpoint that comes back grows to its full share.
    warm_up_seconds: Amount = 10.0
    #: Whether each address of the host name is an endpoint of its own.
    every_address: bool = False
    #: Seconds after which a host name is resolved anew.
    dns_refresh_seconds: Seconds = 30.0
    #: Whether servers may register themselves into the group while the daemon runs (AdminService.RegisterEndpoint).
    #: They are called with this endpoint's `api_key`: allow it only where whoever reaches the gRPC port may have it.
    takes_registrations: bool = False
    #: PEM file of the authorities that are trusted instead of the system's.
    tls_ca_file: str = ""
    #: PEM files of the certificate by which we are known, and of its key.
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    #: Models with a circuit breaker of their own; the calls to any further ones share one.
    max_models: Count = 64

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username or parts.password or parts.query:
            msg = f"`url` of orchestrator `{self.name}` must hold no credentials and no query; use `api_key`"
            raise ValueError(msg)
        if parts.scheme not in {"http", "https"} or not _is_host(parts):
            msg = f"`url` of orchestrator `{self.name}` must be like http://host:port, it is `{parts.geturl()}`"
            raise ValueError(msg)

    @property
    def group_name(self) -> str:
        """The group that it belongs to, if only its own."""
        return self.group or self.name

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)


class LeasePolicy(Struct, frozen=True, kw_only=True):
    """How long a registered endpoint is known without a heartbeat."""

    #: Seconds, where the endpoint asks for no other time.
    seconds: Seconds = 30.0
    #: Seconds that it may ask for at most.
    max_seconds: Seconds = 3600.0
    #: Registered endpoints at a time.
    max_endpoints: Count = 1_000


class OrchestratorSettings(Struct, frozen=True, kw_only=True):
    """All AI orchestrators; the first takes the tasks that name none."""

    endpoints: tuple[EndpointSettings, ...] = ()
    breaker: BreakerPolicy = BreakerPolicy()
    retry_budget: RetryBudgetPolicy = RetryBudgetPolicy()
    leases: LeasePolicy = LeasePolicy()
    #: Whether tasks wait for endpoints that only an operator can mend: whose key was refused, that are drained or
    #: forced open. Else they fail.
    wait_for_operators: bool = True
    answer_cache: AnswerCachePolicy = AnswerCachePolicy()

    def __post_init__(self) -> None:
        names = [endpoint.name for endpoint in self.endpoints]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            msg = f"`endpoints` has several orchestrators named `{doubled[0]}`; give each its own `name`"
            raise ValueError(msg)
        groups = {endpoint.group for endpoint in self.endpoints if endpoint.group}
        for endpoint in self.endpoints:
            if endpoint.name in groups and endpoint.group != endpoint.name:
                msg = f"`{endpoint.name}` is an orchestrator and the group of others; give it another `name`"
                raise ValueError(msg)
            if problem := next(_ambiguities(endpoint), None):
                raise ValueError(problem)


def _ambiguities(endpoint: EndpointSettings) -> Iterator[str]:
    """Words for models that mean two things or nothing, each a sentence."""
    of, models = f"of orchestrator `{endpoint.name}`", endpoint.models
    yield from (f"`aliases` {of}: {problem}" for problem in _alias_problems(endpoint))
    yield from (f"`labels` {of}: {problem}" for problem in _label_problems(endpoint))
    words = {*models, *endpoint.aliases, *(label for labels in endpoint.labels.values() for label in labels)}
    if models and endpoint.model and endpoint.model not in words:
        yield f"`model` {of} is `{endpoint.model}`, which is none of its `models`"


def _alias_problems(endpoint: EndpointSettings) -> Iterator[str]:
    for alias, model in endpoint.aliases.items():
        if alias == model:
            continue
        if model in endpoint.aliases:
            yield f"`{alias}` stands for `{model}`, which is an alias itself; name the model"
        if alias in endpoint.models:
            yield f"`{alias}` stands for `{model}`, and is one of its `models`, too"
        if endpoint.models and model not in endpoint.models:
            yield f"`{alias}` stands for `{model}`, which is none of its `models`"


def _label_problems(endpoint: EndpointSettings) -> Iterator[str]:
    models = {*endpoint.models, *endpoint.labels}
    for model, labels in endpoint.labels.items():
        if endpoint.aliases.get(model, model) != model or (endpoint.models and model not in endpoint.models):
            yield f"`{model}` is none of its `models`; labels stand beside the model's own name"
        for label in labels:
            if label != model and (label in models or label in endpoint.aliases):
                yield f"`{label}` is a label, and another model's name or an alias, too"


def _is_host(parts: SplitResult) -> bool:
    """Whether host and port are such as can be looked up."""
    try:
        return bool(parts.hostname and parts.hostname.encode("idna")) and parts.port != 0
    except ValueError:
        return False


def without_certificates(settings: OrchestratorSettings) -> OrchestratorSettings:
    """The same for whoever calls none of the endpoints, or others in their place: no file needs to be there."""
    endpoints = tuple(
        replace(endpoint, tls_ca_file="", tls_certificate_file="", tls_key_file="") for endpoint in settings.endpoints
    )
    return replace(settings, endpoints=endpoints)
