"""The multiverse: in how many readings of the paper each claim holds, and what decides it.

:func:`shares` is what other reports ask.
"""

from lft.report.multiverse.shares import Share, in_short, shares

__all__ = ["Share", "in_short", "shares"]
