"""Profiles: YAML files as validated, frozen settings. Keys, units and bounds are defined here.

:func:`load_profile` rejects unknown, duplicate, mistyped and out-of-range keys in one line that
names the key and the nearest valid key or the bound. Nothing here imports torch.
"""

from __future__ import annotations

from lft.config.base import Fraction, Mixture, Name, Order, Positive, Rate, Settings, digest
from lft.config.experiment import Experiment, Variant, tuner_class
from lft.config.families import (
    FAMILIES,
    AttackFamily,
    AttackLoss,
    ClassificationFamily,
    Family,
    FamilySettings,
    SineFamily,
    register_family,
)
from lft.config.finetuners import (
    FINETUNERS,
    AdamSettings,
    HandDesignedTuner,
    LearnedTuner,
    LSTMSettings,
    SGDSettings,
    Tuner,
    TunerSettings,
    register_finetuner,
)
from lft.config.loading import (
    find_profile,
    load_profile,
    register_installed,
    shipped_profiles,
)
from lft.config.problems import explain
from lft.config.profile import ALL, Cell, Plugins, Profile, Run
from lft.config.questions import Fork, Question, forks, load_questions
from lft.config.reading import read_yaml
from lft.config.schema import schema
from lft.config.sources import Source
from lft.config.theory import GapSettings, TheorySettings, VanishingSettings
from lft.config.training import (
    MamlSettings,
    Testing,
    Training,
    Validation,
    ZerothOrderSettings,
)
from lft.config.universes import Tuning, UniverseSettings
from lft.config.victims import LENET, LENET_SIDES, VictimSettings

__all__ = [
    "ALL",
    "FAMILIES",
    "FINETUNERS",
    "LENET",
    "LENET_SIDES",
    "AdamSettings",
    "AttackFamily",
    "AttackLoss",
    "Cell",
    "ClassificationFamily",
    "Experiment",
    "Family",
    "FamilySettings",
    "Fork",
    "Fraction",
    "GapSettings",
    "HandDesignedTuner",
    "LSTMSettings",
    "LearnedTuner",
    "MamlSettings",
    "Mixture",
    "Name",
    "Order",
    "Plugins",
    "Positive",
    "Profile",
    "Question",
    "Rate",
    "Run",
    "SGDSettings",
    "Settings",
    "SineFamily",
    "Source",
    "Testing",
    "TheorySettings",
    "Training",
    "Tuner",
    "TunerSettings",
    "Tuning",
    "UniverseSettings",
    "Validation",
    "VanishingSettings",
    "Variant",
    "VictimSettings",
    "ZerothOrderSettings",
    "digest",
    "explain",
    "find_profile",
    "forks",
    "load_profile",
    "load_questions",
    "read_yaml",
    "register_family",
    "register_finetuner",
    "register_installed",
    "schema",
    "shipped_profiles",
    "tuner_class",
]
