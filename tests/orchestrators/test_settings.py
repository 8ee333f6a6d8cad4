from __future__ import annotations

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
