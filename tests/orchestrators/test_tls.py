"""Certificates are made as the tests run."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
import trustme

from runner.core.errors import AttemptError, InvalidSettings
from runner.orchestrators import tls
from runner.orchestrators.altlas import Altlas
from runner.orchestrators.connection import Connection
from runner.orchestrators.model_lists import Speaker
from runner.orchestrators.session import open_session
from runner.orchestrators.settings import EndpointSettings, Protocol
from runner.orchestrators.simulated import serve_simulated
from tests.orchestrators.calling import SPEAKERS
from tests.orchestrators.hostile import Pieces, prompt


class Files:
    """What an operator has on disk: an authority, and a certificate of his own."""

    def __init__(self, directory: Path, authority: trustme.CA) -> None:
        self.authority = authority
        self.ca = directory / "ca.pem"
        self.certificate = directory / "own.pem"
        self.key = directory / "own.key"
        authority.cert_pem.write_to_path(self.ca)
        own = authority.issue_cert("runner.invalid")
        own.cert_chain_pems[0].write_to_path(self.certificate)
        own.private_key_pem.write_to_path(self.key)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("ours"), trustme.CA())


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("others"), trustme.CA())


def server_context(
    files: Files, name: str = "127.0.0.1", *, asks: bool = False, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.maximum_version = newest
    files.authority.issue_cert(name).configure_cert(made)
    if asks:
        made.verify_mode = ssl.CERT_REQUIRED
        files.authority.configure_trust(made)
    return made


@asynccontextmanager
async def spoken_to(
    url: str, protocol: Protocol = Protocol.ALTLAS, ca: Path | None = None, own: Files | None = None
) -> AsyncIterator[Speaker]:
    endpoint = EndpointSettings(
        name="main",
        url=url,
        tls_ca_file=str(ca or ""),
        tls_certificate_file=str(own.certificate) if own else "",
        tls_key_file=str(own.key) if own else "",
    )
    async with open_session(endpoint) as session:
        yield SPEAKERS[protocol](Connection(session, endpoint))


@asynccontextmanager
async def refusing_server(context: ssl.SSLContext) -> AsyncIterator[str]:
    """Tells its callers, as it should, why it does not talk to them. (asyncio's own server just hangs up.)"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)

        def refuse() -> None:
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as wrapped:
                with suppress(ssl.SSLError):
                    wrapped.do_handshake()
                # A socket that is closed with something unread resets the connection, and what it said may be lost.
                while socket.socket.recv(wrapped, 65536):
                    pass

        def serve() -> None:
            for _ in range(2):
                refuse()

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, serve)
            yield f"https://127.0.0.1:{listening.getsockname()[1]}"


async def refusal(spoken: Speaker) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await spoken.ask(prompt(), Pieces())
    assert (caught.value.reason, caught.value.retryable) == ("CERTIFICATE_REFUSED", False)
    assert "orchestrator.endpoints[main].tls_*" in caught.value.message
    return caught.value


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_an_authority_of_ones_own_is_trusted(files: Files, protocol: Protocol) -> None:
    async with (
        serve_simulated(ssl_context=server_context(files)) as simulator,
        spoken_to(simulator.url, protocol, files.ca) as spoken,
    ):
        assert (await spoken.ask(prompt(), Pieces())).text.startswith("[simulated]")
        await spoken.health()


async def test_another_authority_is_not(files: Files, others: Files) -> None:
    async with serve_simulated(ssl_context=server_context(files)) as simulator:
        for ca in (others.ca, None):
            async with spoken_to(simulator.url, ca=ca) as spoken:
                assert "unable to get local issuer certificate" in (await refusal(spoken)).message


async def test_a_certificate_for_another_host_is_refused(files: Files) -> None:
    async with (
        serve_simulated(ssl_context=server_context(files, "elsewhere.invalid")) as simulator,
        spoken_to(simulator.url, ca=files.ca) as spoken,
    ):
        assert "not valid for '127.0.0.1'" in (await refusal(spoken)).message


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_wants_our_certificate_gets_it_or_refuses_us(
    files: Files, others: Files, newest: ssl.TLSVersion
) -> None:
    asking = server_context(files, asks=True, newest=newest)
    async with (
        serve_simulated(ssl_context=asking) as simulator,
        spoken_to(simulator.url, ca=files.ca, own=files) as known,
    ):
        assert (await known.ask(prompt(), Pieces())).text.startswith("[simulated]")
    async with refusing_server(asking) as url:
        for own in (None, others):
            async with spoken_to(url, ca=files.ca, own=own) as spoken:
                assert (
                    "refused us, most often for the certificate that we show or do not show"
                    in (await refusal(spoken)).message
                )


async def test_a_port_that_does_not_speak_tls_is_a_broken_connection(files: Files) -> None:
    async with serve_simulated() as simulator:
        url = simulator.url.replace("http://", "https://")
        endpoint = EndpointSettings(name="main", url=url, tls_ca_file=str(files.ca))
        async with open_session(endpoint) as session:
            with pytest.raises(AttemptError, match="TLS with orchestrator `main` failed") as caught:
                await Altlas(Connection(session, endpoint)).ask(prompt(), Pieces())
    assert (caught.value.reason, caught.value.retryable) == ("CONNECTION_FAILED", True)


async def test_a_session_that_is_bound_to_an_address_goes_there_under_the_name_of_its_url(files: Files) -> None:
    async with serve_simulated(ssl_context=server_context(files, "model.invalid")) as simulator:
        url = simulator.url.replace("127.0.0.1", "model.invalid")
        endpoint = EndpointSettings(name="main", url=url, tls_ca_file=str(files.ca))
        async with open_session(endpoint, "127.0.0.1") as session:
            answer = await Altlas(Connection(session, endpoint)).ask(prompt(), Pieces())
    assert answer.text.startswith("[simulated]")


def test_without_files_the_systems_authorities_do() -> None:
    assert tls.context(EndpointSettings(url="https://model.invalid")) is None


def test_key_and_certificate_may_be_in_one_file(files: Files, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    assert tls.context(EndpointSettings(url="https://model.invalid", tls_certificate_file=str(both))) is not None


def test_every_file_that_cannot_be_used_is_told_with_its_setting(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("not a certificate")
    missing = tmp_path / "none.pem"
    with pytest.raises(InvalidSettings) as caught:
        tls.context(
            EndpointSettings(
                name="main",
                url="http://model.invalid",
                tls_ca_file=str(words),
                tls_certificate_file=str(tmp_path),
                tls_key_file=str(missing),
            )
        )
    assert caught.value.problems == (
        "`orchestrator.endpoints[main].url` must begin with https:// where `tls_*` files are set",
        "`orchestrator.endpoints[main].tls_ca_file` is not PEM, which has lines like -----BEGIN …-----: " + str(words),
        f"`orchestrator.endpoints[main].tls_certificate_file` cannot be read: {tmp_path}: Is a directory",
        f"`orchestrator.endpoints[main].tls_key_file` cannot be read: {missing}: No such file or directory",
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("", "certificate", "other key"), "is not that of the certificate"),
        (("", "certificate", "certificate"), "are no certificate and its key"),
        (("", "certificate", ""), "are no certificate and its key"),
        (("", "certificate", "locked key"), "without a password"),
        (("", "", "key"), "is set without `tls_certificate_file`"),
        (("key", "", ""), "holds no certificate that can be read"),
    ],
)
def test_what_does_not_fit_together_is_told(
    files: Files, others: Files, tmp_path: Path, given: tuple[str, str, str], told: str
) -> None:
    """What is given stands for the files of authority, certificate and key."""
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    paths = {"": "", "certificate": files.certificate, "key": files.key, "other key": others.key, "locked key": locked}
    ca, certificate, key = (str(paths[name]) for name in given)
    settings = EndpointSettings(
        url="https://model.invalid", tls_ca_file=ca, tls_certificate_file=certificate, tls_key_file=key
    )
    with pytest.raises(InvalidSettings, match=told):
        tls.context(settings)
