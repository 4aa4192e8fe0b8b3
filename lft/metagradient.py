"""The meta-gradient under its former name; see :mod:`lft.meta.estimators`."""

from lft.meta.estimators import Estimate, meta_gradient
from lft.meta.estimators.base import step_weights
from lft.meta.estimators.dropped import inputs_to_meta

__all__ = ["Estimate", "inputs_to_meta", "meta_gradient", "step_weights"]
