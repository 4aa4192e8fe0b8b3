"""The multiverse: in how many readings of the paper each claim holds, and what decides it.

Other reports use :func:`shares`.
"""

from lft.report.multiverse.shares import Share, in_short, shares

__all__ = ["Share", "in_short", "shares"]
