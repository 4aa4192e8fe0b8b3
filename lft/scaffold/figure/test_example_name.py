from pathlib import Path

import pandas as pd
from example_name import draw

from lft.config import load_profile
from lft.report.figures import Measured


def test_every_experiment_is_drawn() -> None:
    measured = Measured(load_profile(Path(__file__).parent / "profile.yaml"), Path())
    row = {"experiment": "demo", "trained_on": "sine", "tested_on": "sine", "method": "lft"}
    last = {"order": "first", "metric": "mse", "step": 5, "mean": 1.5, "seeds": 1, "std": 0.1}
    measured.__dict__["curves"] = pd.DataFrame([row | last])
    (drawing,) = draw(measured)
    assert drawing.data["mean"].tolist() == [1.5]
    assert "LFT 1.5" in drawing.alt
