"""Read thousands of damaged and hostile folders: python -m tests.tools.fuzz_folders [COUNT] [SEED] [FIRST]

Makes a small valid run of several kinds and a sweep, then COUNT mutants of them. Each is read by one
command, in a process of its own. A mutant passes if the command ends well, or with one line that
says what is wrong; soon, in little memory, with no other process started, and with everything
outside of the folder as it was. A line for each that fails says how to make it again.
"""

import argparse
import atexit
import contextlib
import ctypes
import importlib
import json
import math
import os
import random
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from unicodedata import category

# Before torch is imported: a thread that waits for another takes ten times as long.
os.environ["OMP_NUM_THREADS"] = "1"

from tests.tools.mutations import CANARY, SECRET, is_file, mutate

ROOT = Path(__file__).parents[2]
SECONDS, MEMORY = 20, 1_500_000_000  # that a command may take; docs/trust.md promises them
ADDRESSES = 12 << 30  # bytes that a process may map, so that a failure ends it and not the machine
SMALL = ["data.train_size=300", "data.val_size=200", "~callbacks.figures", "~logger"]
KINDS = {  # valid run -> the arguments that make it
    "scratch": ["model=scratch", "trainer.max_epochs=2", *SMALL],
    "concise": ["model=concise", "trainer.max_epochs=1", *SMALL],
    "grid": ["model=grid", "model.lr=[0.1,0.2]", "trainer.max_epochs=2", *SMALL],
    "linear": ["model=linear_scratch", "data=synthetic", "trainer.max_epochs=2", *SMALL],
    "swing": ["sweep=lr_gamma", "trainer.max_epochs=6", *SMALL],  # the jobs of the sweep
}
# What the commands import, so that no process has to. The commands themselves are not among them.
IMPORTED = ["src.training.experiment", "src.training.figures", "src.charts.curves"]
IMPORTED += [
    "src.predict.prediction",
    "src.evaluate.scores",
    "src.sweeps.summary",
    "src.oscillation",
]
IMPORTED += ["src.data.fashion_mnist", "src.data.synthetic", "src.cli.command"]
IMPORTED += ["src.models.closed_form", "src.models.concise", "src.models.grid"]
# Events of Python's audit hooks that reading a folder has no reason for.
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.spawn")
FORBIDDEN += ("os.posix_spawn", "pty.spawn", "socket.connect", "socket.bind")


class Ended(NamedTuple):
    """How a command ended: its exit status (-N by signal N), what it printed, what it took, and
    which of the forbidden things it did."""

    status: int
    output: str
    seconds: float
    memory: int
    forbidden: str


# --- processes ------------------------------------------------------------------------------------


def run_in_child(function, folder: Path) -> Ended:
    """Call the function in a forked process, in the folder."""
    output, events = folder / "output", folder / "events"
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        be_child(function, folder, output, events)
    status, usage = wait(process, began + SECONDS)
    return Ended(
        status,
        output.read_text("utf-8", "surrogateescape") if output.exists() else "",
        time.monotonic() - began,
        1024 * usage.ru_maxrss + mapped_files(),
        events.read_text("utf-8", "surrogateescape") if events.exists() else "",
    )


def be_child(function, folder: Path, output: Path, events: Path) -> None:
    """Call the function as `python -m` would call a command, and end the process."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the fuzzer
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        terminal = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(terminal, 1)
        os.dup2(terminal, 2)
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        watch(events)
        try:
            function()
        except SystemExit as error:
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
        atexit._run_exitfuncs()  # the last that a command registers ends the process
    except BaseException:
        traceback.print_exc()
    os._exit(99)


def watch(events: Path) -> None:
    """Let the file have a line for each of the FORBIDDEN events from here on."""
    log = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple) -> None:
        opens_canary = event == "open" and CANARY in str(arguments[0])
        if event in FORBIDDEN or opens_canary:
            os.write(log, f"{event} {arguments}\n".encode(errors="replace"))

    sys.addaudithook(hook)


def wait(process: int, end: float) -> tuple[int, resource.struct_rusage]:
    """The exit status of the process, which is killed at the end, and what it took."""
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            _, status, usage = os.wait4(process, 0)
            return os.waitstatus_to_exitcode(status), usage
        time.sleep(0.002)


def mapped_files() -> int:
    """Bytes of the files that this process has in memory, most of them libraries.

    A forked process counts of them only those that it touches itself: a command that is started in
    the usual way has all of them.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return 1024 * int(line.split()[1])
    return 0


# --- folders --------------------------------------------------------------------------------------


def make_valid(folder: Path) -> None:
    """Train a small run of each kind there, and make a sweep of four jobs."""
    from omegaconf import OmegaConf

    from src.training import train
    from tests.conftest import compose_config

    for name, arguments in KINDS.items():
        cfg = compose_config("train", *arguments)
        if "root" in cfg.data:
            OmegaConf.update(cfg, "data.root", str(ROOT / "data"))
        train(cfg, folder / name)
    jobs = []
    for number, (lr, gamma) in enumerate([(0.1, 0.9), (0.1, 1.0), (0.3, 0.9), (0.3, 1.0)]):
        jobs.append([f"model.lr={lr}", f"model.gamma={gamma}"])
        shutil.copytree(folder / "swing", folder / "sweep" / str(number))
    plan = {"command": ["sweep=lr_gamma"], "config": "train", "jobs": jobs}
    (folder / "sweep/sweep.yaml").write_text(json.dumps(plan))
    (folder / "sweep/.conf").mkdir()
    (folder / "sweep/.conf/train.yaml").write_text("seed: 0\n")
    shutil.rmtree(folder / "swing")


def make_canary(folder: Path, run: Path) -> Path:
    """A run of the user's beside the folders that are read."""
    canary = folder / CANARY
    shutil.copytree(run, canary / "run")
    (canary / "run/metrics.json").write_text(json.dumps({"status": "finished", "reason": SECRET}))
    (canary / "diary").write_text(f"{SECRET}\n")
    return canary


def contents(folder: Path) -> dict[str, object]:
    """All that is in the folder, by path: what the files hold, where links lead, their times."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        held = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path)] = (status.st_mode, status.st_mtime_ns, held)
    return found


# --- commands -------------------------------------------------------------------------------------


CONFIG, RECORD, TABLE, PLAN = "config.yaml", "metrics.json", "metrics.csv", "sweep.yaml"
# command, its further arguments, and the files that it reads
RUN = [
    ("src.evaluate", [], [CONFIG, CONFIG, RECORD, "best.ckpt", "best.ckpt"]),
    ("src.evaluate", ["checkpoint=last"], [CONFIG, RECORD, "last.ckpt", "last.ckpt"]),
    ("src.predict", [], [CONFIG, "best.ckpt"]),
    ("src.compare", [], [CONFIG, RECORD, TABLE, "best.ckpt"]),
]
SWEEP = [
    ("src.sweeps", [], [PLAN, RECORD]),
    ("src.oscillation", [], [PLAN, RECORD, TABLE]),
]


def command_line(module: str, more: list[str], folder: Path, other: Path) -> list[str]:
    """The command that reads the folder."""
    if module == "src.compare":
        return [module, str(other), os.fspath(folder)]
    if module in ("src.sweeps", "src.oscillation"):
        return [module, os.fspath(folder)]
    return [module, f"run={folder}", f"data.root={ROOT / 'data'}", *more]


def call(arguments: list[str]) -> None:
    module, *rest = arguments
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def complaints(ended: Ended, arguments: list[str], folder: Path) -> list[str]:
    """What is wrong with the way in which the command has ended."""
    found = []
    lines = ended.output.removesuffix("\n").split("\n")
    details = [line for line in lines[1:] if line.startswith("  - ")]
    refused = lines[0].startswith("error: ") and len(lines) == 1 + len(details)
    if ended.seconds > SECONDS:
        found.append(f"{ended.seconds:.1f} s")
    elif ended.status not in (0, 1) or (ended.status == 1 and not refused):
        found.append(f"status {ended.status}: {lines[-1][:300]!r}")
    if ended.memory > MEMORY:
        found.append(f"{ended.memory / 1e6:.0f} MB")
    if not all(map(printed, ended.output.replace("\n", ""))):
        found.append("the output steers a terminal")
    if ended.forbidden:
        found.append(ended.forbidden.splitlines()[0][:300])
    if SECRET in ended.output or "root:x:" in ended.output:
        found.append("the output shows a file of the user's")
    if ended.status == 0 and any(path.is_symlink() for path in (folder / "mutants").rglob("*")):
        found.append("a link was passed over")
    if ended.status == 0 and arguments[0] == "src.evaluate":
        found += unlike_metrics(Path(arguments[1].removeprefix("run=")) / "evaluation.json")
    return found


def printed(character: str) -> bool:
    return character.isprintable() or category(character) == "Zs"


def unlike_metrics(path: Path) -> list[str]:
    """What is wrong with the file that src.evaluate writes."""
    result = json.loads(path.read_text())
    losses = [result.get("test/loss"), result.get("test/acc", 0.0)]
    if not all(isinstance(each, float) and math.isfinite(each) for each in losses):
        return [f"evaluation.json has {losses}"]
    return []


def try_mutant(valid: Path, place: Path, seed: int, number: int) -> tuple[str, str, list[str]]:
    """Make the mutant and read it: what was changed, the command, and what is wrong."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choice(["scratch", "concise", "grid", "linear", "sweep", "sweep"])
    module, more, read = rng.choice(SWEEP if kind == "sweep" else RUN)
    canary = make_canary(place, valid / "scratch")
    (place / "work").mkdir()
    with warnings.catch_warnings(action="ignore"):  # torch's, of the tensors that a mutant has
        folder, changes = mutate(rng, valid / kind, place / "mutants", read)
    arguments = command_line(module, more, folder, valid / "scratch")
    before = contents(canary), sorted(os.listdir(place))
    ended = run_in_child(lambda: call(arguments), place / "work")
    found = complaints(ended, arguments, place)
    if (contents(canary), sorted(os.listdir(place))) != before:
        found.append("a file outside of the folder has changed")
    written = [*(place / "work").rglob("*"), *(place / "mutants").rglob("*")]
    for path in written:
        if is_file(path) and SECRET.encode() in path.read_bytes():
            found.append(f"{path.name} holds a file of the user's")
    what = f"{kind}: {'; '.join(changes)}"
    if found:
        with contextlib.suppress(OSError):
            (place / "output").write_text(ended.output, errors="surrogateescape")
    return what, f"{' '.join(arguments)} -> {ended.status}", found


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.tools.fuzz_folders")
    parser.add_argument("count", nargs="?", type=int, default=2000)
    parser.add_argument("seed", nargs="?", type=int, default=0)
    parser.add_argument("first", nargs="?", type=int, default=0, help="number of the first mutant")
    options = parser.parse_args()
    for name in IMPORTED:
        importlib.import_module(name)
    base = Path(tempfile.mkdtemp(prefix="fuzz"))
    made = run_in_child(lambda: make_valid(base / "valid"), base)
    if not (base / "valid/sweep/.conf/train.yaml").exists():
        print(made.output)
        return 1
    failures, statuses, began = 0, Counter(), time.monotonic()
    for number in range(options.first, options.first + options.count):
        place = base / str(number)
        place.mkdir()
        what, how, found = try_mutant(base / "valid", place, options.seed, number)
        statuses[how.rpartition(" ")[2]] += 1
        if found:
            failures += 1
            again = f"python -m tests.tools.fuzz_folders 1 {options.seed} {number}"
            text = f"FAILED {what}\n  {how}: {'; '.join(found)}\n  {place}; again: {again}"
            print(text.encode("unicode_escape").decode().replace("\\n", "\n"), flush=True)
        else:
            shutil.rmtree(place)
    passed = options.count - failures
    ends = ", ".join(f"{count} with status {status}" for status, count in statuses.items())
    print(f"{passed} of {options.count} passed, seed {options.seed}; they ended {ends}")
    print(f"{time.monotonic() - began:.0f} s")
    if not failures:
        shutil.rmtree(base)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
