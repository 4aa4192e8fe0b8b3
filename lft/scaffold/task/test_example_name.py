from example_name import ExampleNameSettings
from example_name.tasks import ExampleName

from lft.testing import check_task_family


def test_the_contract() -> None:
    check_task_family(ExampleName(ExampleNameSettings(support=5, query=5)))
