"""What a `.last` record looks like: on a terminal, as a page, as a graph."""
