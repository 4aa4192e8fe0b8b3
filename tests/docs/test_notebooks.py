"""The notebooks run as they stand, and are stored without what running them leaves behind."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = code_cells(nbformat.read(path, as_version=4))
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


def test_the_attack_succeeds_and_is_drawn(tmp_path: Path) -> None:
    (path,) = (path for path in NOTEBOOKS if path.stem == "attack")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    (fooled,) = re.findall(r"fooled on (\d+)% of the images", text)
    assert int(fooled) >= 80
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)%", text)
    assert float(accuracy) > 85
    assert len(re.findall(r"other images of \d: \d+% fooled", text)) == 3
