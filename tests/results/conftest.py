"""Result folders without training."""

from result_folders import make, profile, results, sine

__all__ = ["make", "profile", "results", "sine"]
