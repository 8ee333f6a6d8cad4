"""The engine: runs what the core decides, over the ports."""
