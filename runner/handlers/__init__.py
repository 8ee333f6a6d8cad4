"""What a task can do; `registry.open_handlers` opens all of them.

Nothing is imported here: a worker process that runs one function must not load an HTTP client first.
"""
