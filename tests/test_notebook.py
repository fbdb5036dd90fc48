"""Training from a Jupyter notebook: the lines of the manual, in a real kernel."""

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from nbclient import NotebookClient
from PIL import Image

from src.runs import Run, write
from tests.conftest import ROOT


def cells(data_root: Path, folder: Path) -> list[str]:
    """Those of the manual, made small, with the run and the sweep in `folder`."""
    page = (ROOT / "docs/tensorboard.md").read_text()
    few = f'"data.train_size=1000", "data.val_size=500", "trainer.max_epochs=3", "data.root={data_root}"'
    found = []
    for cell in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        cell = re.sub(r"overrides=\[.*?\]", f"overrides=[{few}]", cell)
        cell = cell.replace("train(cfg)", f'train(cfg, "{folder}/run")')
        found.append(re.sub(r"outputs/(run|sweep)s/NAME", rf"{folder}/\1", cell))
    return found


def execute(*sources: str, allow_errors: bool = False) -> list[list]:
    """Run the cells in a real kernel in the project's folder; their outputs."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources]
    )
    place = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=240, resources=place, allow_errors=allow_errors).execute()
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.slow
def test_the_lines_of_the_manual_train_and_show_a_run_and_a_sweep(data_root, tmp_path):
    write(
        tmp_path / "sweep/sweep.yaml",
        yaml.safe_dump({"command": [], "jobs": [["seed=0"], ["seed=1"]]}),
    )
    outputs, used, loaded, swept = execute(*cells(data_root, tmp_path))
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 1  # redrawn in place, not one under the other
    shown = Image.open(io.BytesIO(base64.b64decode(pictures[0]["data"]["image/png"])))
    assert shown.width > 800
    with Image.open(tmp_path / "run/figures/curves.png") as written:
        assert shown.tobytes() == written.tobytes()  # the last epoch is what one sees
    assert not [output for output in outputs if output.get("name") == "stderr"], outputs
    run = Run(tmp_path / "run")
    assert run.results()["status"] == "finished"
    assert (run.path / ".hydra/config.yaml").exists()
    table = run._repr_markdown_()
    assert f"{run.metrics['test/acc']:.4f}" in table
    assert outputs[-1]["data"]["text/markdown"] == loaded[-1]["data"]["text/markdown"] == table
    assert used[-1]["data"]["text/plain"] == str(
        (run.metrics["test/acc"], torch.Size([784, 10]), 1000)
    )
    assert swept[-1]["data"]["text/markdown"].startswith("2 jobs: 2 not started.")


@pytest.mark.slow
def test_an_interrupted_cell_says_how_to_go_on_from_python(data_root, tmp_path):
    training, *_ = cells(data_root, tmp_path)
    run = Run(tmp_path / "run")
    stop = f"""
import os, pathlib, signal, threading, time
def press():
    while not pathlib.Path("{run.last}").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)  # as Jupyter's stop button does
threading.Thread(target=press, daemon=True).start()
"""
    shorten = f"""
from src.runs import Run
run = Run("{run.path}")
cfg = run.settings()
cfg["trainer"]["max_epochs"] = len(run.epochs()) + 1
"""
    resuming = f'from src.training import resume\nresume("{run.path}", cfg)'
    endless = training.replace("max_epochs=3", "max_epochs=5000")
    _, interrupted, _, resumed = execute(stop, endless, shorten, resuming, allow_errors=True)
    (error,) = (output for output in interrupted if output["output_type"] == "error")
    assert (error["ename"], error["evalue"]) == (
        "KeyboardInterrupt",
        f"to go on: resume('{run.path}')",
    )
    assert run.results()["status"] == "finished", resumed
    assert resumed[-1]["data"]["text/markdown"] == run._repr_markdown_()
