from example_name import METHOD

from lft.testing import check_fine_tuner


def test_the_contract() -> None:
    check_fine_tuner(METHOD)
