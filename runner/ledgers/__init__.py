"""The ledgers: the durable truth on SQL, and the same contract in memory.

`sql.py` is the ledger; one file beside it for each group of its verbs: `submissions`, `claims`, `journal`, `outbox`,
`queries`. Writes are values (`writes.py`); `commit.py` collects whatever is pending and commits it in one transaction.
Within a commit the kinds of writes apply in the order of `sql.PHASES`, and writes of one kind in order of arrival.
Callers of one commit are concurrent, none has been answered, so any order among kinds is one that could have happened.
"""
