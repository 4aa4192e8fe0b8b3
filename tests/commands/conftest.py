"""Result folders without training."""

from result_folders import built, complete, make, profile, results, sine

__all__ = ["built", "complete", "make", "profile", "results", "sine"]
