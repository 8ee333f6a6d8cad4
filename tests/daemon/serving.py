"""What a daemon process of these tests runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.daemon import Addresses, run
from runner.settings import Settings, load


def serve(settings: Mapping[str, Any]) -> None:
    """Serve until a signal; print one line when ready. The key `file` names a file of further settings."""
    chosen = {name: value for name, value in settings.items() if name != "file"}
    file = settings.get("file")

    def told(addresses: Addresses) -> None:
        print(json.dumps({"grpc": addresses.grpc, "http": addresses.http}), flush=True)  # noqa: T201  they wait for it

    def reread() -> Settings:
        return load(file and Path(file), {}, chosen)

    run(reread(), ready=told, reread=reread)
