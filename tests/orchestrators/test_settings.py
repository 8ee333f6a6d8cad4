from __future__ import annotations

from typing import Any

import pytest

from runner.core.secret import Secret
from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:80", "http://", ""])
def test_an_address_that_is_not_http_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ValueError, match="must be like http://host:port"):
        EndpointSettings(url=url)


@pytest.mark.parametrize("url", ["http://name@127.0.0.1", "http://127.0.0.1/?a=b"])
def test_an_address_holds_no_credentials(url: str) -> None:
    with pytest.raises(ValueError, match="use `api_key`"):
        EndpointSettings(url=url)


def test_two_endpoints_of_one_name_are_refused() -> None:
    one = EndpointSettings(name="a", url="http://127.0.0.1")
    with pytest.raises(ValueError, match="several orchestrators named `a`"):
        OrchestratorSettings(endpoints=(one, one))


def test_the_key_is_not_shown() -> None:
    assert "word" not in repr(EndpointSettings(url="http://127.0.0.1", api_key=Secret("word")))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"aliases": {"a": "b", "b": "c"}}, "`a` stands for `b`, which is an alias itself"),
        ({"aliases": {"a": "b", "b": "a"}}, "which is an alias itself"),
        ({"models": ("a", "b"), "aliases": {"a": "b"}}, "`a` stands for `b`, and is one of its `models`, too"),
        ({"models": ("b",), "aliases": {"a": "c"}}, "`a` stands for `c`, which is none of its `models`"),
        ({"models": ("b",), "labels": {"c": ("fast",)}}, "`c` is none of its `models`"),
        ({"aliases": {"a": "b"}, "labels": {"a": ("fast",)}}, "`a` is none of its `models`"),
        ({"models": ("a", "b"), "labels": {"a": ("b",)}}, "`b` is a label, and another model's name"),
        ({"labels": {"a": ("b",), "b": ("fast",)}}, "`b` is a label, and another model's name"),
        ({"aliases": {"fast": "a"}, "labels": {"b": ("fast",)}}, "`fast` is a label, and another model's name or an"),
        ({"models": ("a",), "model": "b"}, "`model` of orchestrator `main` is `b`, which is none of its `models`"),
    ],
    ids=str,
)
def test_a_word_for_a_model_means_one_thing(settings: dict[str, Any], why: str) -> None:
    """Words that would never be heeded, or be sent to the endpoint as they are, are told at the start."""
    with pytest.raises(ValueError, match=why):
        OrchestratorSettings(endpoints=(EndpointSettings(name="main", url="http://127.0.0.1", **settings),))


@pytest.mark.parametrize(
    "settings",
    [
        {"aliases": {"a": "a"}},
        {"models": ("a",), "aliases": {"best": "a"}, "labels": {"a": ("fast", "a")}, "model": "best"},
        {"labels": {"a": ("fast",), "b": ("fast",)}, "model": "fast"},
        {"model": "unlisted", "aliases": {"x": "unlisted"}},
    ],
    ids=str,
)
def test_words_that_lead_to_the_same_model_are_no_mistake(settings: dict[str, Any]) -> None:
    OrchestratorSettings(endpoints=(EndpointSettings(url="http://127.0.0.1", **settings),))
