"""alt-runner: a gRPC job runner for `.alt` descriptors.

Core decides, engine waits, ledgers remember, handlers act, rpc and web listen, telemetry tells, the daemon wires.
"""

__version__ = "0.1.0"
