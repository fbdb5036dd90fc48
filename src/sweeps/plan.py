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
from collections.abc import Sequence
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
from src.files import dump_yaml, expanded
from src.runs import claim, write
from src.sweeps.sweep import MOST_JOBS

SAME = ("mode", "sweeper", "launcher")  # of Hydra's settings: one sweep has one of each
OWN = ("main", "command-line", "hydra.searchpath in main", "hydra.searchpath in command-line")
REFUSED = {  # pattern of the launcher and Hydra's settings, with what is refused as group -> why
    r"^(?!basic\b|joblib\b|submitit_slurm\b)(\S+)": (
        "take hydra/launcher=joblib; on a cluster, submitit_slurm"
    ),
    r"(hydra\.launcher\.(?:signal_delay_s|max_num_timeout))": (
        "a job out of time is saved, not started again"
    ),
    r"^joblib .*(hydra\.launcher\.(?!n_jobs=-?[1-9])\S+)": "only n_jobs can, and not to 0",
}


def check(config: DictConfig) -> None:
    """Raises UserError for a launcher, or settings of Hydra, with which a sweep would not keep its
    promises."""
    check_hydra(config)
    launcher, settings = (
        config.hydra.runtime.choices["hydra/launcher"],
        config.hydra.overrides.hydra,
    )
    for pattern, why in REFUSED.items():
        if found := re.search(pattern, " ".join([launcher, *settings])):
            raise UserError(f"{found[1]} cannot be set: {why}")
    if OmegaConf.to_container(config.hydra.sweep)["subdir"] != "${hydra.job.num}":
        raise UserError("hydra.sweep.subdir cannot be set: jobs are numbered; leave it out")


def make(config: DictConfig, loader: ConfigLoader) -> Path:
    """Claim a folder for the sweep, and record its jobs and its configs there; returns the folder.

    Raises UserError, or Hydra's errors, if a job cannot be composed; nothing is made then.
    """
    jobs = expand(config)
    hydra = config.hydra
    settings = [
        text
        for text in hydra.overrides.hydra
        if not text.startswith(("hydra.mode=", "hydra.searchpath="))
    ]
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
        named = any(text.startswith("hydra.sweep.dir=") for text in hydra.overrides.hydra)
        folder = claim(expanded(hydra.sweep.dir), "hydra.sweep.dir" if named else None)
        shutil.copytree(configs, folder / ".conf")
    write(folder / "sweep.yaml", content)
    return folder


# --- jobs -----------------------------------------------------------------------------------------


def expand(config: DictConfig) -> list[list[str]]:
    """The overrides of each job: all combinations of the values, the last axis fastest.

    Raises UserError for values that cannot be numbered, and if there is no job or there are too
    many.
    """
    parameters = OmegaConf.to_container(config.hydra.sweeper.params) or {}
    texts = [f"{key}={value}" for key, value in parameters.items()] + list(
        config.hydra.overrides.task
    )
    axes: dict[
        str, list[str]
    ] = {}  # key -> its values as overrides; a later one takes the place of an earlier
    count = 1
    for override in OverridesParser.create().parse_overrides(texts):
        key = override.get_key_element()
        axes[key] = [f"{key}={value}" for value in values_of(override)]
        if not axes[key]:
            raise UserError(f"{override.input_line} has no values: the sweep would have no jobs")
        count *= len(axes[key])
        if count > MOST_JOBS:
            raise UserError(f"the sweep would have more than {MOST_JOBS:,} jobs; take fewer values")
    return [list(job) for job in itertools.product(*axes.values())]


def values_of(override: Override) -> list[str]:
    """The values of an axis, as Hydra's grammar has them; one, if the override is no sweep."""
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
        values = [f"{float(text):.12g}" for text in values]  # 0.3, not the sum 0.30000000000000004
    return values


def check_jobs(config: DictConfig, loader: ConfigLoader, jobs: Sequence[Sequence[str]]) -> None:
    """Raises UserError, or Hydra's errors, for jobs that cannot be composed, or would be other jobs
    than planned.

    One of each choice of groups is composed: the others differ in values alone.
    """
    groups = config.hydra.runtime.choices
    forms: dict[tuple[str, ...], Sequence[str]] = {}
    for job in jobs:
        chosen = tuple(text for text in job if text.partition("=")[0] in groups)
        forms.setdefault(chosen, job)
    planned = OmegaConf.to_container(config.hydra)
    for chosen, job in forms.items():
        composed = OmegaConf.to_container(loader.load_sweep_config(config, list(job)).hydra)
        for name in SAME:
            if composed[name] != planned[name]:
                what = " ".join(chosen) or "a config"
                raise UserError(
                    f"{what} sets hydra.{name} of a job, but a sweep has one for all its jobs; "
                    "start each by itself"
                )


# --- configs --------------------------------------------------------------------------------------


def copy_configs(config: DictConfig, folder: Path) -> None:
    """Copy the configs that Hydra reads for this config, those of the user's own folders too, as
    one into `folder`.

    Raises UserError if one of the places does not exist.
    """
    sources = [source for source in config.hydra.runtime.config_sources if source.provider in OWN]
    for source in reversed(
        sources
    ):  # of files with the same name, Hydra takes that of the first source
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
    """A loader like Hydra's own which, of the user's configs, reads the copied ones alone."""
    path = copy.deepcopy(loader.get_search_path())
    elements = path.get_path()
    kept = [element for element in elements if element.provider != "command-line"]
    main = SearchPathElement("main", f"file://{configs.absolute()}")
    elements[:] = [main if element.provider == "main" else element for element in kept]
    return type(loader)(config_search_path=path)


def settle(config: DictConfig, folder: Path, quoted_folder: str) -> None:
    """Let the jobs, which Hydra composes with the settings of the sweep, lie in its folder and read
    no other configs."""
    settings = config.hydra.overrides.hydra
    kept = [
        text for text in settings if not text.startswith(("hydra.searchpath", "hydra.sweep.dir"))
    ]
    config.hydra.overrides.hydra = [
        *kept,
        "hydra.searchpath=[]",
        f"hydra.sweep.dir={quoted_folder}",
    ]
    config.hydra.sweep.dir = str(folder)
