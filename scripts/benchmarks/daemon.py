"""The daemon, as a process of its own. `python -m scripts.benchmarks.daemon SETTINGS`: settings by path, as JSON."""

from __future__ import annotations

import json
import sys

from runner import settings
from runner.daemon import Addresses, run


def _tell(addresses: Addresses) -> None:
    print(json.dumps({"grpc": addresses.grpc}), flush=True)


if __name__ == "__main__":
    # No environment and no file: the figures are those of the defaults.
    run(settings.load(None, {}, json.loads(sys.argv[1])), ready=_tell)
