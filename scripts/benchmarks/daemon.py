"""The daemon, as a process of its own. `python -m scripts.benchmarks.daemon SETTINGS`: settings by path, as JSON.

One of them may be `file`: a file of settings, which is read again on SIGHUP.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from runner import settings
from runner.daemon import Addresses, run


def _tell(addresses: Addresses) -> None:
    print(json.dumps({"grpc": addresses.grpc}), flush=True)


if __name__ == "__main__":
    chosen = json.loads(sys.argv[1])
    file = chosen.pop("file", None)
    # No environment, and no file but that: the figures are those of the defaults.
    read = partial(settings.load, file and Path(file), {}, chosen)
    run(read(), ready=_tell, reread=read)
