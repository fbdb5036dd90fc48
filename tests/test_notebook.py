"""Training from a Jupyter notebook: the lines of the manual, in a real kernel."""

import base64
import io
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_lines_of_the_manual_draw_the_curves_in_place(data_root, tmp_path: Path):
    (lines,) = re.findall(
        r"```python\n(from hydra.*?)```", (ROOT / "docs/tensorboard.md").read_text(), re.DOTALL
    )
    small = '"data.train_size=1000", "trainer.max_epochs=3"'
    lines, replaced = re.subn(r"overrides=\[.*?\]", f"overrides=[{small}]", lines)
    assert replaced == 1
    lines = lines.replace("train(cfg)", f'train(cfg, "{tmp_path}/run")')
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(lines)])
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = notebook.cells[0].outputs
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 1  # redrawn in place, not one under the other
    shown = Image.open(io.BytesIO(base64.b64decode(pictures[0]["data"]["image/png"])))
    assert shown.width > 800
    with Image.open(tmp_path / "run/figures/curves.png") as written:
        assert shown.tobytes() == written.tobytes()  # the last epoch is what one sees
    assert not [output for output in outputs if output.get("name") == "stderr"], outputs
    record = json.loads((tmp_path / "run/metrics.json").read_text())
    assert record["status"] == "finished"
    assert outputs[-1]["data"]["text/plain"] == str(record["val/loss"])
    assert (tmp_path / "run/.hydra/config.yaml").exists()
