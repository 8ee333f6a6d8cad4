"""Telling operators what happens: logs, metrics and traces over one vocabulary of events."""
