"""MessagePack. It has no lines."""

from __future__ import annotations

import msgspec

from runner.core.alt.report import Report
from runner.core.alt.source import Source
from runner.core.alt.values import checked, too_deep


def read_msgpack(data: bytes, report: Report) -> Source:
    """Parse MessagePack.

    Raises Unreadable: if it is no MessagePack, or nested too deep.
    """
    try:
        value = msgspec.msgpack.decode(data)
    except RecursionError:
        raise report.fatal("TOO_DEEP", too_deep(report)) from None
    except UnicodeDecodeError as e:
        message = f"A text is not UTF-8 (byte {e.start} of it)."
        raise report.fatal("BAD_ENCODING", message) from None
    except msgspec.DecodeError as e:
        raise report.fatal("SYNTAX", f"Not valid MessagePack: {e}.") from None
    return Source(checked(value, report))
