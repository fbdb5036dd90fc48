"""Searches on a real PostgreSQL: one study per folder and experiment, and one line for whatever
fails."""

import re
import signal
import sys

import pytest

from src.runs import Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SMALL = [
    "data=synthetic",
    "model=linear_scratch",
    "data.train_size=100",
    "data.val_size=50",
    "trainer.max_epochs=3",
]
SMALL += ["~logger", "pruner=null"]
STUDY = ["src.tune", *SMALL, "folder=study"]


def studies(postgres, url: str) -> list[str]:
    database = url.rpartition("/")[2]
    return postgres.sql(
        "select count(*) from trials group by study_id order by study_id", database
    ).stdout.split()


def only_line(output: str) -> str:
    lines = [line for line in output.splitlines() if not re.match(r"\d+/\d+  trial ", line)]
    assert len(lines) == 1, output
    assert lines[0].startswith("error: ")
    assert "secret" not in output
    return lines[0]


def hide_the_driver() -> None:
    sys.modules["psycopg"] = sys.modules["psycopg2"] = None


def test_two_folders_of_one_database_are_two_studies(cli, postgres):
    url = postgres.database()
    for folder, number in (("a", 2), ("b", 3)):
        status, output = cli(
            "src.tune",
            *SMALL,
            f"folder={folder}",
            f"storage={url}",
            f"n_trials={number}",
            data=False,
        )
        assert status == 0, output
        assert f"{number} trials: {number} finished" in output
    assert studies(postgres, url) == ["2", "3"]
    status, output = cli(
        "src.tune",
        *SMALL,
        "folder=a",
        "data.batch_size=5",
        f"storage={url}",
        "n_trials=4",
        data=False,
    )
    assert status == 1
    assert "choose another folder" in only_line(output)


def test_a_folder_that_is_not_shared_is_refused(cli, postgres, tmp_path):
    url = postgres.database()
    status, output = cli(*STUDY, f"storage={url}", "n_trials=2", data=False)
    assert status == 0, output
    (tmp_path / "study").rename(
        tmp_path / "elsewhere"
    )  # the folder study of another machine is empty
    status, output = cli(*STUDY, f"storage={url}", "n_trials=4", data=False)
    assert status == 1
    assert "share" in only_line(output)
    assert studies(postgres, url) == ["2"]
    # on a machine that shares it, whatever its path there is
    status, output = cli(
        "src.tune", *SMALL, "folder=elsewhere", f"storage={url}", "n_trials=3", data=False
    )
    assert status == 0, output
    assert studies(postgres, url) == ["3"]


def test_two_processes_try_every_trial_once_and_one_may_be_killed(start, postgres, tmp_path):
    url, total = postgres.database(), 12
    arguments = [*STUDY, f"storage={url}", f"n_trials={total}", "trainer.max_epochs=20"]
    one, other = (start(*arguments, data=False) for _ in range(2))
    one.until("trial ")
    folder = tmp_path / "study"
    one.until(
        lambda: (
            sum(run.in_use() and run.last.exists() for run in map(Run, folder.glob("[0-9]*"))) == 2
        )
    )
    one.kill(signal.SIGKILL)
    one.wait()
    assert other.wait() == 0, other.output()
    assert f"{total} trials: {total} finished" in other.output()
    said = re.findall(r"trial (\d+)  ", one.output() + other.output())
    assert len(said) in (total, total - 1)  # the killed one may not have said its last
    assert len(set(said)) == len(said)
    assert studies(postgres, url) == [str(total)]
    for number in range(total):
        run = Run(tmp_path / "study" / str(number))
        assert run.results()["status"] == "finished"
        assert len(run.epochs()) == 20


def test_a_wrong_password_is_one_line(cli, postgres):
    url = postgres.url("postgres", password="wrongsecret")
    status, output = cli(*STUDY, f"storage={url}", "n_trials=1", data=False)
    assert status == 1
    assert "password authentication failed" in only_line(output)


def test_a_missing_driver_is_one_line_that_names_the_extra(cli, postgres):
    command = [*STUDY, f"storage={postgres.database()}", "n_trials=1"]
    status, output = cli(*command, data=False, before=hide_the_driver)
    assert status == 1
    assert ".[postgres]" in only_line(output)


def test_a_server_that_stops_is_one_line_and_the_same_command_goes_on(
    start, cli, postgres, tmp_path
):
    command = [*STUDY, f"storage={postgres.database()}", "n_trials=6", "trainer.max_epochs=50"]
    first = start(*command, data=False)
    first.until("trial 1")
    postgres.end_now()
    try:
        assert first.wait(60) == 1, first.output()
        assert "the same command goes on" in only_line(first.output())
        status, output = cli(*command, data=False)  # and while it is down
        assert status == 1
        assert "the same command goes on" in only_line(output)
    finally:
        postgres.begin()
    status, output = cli(*command, data=False)
    assert status == 0, output
    assert "6 trials: 6 finished" in output
    assert {Run(tmp_path / f"study/{number}").results()["status"] for number in range(6)} == {
        "finished"
    }
