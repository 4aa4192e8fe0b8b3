"""Statistics of the report: pure functions of arrays over seeds, or over (seeds, tasks).

These modules do not depend on folders, methods or claims. The seed is the unit of every test: each
has its own meta-training, victim and test tasks, whereas the test tasks of one seed share all of
these.
"""

from lft.report.statistics.intervals import (
    LEVEL,
    NOTHING,
    UNBOUNDED,
    Floats,
    Interval,
    mean_interval,
    prediction_interval,
)
from lft.report.statistics.readings import (
    Finding,
    against,
)
from lft.report.statistics.seeds import (
    detectable,
    power,
    seeds_needed,
    upper_sd,
)
from lft.report.statistics.sizes import (
    hedges_g,
    hierarchical_bootstrap,
    improvement,
    restricted_mean,
    share_arrived,
)
from lft.report.statistics.testing import (
    ALPHA,
    Comparison,
    beyond_p,
    equivalence_p,
    greater_p,
    holm,
    largest_mean_p,
    prediction_p,
    skewness_p,
    two_sided_p,
    unpaired,
    unpaired_equivalence_p,
)

__all__ = [
    "ALPHA",
    "LEVEL",
    "NOTHING",
    "UNBOUNDED",
    "Comparison",
    "Finding",
    "Floats",
    "Interval",
    "against",
    "beyond_p",
    "detectable",
    "equivalence_p",
    "greater_p",
    "hedges_g",
    "hierarchical_bootstrap",
    "holm",
    "improvement",
    "largest_mean_p",
    "mean_interval",
    "power",
    "prediction_interval",
    "prediction_p",
    "restricted_mean",
    "seeds_needed",
    "share_arrived",
    "skewness_p",
    "two_sided_p",
    "unpaired",
    "unpaired_equivalence_p",
    "upper_sd",
]  # fmt: skip
