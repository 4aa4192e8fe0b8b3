from example_name import ExampleNameSettings

from lft.testing import check_fine_tuner


def test_the_contract() -> None:
    check_fine_tuner(ExampleNameSettings())
