"""The method table."""

from __future__ import annotations

import pytest

from lft.errors import NotApplicable, UsageError
from lft.methods import METHODS, get_method
from lft.shapes import Shapes


def test_the_table_says_what_the_paper_says() -> None:
    maml, l2o, lft = METHODS["maml"], METHODS["l2o"], METHODS["lft"]
    assert (maml.learns, maml.tuner, maml.outer) == ("initialisation", "sgd", "query")
    assert (l2o.learns, l2o.tuner, l2o.outer) == ("finetuner", "lstm", "joint")
    assert (lft.learns, lft.tuner, lft.outer) == ("finetuner", "lstm", "query")
    assert maml.meta_gradient == "exact"


def test_names_labels_and_colours_are_told_apart() -> None:
    for attribute in ("label", "color"):
        assert len({getattr(method, attribute) for method in METHODS.values()}) == len(METHODS)
    assert all(name == method.name for name, method in METHODS.items())


def test_an_unknown_method_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown method 'mamml'; did you mean 'maml'"):
        get_method("mamml")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_only_a_learned_initialisation_needs_congruous_tasks(name: str) -> None:
    method = METHODS[name]
    same: Shapes = {"v": (2,), "w": (3, 5)}
    other: Shapes = {"v": (2,), "w": (3, 4)}
    method.check_applicable({"a": same, "b": dict(same)})
    if method.learns_initialisation:
        with pytest.raises(NotApplicable, match=r"a has w 3x5; b has w 3x4$"):
            method.check_applicable({"a": same, "b": other})
    else:
        method.check_applicable({"a": same, "b": other})
