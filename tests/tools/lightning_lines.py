"""Type what people who know Lightning and Hydra type: python -m tests.tools.lightning_lines

Each line follows `python -m src.train data.train_size=2000 trainer.max_epochs=3`. A line is right if
its run finishes, evaluate repeats its results to the last digit, and resume finds nothing to do. It
is refused if it ends with status 1 and one line that says what to take instead.
"""

import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from src.runs import Run
from tests.conftest import ROOT

BEGIN = "data.train_size=2000 trainer.max_epochs=3"
OF_LIGHTNING = "lightning.pytorch.callbacks"
RIGHT = [
    "trainer.fast_dev_run=true",
    "trainer.fast_dev_run=3",
    "trainer.limit_train_batches=0.5",
    "trainer.limit_val_batches=2 trainer.limit_test_batches=2",
    "trainer.limit_val_batches=0",
    "trainer.check_val_every_n_epoch=2",
    "trainer.max_time=00:00:10:00",
    "trainer.precision=bf16-mixed",
    "trainer.precision=bf16-mixed model=concise",
    "trainer.precision=bf16-mixed model=closed_form",
    "trainer.precision=bf16-mixed model=grid",
    "trainer.precision=64-true model=scratch",
    "trainer.precision=64-true model=closed_form",
    "trainer.precision=64 model=concise",
    "trainer.precision=64-true model=grid",
    "trainer.precision=64-true data=synthetic model=linear_scratch",
    "trainer.precision=64-true data=synthetic model=linear_concise",
    "trainer.deterministic=true",
    "trainer.detect_anomaly=true",
    "trainer.profiler=simple",
    "trainer.profiler=advanced",
    "trainer.profiler=pytorch",
    "trainer.accumulate_grad_batches=2 model=concise",
    "trainer.gradient_clip_val=0.5 model=concise",
    "trainer.gradient_clip_val=0.5 trainer.gradient_clip_algorithm=value model=concise",
    "++trainer.log_every_n_steps=10",
    "++trainer.min_epochs=2",
    "++trainer.inference_mode=false",
    "++trainer.benchmark=true",
    "++trainer.enable_model_summary=true",
    "trainer=cpu",
    "trainer.accelerator=auto",
    "logger=csv",
    "logger=[tensorboard,csv]",
    "logger=mlflow",
    "logger=wandb logger.wandb.offline=true",
    "logger=null",
    f"+callbacks.lr._target_={OF_LIGHTNING}.LearningRateMonitor",
    f"+callbacks.summary._target_={OF_LIGHTNING}.ModelSummary",
    f"+callbacks.summary._target_={OF_LIGHTNING}.RichModelSummary",
    f"+callbacks.stats._target_={OF_LIGHTNING}.DeviceStatsMonitor",
    f"+callbacks.more._target_={OF_LIGHTNING}.ModelCheckpoint +callbacks.more.every_n_epochs=1 "
    "+callbacks.more.save_top_k=-1",
    f"+callbacks.more._target_={OF_LIGHTNING}.ModelCheckpoint +callbacks.more.monitor=val/loss",
    "model=concise ++model.optimizer.name=Adam",
    "model=concise ++model.optimizer.name=SGD ++model.optimizer.momentum=0.9 "
    "++model.optimizer.nesterov=true",
    "model=concise ++model.scheduler.name=CosineAnnealingLR ++model.scheduler.T_max=3",
    "callbacks=null",
]
REFUSED = [
    "trainer.accumulate_grad_batches=2 model=scratch",
    "trainer.gradient_clip_val=0.5 model=scratch",
    "trainer.gradient_clip_val=1 model=grid",
    "++trainer.max_steps=11",
    "++trainer.val_check_interval=0.25",
    "++trainer.overfit_batches=2",
    "++trainer.callbacks=[]",
    "++trainer.logger=false",
    "++trainer.num_nodes=2",
    "++trainer.plugins=[]",
    "++trainer.default_root_dir=elsewhere",
    "++trainer.barebones=true",
    "trainer.precision=16-mixed",
    "trainer.precision=bf16-true",
    "trainer.limit_test_batches=0",
    "trainer.limit_val_batches=0 model=grid",
    "trainer=mps",
    f"+callbacks.ema._target_={OF_LIGHTNING}.WeightAveraging",
    f"+callbacks.swa._target_={OF_LIGHTNING}.StochasticWeightAveraging +callbacks.swa.swa_lrs=0.1",
    f"+callbacks.bar._target_={OF_LIGHTNING}.RichProgressBar",
    f"+callbacks.t._target_={OF_LIGHTNING}.Timer",
    "model=concise ++model.optimizer.name=os.system",
    "experiment=nosuch",
]


def run_module(module: str, arguments: str, folder: Path) -> tuple[int, str]:
    """The status of `python -m module arguments` in the folder, and what it printed."""
    command = [sys.executable, "-m", module, *shlex.split(arguments)]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def what_is_wrong(line: str, refused: bool, folder: Path) -> tuple[str, list[str]]:
    """What is wrong with how the line ends, and what the run records as untested."""
    root = "" if "data=synthetic" in line else f"data.root={ROOT}/data"
    arguments = f"{BEGIN} {root} {line} hydra.run.dir=run"
    status, output = run_module("src.train", arguments, folder)
    last = output.strip().splitlines()[-1:]
    if refused:
        right = status == 1 and len(output.splitlines()) == 1
        return ("" if right else f"status {status}: {output[-500:]}"), []
    if status:
        return f"status {status}: {' '.join(last)}", []
    if "Traceback" in output or "Warning" in output:
        return f"it prints {output[-800:]}", []
    _, evaluated = run_module("src.evaluate", f"run=run {root}", folder)
    if "the same test metrics" not in evaluated:
        return f"evaluate: {evaluated[-300:]}", []
    _, resumed = run_module("src.resume", "run=run", folder)
    if "nothing is left to do" not in resumed:
        return f"resume: {resumed[-300:]}", []
    return "", Run(folder / "run").results().get("untested", [])


def try_line(line: str, refused: bool) -> bool:
    """Whether the line ends as it must; says how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        problem, untested = what_is_wrong(line, refused, Path(folder))
    degree = "refused" if refused else "guaranteed"
    if untested:
        degree = f"accepted, untested: {', '.join(untested)}"
    print(f"{line}\n    {f'WRONG: {problem}' if problem else degree}", flush=True)
    return not problem


def main() -> None:
    """Try all lines, or those with one of the words of the command line in them."""
    words = sys.argv[1:] or [""]
    tried = []
    with ThreadPoolExecutor(2) as pool:
        for refused, lines in ((False, RIGHT), (True, REFUSED)):
            for line in lines:
                if any(word in line for word in words):
                    tried.append(pool.submit(try_line, line, refused))
    right = sum(attempt.result() for attempt in tried)
    print(f"{right} of {len(tried)} lines are right or refused")
    sys.exit(right != len(tried))


if __name__ == "__main__":
    main()
