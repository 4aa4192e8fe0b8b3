"""The projects that ``lft new`` writes, through the whole program."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from interpreter import install, python

from lft.scaffold import create

COMMANDS = """
import json, sys
from lft.cli import app
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
"""


@pytest.mark.parametrize("kind", ["method", "task", "figure"])
def test_a_template_passes_its_own_test(kind: str, tmp_path: Path) -> None:
    folder = create(kind, "my-own", tmp_path)  # type: ignore[arg-type]
    assert "1 passed" in python("-m", "pytest", "-q", cwd=folder)
    written = [path for path in folder.rglob("*.*") if path.suffix in (".py", ".toml", ".yaml")]
    assert len(written) >= 4
    assert not [path for path in written if "xample" in str(path) + path.read_text()]


def test_plug_ins_take_part_from_training_to_table_and_figure(tmp_path: Path) -> None:
    for kind, name in (("method", "momentum"), ("task", "lines"), ("figure", "bars")):
        create(kind, name, tmp_path)  # type: ignore[arg-type]
    values = yaml.safe_load((tmp_path / "lines/profile.yaml").read_text())
    values["plugins"] = {
        "finetuners": ["momentum/momentum:MomentumSettings"],
        "methods": ["momentum/momentum:METHOD"],
        "tasks": ["lines/lines:LinesSettings"],
        "figures": ["bars/bars/__init__.py:draw"],
    }
    values["experiments"]["demo"] |= {"methods": ["momentum", "sgd"], "title": "My lines"}
    values["experiments"]["demo"]["variants"] = {
        "slow": {"method": "momentum", "label": "Slow", "set": {"training.learning_rate": 1e-3}}
    }
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(values))
    names = ("momentum", "sgd", "slow")
    runs = [[step, "demo", "points", name] for name in names for step in ("train", "evaluate")]
    export = ["export", "results/lines", "demo", "points", "momentum", "-o", "mine.safetensors"]
    options = ["--profile", "profile.yaml"]
    commands = [command + options for command in [*runs, ["report"]]]
    python("-c", COMMANDS, json.dumps([*commands, export]), cwd=tmp_path)
    results = tmp_path / "results/lines"
    with (results / "tables/table-demo.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file) if row["metric"] == "mse"}
    assert set(rows) == set(names)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert all(float(row["mean"]) > 0 for row in rows.values())
    page = (results / "report.html").read_text()
    for text in ("My lines", "Momentum", 'id="figure-demo"', 'id="bars-demo"', "table-ablations",
                 "largest error", 'id="figure-demo-worst_error"'):  # fmt: skip
        assert text in page, text
    # A fine-tuner of one's own can be loaded where its plug-in is installed.
    load = "import lft; print(lft.load('mine.safetensors').card.method)"
    refused = f"try:\n {load}\nexcept Exception as error: print(error)"
    assert "unknown kind 'momentum'" in python("-c", refused, cwd=tmp_path)
    installed = install(
        tmp_path, "momentum", finetuners="momentum:MomentumSettings", methods="momentum:METHOD"
    )
    assert python("-c", load, cwd=tmp_path, PYTHONPATH=installed) == "momentum\n"


def test_the_workflow_runs_plug_ins_and_watches_their_source(tmp_path: Path) -> None:
    folder = create("method", "momentum", tmp_path)
    trained = "results/momentum/runs/demo/sine/momentum-first/seed0/weights.safetensors"

    def snakemake(*options: str) -> str:
        command = ["-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"), *options]
        profile = f"profile={folder}/profile.yaml"
        return python(*command, trained, "--cores", "1", "--config", profile, cwd=tmp_path)

    snakemake()
    assert (tmp_path / trained).is_file()
    assert "Nothing to be done" in snakemake("-n")
    with (folder / "momentum/tuner.py").open("a") as source:
        source.write("# edited\n")
    assert "Params have changed" in snakemake("-n")
