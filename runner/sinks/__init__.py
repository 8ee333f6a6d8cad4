"""Where `.last` records go, each by its own Sink."""
