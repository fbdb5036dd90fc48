"""The settings of a run: its config as plain values, and what in them makes it the experiment that it is."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
SOURCES = ("root", "system_copies", "mirrors", "debian_package")  # keys of data: where its files come from
INCIDENTAL = (*SOURCES, "num_workers")  # keys of data that do not make a run another experiment
GROUPS = ("data", "model", "trainer", "callbacks")  # of settings, without which there is no run


def plain(cfg: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, plain values with every reference filled in. UserError if a group is missing."""
    settings = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True, throw_on_missing=True)
    for group in GROUPS:
        if not isinstance(settings.get(group), dict):
            raise UserError(f"{group} must be a group of settings, got {settings.get(group)}; see conf/{group}")
    if "root" in settings["data"]:  # a run may be resumed from another folder
        settings["data"]["root"] = str(Path(str(settings["data"]["root"])).absolute())
    return settings


def leaves(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of nested settings."""
    found = {}
    for name, value in node.items():
        key = f"{prefix}{name}"
        found |= leaves(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return found


def experiment(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of what makes the run the experiment that it is, however long and where it runs."""
    found = {"seed": settings["seed"], "trainer.devices": settings["trainer"].get("devices", 1)}
    for group in ("model", "data"):
        found |= {f"{group}.{key}": value for key, value in settings[group].items() if key not in INCIDENTAL}
    return found
