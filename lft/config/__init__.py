"""Profiles: YAML -> validated, frozen settings. Keys, units and bounds are defined here.

A profile is complete: it names every hyper-parameter once. :func:`load_profile` refuses unknown,
duplicate, mistyped and out-of-range keys with one line that names the key and the nearest valid
key or the bound. Nothing here imports torch.
"""

from __future__ import annotations

from lft.config.base import Fraction, Mixture, Name, Order, Positive, Rate, Settings, digest
from lft.config.experiment import (
    Experiment,
    LSTMSettings,
    MamlSettings,
    StepSizes,
    Testing,
    Training,
    Validation,
    Variant,
    ZerothOrderSettings,
)
from lft.config.families import (
    FAMILIES,
    AttackFamily,
    AttackLoss,
    ClassificationFamily,
    Family,
    FamilySettings,
    SineFamily,
    Source,
    register_family,
)
from lft.config.loading import (
    find_profile,
    load_profile,
    read_yaml,
    register_installed,
    shipped_profiles,
)
from lft.config.problems import explain
from lft.config.profile import (
    ALL,
    Cell,
    GapSettings,
    Plugins,
    Profile,
    Run,
    TheorySettings,
    VanishingSettings,
    VictimSettings,
)

__all__ = [
    "ALL",
    "FAMILIES",
    "AttackFamily",
    "AttackLoss",
    "Cell",
    "ClassificationFamily",
    "Experiment",
    "Family",
    "FamilySettings",
    "Fraction",
    "GapSettings",
    "LSTMSettings",
    "MamlSettings",
    "Mixture",
    "Name",
    "Order",
    "Plugins",
    "Positive",
    "Profile",
    "Rate",
    "Run",
    "Settings",
    "SineFamily",
    "Source",
    "StepSizes",
    "Testing",
    "TheorySettings",
    "Training",
    "Validation",
    "VanishingSettings",
    "Variant",
    "VictimSettings",
    "ZerothOrderSettings",
    "digest",
    "explain",
    "find_profile",
    "load_profile",
    "read_yaml",
    "register_family",
    "register_installed",
    "shipped_profiles",
]
