"""Servers that the tests of this folder share. They run with `make test-cluster`, never with `make
test`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.cluster_servers import Postgres, Slurm, install


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder that other users may enter, as munged and PostgreSQL ask; another pytest would close
    its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def cluster(folder) -> Iterator[Slurm]:
    install()
    slurm = Slurm(folder / "slurm")
    yield slurm
    slurm.clear()
    slurm.stop()


@pytest.fixture
def slurm(cluster) -> Iterator[Slurm]:
    """The cluster, with an empty queue before and after."""
    yield cluster
    cluster.clear()


@pytest.fixture(scope="session")
def postgres(folder) -> Iterator[Postgres]:
    install()
    server = Postgres(folder / "postgres")
    yield server
    server.stop()
