"""How an AI orchestrator is known to us, and we to it: authorities and a certificate of its own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from runner.core.errors import InvalidSettings
from runner.orchestrators.settings import EndpointSettings


def context(endpoint: EndpointSettings) -> ssl.SSLContext | None:
    """What `tls_*` asks for; None where nothing of it is set, and the system's authorities will do.

    Files are read here and not again: a new certificate needs a new start.

    Raises InvalidSettings: naming every setting whose file cannot be used, and why.
    """
    if not (endpoint.tls_ca_file or endpoint.tls_certificate_file or endpoint.tls_key_file):
        return None
    problems = [f"`orchestrator.endpoints[{endpoint.name}].{problem}" for problem in _unreadable(endpoint)]
    if problems:
        raise InvalidSettings(problems)
    made = ssl.create_default_context(cafile=endpoint.tls_ca_file or None)
    if endpoint.tls_certificate_file:
        _show(made, endpoint)
    return made


def _unreadable(endpoint: EndpointSettings) -> Iterator[str]:
    if urlsplit(endpoint.url).scheme != "https":
        yield "url` must begin with https:// where `tls_*` files are set"
    if endpoint.tls_key_file and not endpoint.tls_certificate_file:
        yield "tls_key_file` is set without `tls_certificate_file`; set both, or none"
    for name in ("tls_ca_file", "tls_certificate_file", "tls_key_file"):
        path = getattr(endpoint, name)
        try:
            text = Path(path).read_bytes() if path else None
        except OSError as error:
            yield f"{name}` cannot be read: {path}: {error.strerror}"
            continue
        if text is not None and b"-----BEGIN" not in text:
            yield f"{name}` is not PEM, which has lines like -----BEGIN …-----: {path}"
        elif name == "tls_ca_file" and text is not None and not _trustworthy(path):
            yield f"{name}` holds no certificate that can be read: {path}"


def _trustworthy(path: str) -> bool:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return False
    return True


def _show(made: ssl.SSLContext, endpoint: EndpointSettings) -> None:
    try:
        # Asked for a password, OpenSSL would wait at the terminal.
        made.load_cert_chain(endpoint.tls_certificate_file, endpoint.tls_key_file or None, password=lambda: "")
    except ssl.SSLError as error:
        which = f"orchestrator.endpoints[{endpoint.name}]"
        if error.reason == "KEY_VALUES_MISMATCH":
            told = f"the key of `{which}.tls_key_file` is not that of the certificate of `tls_certificate_file`"
        else:
            told = (
                f"`{which}.tls_certificate_file` and `tls_key_file` are no certificate and its key, without a password,"
                " in PEM"
            )
        raise InvalidSettings([told]) from error
