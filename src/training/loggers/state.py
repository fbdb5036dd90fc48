"""What a run folder knows of the servers that the run is logged to."""

import json
import secrets
from pathlib import Path

import pydantic
from typing_extensions import TypedDict

from src import formats
from src.errors import UserError
from src.runs import Run, write


class State(TypedDict):
    """.hydra/loggers.json: how a server knows the run, and what the servers have of it."""

    identity: str
    job: str
    sent: dict[str, int]  # name of the logger -> the last epoch that it has
    done: list[str]  # names of those that have the results


STATE = pydantic.TypeAdapter(State)


def state_file(run: Run) -> Path:
    return run.config.with_name("loggers.json")


def read_state(run: Run) -> State:
    """The state, new if the run has none. Raises UserError for a damaged file."""
    path = state_file(run)
    if not path.exists():
        return {"identity": secrets.token_hex(8), "job": "", "sent": {}, "done": []}
    try:
        state = STATE.validate_python(formats.read_json(path, within=run.within), strict=True)
        if not state["identity"].isalnum():
            raise ValueError("identity must have letters and digits alone")
    except ValueError as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    return state


def save_state(run: Run, state: State) -> None:
    write(state_file(run), json.dumps(state) + "\n")


def name_job(run: Run, name: str) -> None:
    """Let the loggers of the run show it by the name that it has in its sweep."""
    save_state(run, {**read_state(run), "job": name})
