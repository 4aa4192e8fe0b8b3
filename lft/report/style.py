"""Labels, colours and line styles, defined once for all figures and tables."""

from __future__ import annotations

from typing import NamedTuple

from lft.config import Profile
from lft.errors import UsageError, suggestion
from lft.methods import METHODS, Method

ORDERS = {"first": "first order", "zeroth": "zeroth order"}
INK = "#1b1f24"
"""Text and axes."""
RULE = "#d9dee5"
"""Grid lines."""
CAPTION_COLUMNS = ("id", "section", "caption", "alt", "builder")
"""Columns of figures/captions.csv; ``section`` is the figure's section of the page, ``builder`` the
function that drew it."""
DASHES = ((1, 1), (4, 2), (6, 2, 1, 2), (8, 3), (3, 1, 1, 1, 1, 1))
"""On-off lengths in line widths, one for each variant of a method in turn."""


def theme() -> dict[str, str]:
    """Map the colours of the figures' files to CSS values of the page."""
    methods = {method.color: f"var(--{name}, {method.color})" for name, method in METHODS.items()}
    return {INK: "currentColor", RULE: "var(--line)", "#ffffff": "none", **methods}


class Look(NamedTuple):
    """How to draw a method.

    Attributes:
        label: name in legends.
        color: hexadecimal.
        dash: on-off lengths in line widths; empty for a solid line.
    """

    label: str
    color: str
    dash: tuple[int, ...]

    @property
    def line(self) -> str | tuple[int, tuple[int, ...]]:
        """The line style for matplotlib."""
        return (0, self.dash) if self.dash else "-"


class Style:
    """Looks of a profile's methods and labels of its mixtures.

    Colours distinguish methods. Dashes show what is learned, for readers who cannot see colours.
    Variants have the colour of their method and their own dash.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def method(self, experiment: str, name: str) -> Look:
        """Return the look of a method or variant.

        Raises:
            UsageError: the experiment has no method or variant of that name.
        """
        found = self.profile.experiment(experiment)
        known = [*found.methods, *found.variants]
        if name not in known:
            raise UsageError(f"{experiment} has no method {name!r}{suggestion(name, known)}")
        method = found.base_method(name)
        variants = list(found.variants)
        dash = DASHES[variants.index(name) % len(DASHES)] if name in variants else _dash(method)
        return Look(found.label(name), method.color, dash)

    def mixture(self, experiment: str, mixture: str) -> str:
        """Return the label of a mixture; an asterisk marks stand-in data."""
        return " + ".join(self._family(experiment, name) for name in mixture.split("+"))

    @property
    def footnote(self) -> str:
        """Explanation of the asterisk; empty if no data are stand-ins."""
        stand_ins = any(source.stands_in_for for source in self.profile.sources.values())
        return "* Stands in for the paper's data." if stand_ins else ""

    def _family(self, experiment: str, name: str) -> str:
        family = self.profile.experiment(experiment).families[name]
        source = getattr(family, "source", None)
        if source is None:
            return name
        settings, own = self.profile.sources[source], getattr(family, "label", None)
        label = f"{own or settings.label}{'*' if settings.stands_in_for else ''}"
        net = getattr(family, "net", None)
        return label if own or net is None else f"{label} ({net.upper()})"


def _dash(method: Method) -> tuple[int, ...]:
    if method.outer != "query":
        return {"joint": (5, 2), "support": (5, 2, 1, 2), "union": (3, 2)}[method.outer]
    return {"finetuner": (), "both": (9, 2), "initialisation": (6, 2, 1, 2), "step_size": (1, 1)}[
        method.learns
    ]
