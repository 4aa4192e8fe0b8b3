"""Result folders: what a run writes, and how it is read and joined.

A result folder ``results/<profile>/`` contains::

    data/<source>.safetensors              images (lft.data)
    victims/<source>.safetensors, .json    victim weights, clean accuracy; <source>-seed<n> where
                                           every seed has its own victim
    runs/<experiment>/<trained_on>/<method>-<order>/seed<n>/
        weights.safetensors                meta-parameters: stages initial, halfway, best
        history.csv                        meta-training: HISTORY_COLUMNS
        run.json                           manifest; status "ok" or "diverged"
        measurements.csv                   its test tasks; may be gzipped (.csv.gz)
        examples.safetensors               attacks: pictures for the report; otherwise empty
    theory/<experiment>-seed<n>.csv, .json rows of THEORY_COLUMNS, and their manifest
    measurements.csv                       all measurements.csv, joined
    summary.csv                            means over test tasks: SUMMARY_COLUMNS
    cells.csv                              status of every cell: CELL_COLUMNS
    theory.csv                             all theory/*.csv, joined
    claims.json, claims.csv                a verdict on every claim: lft.report.claims.verdict
    alternatives.csv                       effect of each variant: ALTERNATIVE_COLUMNS
    tables/, figures/                      each as CSV and in forms for papers and pages
    report.html                            the page
    verdicts.md, numbers.md                its verdicts, and every method's outcome, for a README
    SHA256SUMS                             digests of these files; a run's folder has its own
    search.csv                             hyper-parameter searches only: SEARCH_COLUMNS
    universes/<experiment>/<n>.csv, .json  multiverse: a reading's measurements, UNIVERSE_COLUMNS of
                                           lft.results.universes, and its manifest
    shares.csv, decides.csv, outcomes.csv, distances.csv, curves/, multiverse.html
                                           multiverse: in how many readings claims hold, and why

Runs before version 0.2 have one file for all seeds instead of seed<n>/measurements.csv,
seed<n>/examples.safetensors and theory/<experiment>-seed<n>.csv. The first two are then in
``<method>-<order>/`` or ``all-<order>/``, and the third is theory/<experiment>.csv. Both
layouts can be read.
"""

from lft.results.schema import (
    ALTERNATIVE_COLUMNS,
    CELL_COLUMNS,
    HISTORY_COLUMNS,
    SEARCH_COLUMNS,
    SUMMARY_COLUMNS,
    THEORY_COLUMNS,
    Measurement,
)
from lft.storage.csv import join_csv, read_rows, write_frame, write_rows
from lft.storage.json import read_json, write_json

__all__ = [
    "ALTERNATIVE_COLUMNS",
    "CELL_COLUMNS",
    "HISTORY_COLUMNS",
    "SEARCH_COLUMNS",
    "SUMMARY_COLUMNS",
    "THEORY_COLUMNS",
    "Measurement",
    "join_csv",
    "read_json",
    "read_rows",
    "write_frame",
    "write_json",
    "write_rows",
]
