"""Servers that the tests of this folder share. They run with `make test-cluster`, never with `make test`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.servers import Postgres, Slurm, install


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Slurm]:
    install()
    slurm = Slurm(place(tmp_path_factory) / "slurm")
    yield slurm
    slurm.clear()
    slurm.stop()


@pytest.fixture
def slurm(cluster) -> Iterator[Slurm]:
    """The cluster, with an empty queue before and after."""
    yield cluster
    cluster.clear()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory) -> Iterator[Postgres]:
    install()
    server = Postgres(place(tmp_path_factory) / "postgres")
    yield server
    server.stop()


def place(tmp_path_factory) -> Path:
    """A folder that other users may enter: munged and PostgreSQL ask for it."""
    folder = tmp_path_factory.mktemp("servers")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    return folder
