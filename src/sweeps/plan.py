"""The plan of a sweep: its jobs, and the copy of the configs from which each of them is composed.

A sweep is what it was when it began. Hydra would read the configs anew for each job, so that an
edit of conf/ while it runs, or before it is resumed, would silently train the rest with other
settings.
"""

import copy
import importlib
import itertools
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathElement
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from src import __version__
from src.cli.command import check_hydra
from src.errors import UserError
from src.files import expanded
from src.formats import dump_yaml
from src.runs import claim, write
from src.sweeps.sweep import MOST_JOBS

SAME = ("mode", "sweeper", "launcher")  # a sweep has one of each of these settings of Hydra
# Providers of the configs that belong to the project or its user.
OWN = ("main", "command-line", "hydra.searchpath in main", "hydra.searchpath in command-line")
# Pattern of the launcher and Hydra's settings, in which the group is refused -> the reason.
REFUSED = {
    r"^(?!basic\b|joblib\b|submitit_slurm\b)(\S+)": (
        "take hydra/launcher=joblib; on a cluster, submitit_slurm"
    ),
    r"(hydra\.launcher\.(?:signal_delay_s|max_num_timeout))": (
        "a job out of time is saved, not started again"
    ),
    r"^joblib .*(hydra\.launcher\.(?!n_jobs=-?[1-9])\S+)": "only n_jobs can, and not to 0",
}


def check(config: DictConfig) -> None:
    """Raises UserError for a launcher or settings with which a sweep would break its promises."""
    check_hydra(config)
    launcher = config.hydra.runtime.choices["hydra/launcher"]
    text = " ".join([launcher, *config.hydra.overrides.hydra])
    for pattern, reason in REFUSED.items():
        match = re.search(pattern, text)
        if match:
            raise UserError(f"{match[1]} cannot be set: {reason}")
    if OmegaConf.to_container(config.hydra.sweep)["subdir"] != "${hydra.job.num}":
        raise UserError("hydra.sweep.subdir cannot be set: jobs are numbered; leave it out")


def make(config: DictConfig, loader: ConfigLoader) -> Path:
    """Claim a folder for the sweep, and record its jobs and its configs there; returns the folder.

    Raises UserError, or Hydra's errors, if a job cannot be composed; nothing is made then.
    """
    jobs = expand(config)
    hydra = config.hydra
    settings = without(hydra.overrides.hydra, "hydra.mode=", "hydra.searchpath=")
    plan = {
        "version": __version__,
        "command": [*hydra.overrides.task, *settings],
        "config": hydra.job.config_name,
        "jobs": jobs,
    }
    try:
        content = dump_yaml(plan)
    except ValueError as error:
        raise UserError(
            f"the plan of {len(jobs):,} jobs could not be read again: {error}; take fewer values"
        ) from error
    with tempfile.TemporaryDirectory() as configs:
        copy_configs(config, Path(configs))
        check_jobs(config, copied(loader, Path(configs)), jobs)
        key = None
        if any(text.startswith("hydra.sweep.dir=") for text in hydra.overrides.hydra):
            key = "hydra.sweep.dir"  # the user has named the folder
        folder = claim(expanded(hydra.sweep.dir), key)
        shutil.copytree(configs, folder / ".conf")
    write(folder / "sweep.yaml", content)
    return folder


def without(settings: Iterable[str], *prefixes: str) -> list[str]:
    return [text for text in settings if not text.startswith(prefixes)]


# --- jobs -----------------------------------------------------------------------------------------


def expand(config: DictConfig) -> list[list[str]]:
    """The overrides of each job: all combinations of the values, the last axis fastest.

    Raises UserError for values that cannot be numbered, and if there is no job or there are too
    many.
    """
    parameters = OmegaConf.to_container(config.hydra.sweeper.params) or {}
    texts = [f"{key}={value}" for key, value in parameters.items()]
    texts += config.hydra.overrides.task
    # Key -> its values as overrides; a key that comes again replaces its earlier values.
    axes: dict[str, list[str]] = {}
    count = 1
    for override in OverridesParser.create().parse_overrides(texts):
        key = override.get_key_element()
        axes[key] = [f"{key}={value}" for value in values_of(override)]
        if not axes[key]:
            raise UserError(f"{override.input_line} has no values: the sweep would have no jobs")
        count *= len(axes[key])
        if count > MOST_JOBS:
            raise UserError(f"the sweep would have more than {MOST_JOBS:,} jobs; take fewer values")
    return list(map(list, itertools.product(*axes.values())))


def values_of(override: Override) -> list[str]:
    """The values of an axis, as Hydra's grammar has them; one, if the override is no sweep.

    Raises UserError for values that cannot be numbered.
    """
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    value = override.value()
    if isinstance(value, Glob) or getattr(value, "shuffle", False):
        raise UserError(
            f"{override.input_line}: jobs are numbered in their order; leave out shuffle and glob"
        )
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} is no list of values; take 0.1,0.3 or range(1,5), "
            "or search with src.tune"
        )
    values = list(override.sweep_string_iterator())
    if isinstance(value, RangeSweep) and isinstance(value.step, float):
        # 0.3, not the sum 0.30000000000000004
        values = [f"{float(text):.12g}" for text in values]
    return values


def check_jobs(config: DictConfig, loader: ConfigLoader, jobs: Sequence[Sequence[str]]) -> None:
    """Raises UserError, or Hydra's errors, for jobs that cannot be composed as they are planned.

    One of each choice of groups is composed: the others differ in values alone.
    """
    groups = config.hydra.runtime.choices
    choices: dict[tuple[str, ...], Sequence[str]] = {}  # choice of groups -> its first job
    for job in jobs:
        choice = tuple(text for text in job if text.partition("=")[0] in groups)
        choices.setdefault(choice, job)
    planned = OmegaConf.to_container(config.hydra)
    for choice, job in choices.items():
        composed = OmegaConf.to_container(loader.load_sweep_config(config, list(job)).hydra)
        for name in SAME:
            if composed[name] != planned[name]:
                cause = " ".join(choice) or "a config"
                raise UserError(
                    f"{cause} sets hydra.{name} of a job, but a sweep has one for all its jobs; "
                    "start each by itself"
                )


# --- configs --------------------------------------------------------------------------------------


def copy_configs(config: DictConfig, folder: Path) -> None:
    """Copy the configs that Hydra reads for this config into `folder`, as one.

    Those in folders of the user's are among them. Raises UserError if one of these does not exist.
    """
    sources = [source for source in config.hydra.runtime.config_sources if source.provider in OWN]
    # If files have the same name, Hydra takes that of the first source, so that is copied last.
    for source in reversed(sources):
        path = folder_of(source)
        if not path.is_dir():
            raise UserError(
                f"{source.provider}: {source.schema}://{source.path} is no folder; "
                "write its path in full"
            )
        shutil.copytree(path, folder, dirs_exist_ok=True)


def folder_of(source: Any) -> Path:
    if source.schema == "pkg":
        return Path(importlib.import_module(source.path).__path__[0])
    return Path(source.path)


def copied(loader: ConfigLoader, configs: Path) -> ConfigLoader:
    """A loader like Hydra's own that reads the copied configs in place of the user's."""
    path = copy.deepcopy(loader.get_search_path())
    elements = []
    for element in path.get_path():
        if element.provider == "main":
            elements.append(SearchPathElement("main", f"file://{configs.absolute()}"))
        elif element.provider != "command-line":
            elements.append(element)
    path.get_path()[:] = elements
    return type(loader)(config_search_path=path)


def settle(config: DictConfig, folder: Path, quoted_folder: str) -> None:
    """Settle that the jobs lie in the folder of the sweep, and read no other configs.

    Hydra composes them with the settings of the sweep.
    """
    settings = without(config.hydra.overrides.hydra, "hydra.searchpath", "hydra.sweep.dir")
    settings += ["hydra.searchpath=[]", f"hydra.sweep.dir={quoted_folder}"]
    config.hydra.overrides.hydra = settings
    config.hydra.sweep.dir = str(folder)
