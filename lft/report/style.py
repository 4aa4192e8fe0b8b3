"""Labels and colours: one table for every figure and table of a report."""

from __future__ import annotations

from typing import NamedTuple

from lft.config import Profile
from lft.errors import UsageError, suggestion
from lft.methods import get_method

ORDERS = {"first": "first order", "zeroth": "zeroth order"}


class Look(NamedTuple):
    """How a method is shown."""

    label: str
    color: str
    dash: str  # a matplotlib line style


class Style:
    """Looks of a profile's methods and labels of its mixtures.

    Variants take the colour of their method, drawn dashed.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def method(self, experiment: str, name: str) -> Look:
        """Look of a method or variant.

        Raises:
            UsageError: the experiment has no method or variant of that name.
        """
        found = self.profile.experiment(experiment)
        known = [*found.methods, *found.variants]
        if name not in known:
            raise UsageError(f"{experiment} has no method {name!r}{suggestion(name, known)}")
        dash = "--" if name in found.variants else "-"
        return Look(found.label(name), found.base_method(name).color, dash)

    def palette(self, experiment: str) -> dict[str, str]:
        """Colour of every method label of an experiment."""
        found = self.profile.experiment(experiment)
        looks = [self.method(experiment, name) for name in (*found.methods, *found.variants)]
        return {look.label: look.color for look in looks}

    def mixture(self, experiment: str, mixture: str) -> str:
        """Label of a mixture, with what its sources stand in for."""
        return " + ".join(self._family(experiment, name) for name in mixture.split("+"))

    def _family(self, experiment: str, name: str) -> str:
        family = self.profile.experiment(experiment).families[name]
        source = getattr(family, "source", None)
        if source is None:
            return name
        settings = self.profile.sources[source]
        net = getattr(family, "net", None)
        label = f"{settings.label}*" if settings.stands_in_for else settings.label
        return label if net is None else f"{label} ({net.upper()})"


def method_label(name: str) -> str:
    """Label of a row of the method table."""
    return get_method(name).label
