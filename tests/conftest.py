"""Fixtures: the real data, configs, and the command line in real processes."""

import contextlib
import copy
import ctypes
import functools
import multiprocessing
import os
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

# Before torch is imported: on a busy machine two threads that wait for each other take ten times as
# long.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

# src is imported where it is used: the process that hands out the tests needs none of it, and no
# torch.

# a shell starts what is to run in the background with Ctrl-C ignored; tests send it all the same
signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).parent.parent
# How messages name this Python in a command to paste: shorter, if the environment is activated.
PYTHON = "python" if shutil.which("python") == sys.executable else sys.executable
Plugins.instance()  # Hydra looks for its plugins once, and not in every command that is forked from here


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What only the thorough suite tries is no part of the quick one either."""
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with the real FashionMNIST. In CI it must be had; elsewhere the test skips with the
    reason."""
    from src.data import sources
    from src.data.fashion_mnist import FILES
    from src.errors import UserError

    cfg = OmegaConf.load(ROOT / "conf/data/fashion_mnist.yaml")
    root = ROOT / cfg.root
    try:
        sources.provide(
            root / "FashionMNIST/raw",
            "FashionMNIST",
            FILES,
            system_copies=list(cfg.system_copies),
            mirrors=list(cfg.mirrors),
            debian_package=cfg.debian_package,
        )
    except UserError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return root


def compose_config(name: str, *overrides: str, conf: Path = ROOT / "conf") -> DictConfig:
    """The config of the entry point `name`."""
    return copy.deepcopy(composed(name, overrides, conf))


@functools.cache  # it takes 0.1 s, and many tests begin with the same one
def composed(name: str, overrides: tuple[str, ...], conf: Path) -> DictConfig:
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@pytest.fixture(scope="session")
def config(data_root: Path) -> Callable[..., DictConfig]:
    """config(*overrides) composes the config of src.train."""

    def of_train(*overrides: str, **options) -> DictConfig:
        cfg = compose_config("train", *overrides, **options)
        if "root" in cfg.data:
            cfg.data.root = str(data_root)
        return cfg

    return of_train


def build(cfg: DictConfig, key: str, **objects: Any) -> Any:
    """The data, model, trainer or callback at `key` of the config, as a run has it."""
    from src.runs.build import build as build_at
    from src.runs.build import build_model
    from src.runs.config import plain
    from src.training.arguments import trainer_arguments
    from src.training.trainer import build_trainer

    settings = plain(cfg)
    if key == "trainer":
        return build_trainer(trainer_arguments(settings), **objects)
    if key == "model":
        return build_model(settings, build(cfg, "data"))
    group, _, name = key.partition(".")
    return build_at(key, settings[group][name] if name else settings[group], **objects)


def made(key: str, kind: type, settings: dict[str, Any], **objects: Any) -> Any:
    """An object of the class as the settings at `key` of a config describe it."""
    from src.runs.build import build as build_at

    return build_at(
        key, {"_target_": f"{kind.__module__}.{kind.__qualname__}", **settings}, **objects
    )


def own_parts(folder: Path, files: dict[str, str]) -> Callable[[], None]:
    """Write a user's own modules and configs to `folder`; whoever calls the result has the modules
    in src.

    The result is for `before` of a command, and folder/conf for its --config-dir.
    """
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return functools.partial(add_modules, folder)


def add_modules(folder: Path) -> None:
    import src.data
    import src.models

    src.data.__path__.append(str(folder / "src/data"))
    src.models.__path__.append(str(folder / "src/models"))


def write_png_header(path: Path, width: int, height: int) -> None:
    """Write a small file that begins as a PNG of this size begins, with a megabyte of its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1 << 20))
    content = b"\x89PNG\r\n\x1a\n"
    for chunk in (header, pixels, b"IEND"):
        length = struct.pack(">I", len(chunk) - 4)
        content += length + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content)


class Finished(NamedTuple):
    """How a command ended: its exit status and all it printed."""

    status: int
    output: str


# Every command runs in a process of its own, forked from a server that has done the slow imports:
# real exit statuses and real signals at a hundredth of the start-up time. No command itself is
# among them: it must run.
PRELOADED = [
    *("tests.tools.server", "tests.conftest", "src.training.experiment", "src.training.figures"),
    *(
        "src.data.fashion_mnist",
        "src.data.synthetic",
        "src.models.closed_form",
    ),
    *(
        "src.models.concise",
        "src.charts.curves",
        "src.charts.images",
        "tensorboard.summary.writer",
        "optuna",
    ),
]
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(PRELOADED)


LIMIT = 240  # seconds that any one thing may take, on a busy machine; pytest ends a test after a little more


class TooLong(AssertionError):
    """A command took longer than its limit; it has been killed."""


class Command:
    """`python -m module arguments` in a process of its own, in `folder`; what it prints goes to
    `output`.

    It leads a process group (and session) of its own, as a command typed at a terminal does. With
    `fresh` it is a new interpreter, for what starts further ones by its own command line. `before`
    is called in the process first.
    """

    started: ClassVar[list["Command"]] = []  # those that `end` has not been called for

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        output: Path,
        disk: str | None = None,
        env: dict[str, str] | None = None,
        fresh: bool = False,
        before: Callable[[], object] | None = None,
    ):
        self.module, self.file = module, output
        self.file.unlink(missing_ok=True)
        self.process = processes.Process(
            target=_command,
            args=(module, arguments, folder, output, disk, env or {}, fresh, before),
        )
        self.process.start()
        Command.started.append(self)
        self.until(self.file.exists)  # from then on the group exists
        self.began = time.monotonic()

    def alive(self) -> bool:
        return self.process.is_alive()

    def output(self) -> str:
        return self.file.read_text(errors="replace") if self.file.exists() else ""

    def kill(self, signum: signal.Signals, group: bool = False) -> None:
        """Send the signal, to the process or to the whole group."""
        (os.killpg if group else os.kill)(self.process.pid, signum)

    def until(self, reached: str | Callable[[], object], limit: float = LIMIT) -> None:
        """Wait until the output holds the text, or the function returns something true."""
        end = time.monotonic() + limit
        while True:
            alive = self.alive()
            if reached in self.output() if isinstance(reached, str) else reached():
                return
            assert alive, f"ended with {self.process.exitcode} before {reached}:\n{self.output()}"
            if time.monotonic() > end:
                self.end()
                raise TooLong(f"{limit} s have passed and not yet {reached}:\n{self.output()}")
            # lines come slowly; a checkpoint is written within a few milliseconds
            time.sleep(0.01 if isinstance(reached, str) else 0.0005)

    def wait(self, limit: float = LIMIT) -> int:
        """The exit status; -N if signal N killed it."""
        self.process.join(limit)
        if self.alive():
            self.end()
            raise TooLong(f"runs on after {limit} s:\n{self.output()}")
        return self.process.exitcode

    def gone(self) -> bool:
        """Whether nothing of the group is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def end(self) -> None:
        """Kill whatever is left of the group."""
        with contextlib.suppress(ProcessLookupError):
            self.kill(signal.SIGKILL, group=True)
        self.process.join(10)
        if self in Command.started:
            Command.started.remove(self)


@pytest.fixture
def srun(tmp_path: Path) -> str:
    """A search path as on the login node of a cluster, with an srun that nobody should call."""
    program = tmp_path / "bin/srun"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def forget_signals() -> None:
    """What one test sent to its own process is not to end the runs of the next."""
    if "src.signals" in sys.modules:
        sys.modules["src.signals"].forget()


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """What a test started ends with it; a failed test shows the output of what had to be killed."""
    yield
    forget_signals()
    for command in [*Command.started]:
        if command.alive():
            print(f"killed at the end of the test: {command.process.pid}\n{command.output()}")
        command.end()


@pytest.fixture
def start(data_root: Path, tmp_path: Path) -> Callable[..., Command]:
    """start("src.train", "key=value", ...) begins `python -m src.train key=value ...`, outputs
    under tmp_path.

    It is told the folder of the real data unless `data` is false, and has `env` as further
    environment variables. With `disk`, tmp_path / "disk" is a file system that only the command
    sees: "frozen", a read-only view of the folder, or a new tmpfs with these mount options; what is
    on that at the end is copied to tmp_path / "disk_left".
    """

    numbers = count()

    def begin(module: str, *arguments: str, data: bool = True, **options) -> Command:
        if data and not any("data.root=" in argument for argument in arguments):
            arguments = (*arguments, f"data.root={data_root}")
        return Command(
            module, arguments, tmp_path, tmp_path / f"output{next(numbers)}.txt", **options
        )

    return begin


@pytest.fixture
def cli(start: Callable[..., Command]) -> Callable[..., Finished]:
    """cli(...) is what `start` begins, to its end; `interrupt` is a signal to send after two
    epochs."""

    def call(*arguments: str, interrupt: signal.Signals | None = None, **options) -> Finished:
        command = start(*arguments, **options)
        if interrupt is not None:
            command.until("epoch 2/")
            command.kill(interrupt)
        status = command.wait()
        if status == CANNOT_MOUNT:
            pytest.skip("this system lets us mount no file system of our own")
        return Finished(status, command.output())

    return call


CANNOT_MOUNT = 77


def _command(
    module: str,
    arguments: Sequence[str],
    folder: Path,
    output: Path,
    disk: str | None,
    env: dict[str, str],
    fresh: bool,
    before: Callable[[], object] | None,
) -> None:
    multiprocessing.set_start_method(None, force=True)  # workers start as in a fresh interpreter
    os.setsid()
    if sys.platform == "linux":  # a test process that is killed leaves no command behind
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    for signum in (
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGINT,
    ):  # however pytest was started, as by nohup
        signal.signal(
            signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
        )
    os.environ.update(env)
    terminal = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    os.chdir(folder)
    if disk:
        _mount(folder / "disk", disk)
    if fresh:
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    sys.argv = [module, *arguments]
    try:
        if before:
            before()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # an interpreter would end so; multiprocessing, with status 1
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what follows is ours, not the command's
        if disk and disk != "frozen":
            shutil.copytree(folder / "disk", folder / "disk_left")


def _mount(folder: Path, options: str) -> None:
    """Mount what `start` says; only this process and its children see it."""
    folder.mkdir(exist_ok=True)
    new_mounts, new_user, user = 0x00020000, 0x10000000, os.getuid()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "unshare") or libc.unshare(new_mounts | (new_user if user else 0)) != 0:
        os._exit(CANNOT_MOUNT)
    if user:
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    new = [["-t", "tmpfs", "-o", options, "none", folder]]
    view = [["--bind", folder, folder], ["-o", "remount,ro,bind", folder]]
    for arguments in view if options == "frozen" else new:
        if subprocess.run(["mount", *arguments]).returncode != 0:
            os._exit(CANNOT_MOUNT)
