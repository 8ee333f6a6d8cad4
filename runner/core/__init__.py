"""The pure core: no await, no I/O, no clock, no randomness, no logging. Time, ids and chance are arguments."""
