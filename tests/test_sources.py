"""Where the data comes from: every source, and every way in which one fails, on small made-up
files."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from src.data import sources
from src.errors import UserError
from tests.conftest import LIMIT, ROOT

CONTENT = {
    "train-images": b"\x00\x00\x08\x03" + bytes(range(256)) * 40,
    "train-labels": b"labels" * 100,
}
FILES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
ends = pytest.mark.timeout(20)  # a test of what could hang


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the files as a distributor has them: compressed."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "raw"


provide = functools.partial(sources.provide, title="FashionMNIST", files=FILES)


def assert_complete(folder: Path) -> None:
    assert {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"
    } == CONTENT


def test_a_system_copy_is_unpacked(folder, copy):
    provide(folder, system_copies=["/nowhere", str(copy)])
    assert_complete(folder)


def test_uncompressed_copies_serve_too(folder, tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    provide(folder, system_copies=[str(tmp_path)])
    assert_complete(folder)


def test_a_complete_folder_needs_no_source_and_no_lock(folder, copy):
    provide(folder, system_copies=[str(copy)])
    (folder / ".lock").unlink()
    provide(folder)
    assert not (folder / ".lock").exists()


def test_only_what_is_missing_is_fetched(folder, copy):
    folder.mkdir(parents=True)
    (folder / "train-labels").write_bytes(CONTENT["train-labels"])
    (copy / "train-labels.gz").unlink()
    provide(folder, system_copies=[str(copy)])
    assert_complete(folder)


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_file_is_named_and_left_as_it_is(folder, copy, damage):
    provide(folder, system_copies=[str(copy)])
    path = folder / "train-images"
    content = bytearray(CONTENT["train-images"])
    if damage == "truncate":
        del content[1000:]
    else:
        content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"data file {path} is damaged: .* delete it"):
        provide(folder, system_copies=[str(copy)])
    assert path.read_bytes() == content


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def endless(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


@ends
@pytest.mark.parametrize("make", [pipe, link_to_zero, endless])
def test_what_has_no_end_is_not_read_as_a_data_file(folder, copy, make):
    provide(folder, system_copies=[str(copy)])
    (folder / "train-images").unlink()
    make(folder / "train-images")
    with pytest.raises(UserError, match=r"train-images is damaged: .* (no regular file|too large)"):
        provide(folder, system_copies=[str(copy)])


@ends
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("make", [pipe, link_to_zero, endless])
def test_what_has_no_end_is_passed_over_as_a_source(folder, copy, tmp_path, make, suffix):
    (tmp_path / "bad").mkdir()
    make(tmp_path / "bad" / f"train-images{suffix}")
    provide(folder, system_copies=[str(tmp_path / "bad"), str(copy)])
    assert_complete(folder)


def test_a_small_file_that_unpacks_to_a_large_one_is_passed_over(
    folder, copy, tmp_path, monkeypatch
):
    bad = tmp_path / "bad"
    shutil.copytree(copy, bad)
    (bad / "train-images.gz").write_bytes(gzip.compress(bytes(20 << 20)))
    monkeypatch.setattr(sources, "LARGEST", 1 << 20)
    sizes = []
    unpack = sources.unpack

    def measured(content: bytes) -> bytes:
        unpacked = unpack(content)
        sizes.append(len(unpacked))
        return unpacked

    monkeypatch.setattr(sources, "unpack", measured)
    provide(folder, system_copies=[str(bad), str(copy)])
    assert_complete(folder)
    assert max(sizes) == 1 << 20


def damage_nothing(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    packed = bytearray(path.read_bytes())
    packed[len(packed) // 2] ^= 0xFF
    path.write_bytes(packed)


def other_content(path: Path) -> None:
    path.write_bytes(gzip.compress(b"something else"))


def no_gzip(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize("harm", [damage_nothing, truncate, flip, other_content, no_gzip])
def test_a_bad_copy_is_passed_over_for_the_next(folder, copy, tmp_path, harm):
    bad = tmp_path / "bad"
    shutil.copytree(copy, bad)
    harm(bad / "train-images.gz")
    provide(folder, system_copies=[str(bad), str(copy)])
    assert_complete(folder)


def put_first(name: str, script: str, folder: Path, monkeypatch) -> None:
    """A program of this name that comes before the system's."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_without_any_source_the_error_lists_each_with_its_reason(folder, tmp_path, monkeypatch):
    put_first(
        "apt-get", "echo 'E: Unable to locate package' >&2; exit 100", tmp_path / "bin", monkeypatch
    )
    with pytest.raises(UserError) as raised:
        provide(
            folder,
            system_copies=["/nowhere"],
            mirrors=["http://127.0.0.1:9"],
            debian_package="no-such-package",
        )
    message = str(raised.value)
    assert (
        "system copy /nowhere: [Errno 2] No such file or directory: '/nowhere/train-images'"
        in message
    )
    assert "mirror http://127.0.0.1:9: " in message
    assert "Connection refused" in message
    assert "Debian package no-such-package: apt-get failed: E: Unable to locate package" in message
    assert "data.system_copies=[DIR]" in message
    assert [path.name for path in folder.iterdir()] == [".lock"]  # nothing half-done stays


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; what it does wrong is set by `fault`."""

    fault = ""

    def do_GET(self):
        if self.fault == "missing":
            self.send_error(404)
        elif self.fault == "stalls":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.flush()
            time.sleep(2)
        elif self.fault == "never ends":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # until the other side has had enough
                while True:
                    self.wfile.write(bytes(1 << 16))
        elif self.fault == "breaks off":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"\x1f\x8b" + bytes(100))
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(copy):
    """mirror(fault) starts a server on the copy and returns its address."""
    servers = []

    def start(fault: str = "") -> str:
        handler = type("Faulty", (Mirror,), {"fault": fault})
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(copy))
        )
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_mirror_is_downloaded(folder, mirror):
    provide(folder, mirrors=[mirror()])
    assert_complete(folder)


@ends
@pytest.mark.parametrize("fault", ["missing", "stalls", "breaks off", "never ends"])
def test_a_faulty_mirror_is_passed_over_for_the_next(folder, mirror, fault, monkeypatch):
    monkeypatch.setattr(sources, "STALL_SECONDS", 0.3)
    provide(folder, mirrors=[mirror(fault), mirror()])
    assert_complete(folder)


def test_a_mirror_that_only_trickles_is_given_up(folder, mirror, monkeypatch):
    monkeypatch.setattr(sources, "FETCH_SECONDS", 0)
    with pytest.raises(UserError, match="took longer than 0 s"):
        provide(folder, mirrors=[mirror()])


def test_something_that_is_no_address_is_passed_over(folder, mirror):
    provide(folder, mirrors=["not an address", mirror()])
    assert_complete(folder)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb to build a package")
def test_a_debian_package_is_unpacked_without_root(folder, copy, tmp_path, monkeypatch):
    # A real package, built here; only apt-get's part, bringing it, is played by a script.
    tree = tmp_path / "tree"
    shutil.copytree(copy, tree / "usr/share/datasets/fashion-mnist")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.org>\nDescription: test\n"
    )
    subprocess.run(
        ["dpkg-deb", "-b", tree, tmp_path / "tiny_1_all.deb"], check=True, capture_output=True
    )
    script = f'case "$*" in *"download -- tiny") cp {tmp_path}/tiny_1_all.deb . ;; esac'
    put_first("apt-get", script, tmp_path / "bin", monkeypatch)
    provide(folder, debian_package="tiny")
    assert_complete(folder)


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt-get")
def test_a_package_name_is_never_an_option_of_apt(folder, tmp_path, monkeypatch):
    (tmp_path / "apt.conf").write_text(
        'Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "/dev/null";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))  # there is nothing to fetch
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/made\n")
    script.chmod(0o755)
    with pytest.raises(UserError):
        provide(folder, debian_package=f"-oDir::Bin::dpkg={script}")
    assert not (tmp_path / "made").exists()


def test_a_system_without_apt_says_so(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        UserError, match=r"Debian package dataset.*No such file or directory: 'apt-get'"
    ):
        provide(folder, debian_package="dataset-fashion-mnist")


def test_a_file_in_the_way_of_the_folder_is_reported(tmp_path, copy):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(
        UserError, match=r"cannot write the data .* choose another folder with data\.root"
    ):
        provide(tmp_path / "data" / "raw", system_copies=[str(copy)])


FETCHING = f"""
import os, sys, time
from pathlib import Path
from src.data import sources

folder, copy, note = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

def fsync(descriptor):  # comes between writing a file and its move into place
    with note.open("a") as file:
        file.write("written ")
    while note.read_text().count("started") < int(sys.argv[4]):
        time.sleep(0.01)

with note.open("a") as file:
    file.write("started ")
os.fsync = fsync
sources.provide(folder, 'FashionMNIST', {FILES}, system_copies=[copy])
"""


def fetching(folder: Path, copy: Path, note: Path, others: int) -> subprocess.Popen:
    """A process that provides the files. It notes what it does, and has written one file only when
    `others` have started."""
    arguments = [sys.executable, "-c", FETCHING, folder, copy, note, str(others)]
    return subprocess.Popen(list(map(str, arguments)), cwd=ROOT)


def test_processes_starting_at_once_all_succeed_and_the_work_is_done_once(folder, copy, tmp_path):
    processes = [fetching(folder, copy, tmp_path / "note", 3) for _ in range(3)]
    assert [process.wait(LIMIT) for process in processes] == [0, 0, 0]
    assert (tmp_path / "note").read_text().count("written") == len(CONTENT)
    assert_complete(folder)


def test_a_process_killed_while_it_writes_leaves_nothing_in_the_way(folder, copy, tmp_path):
    note = tmp_path / "note"
    process = fetching(folder, copy, note, 2)  # which never come
    while not note.exists() or "written" not in note.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert list(folder.glob("*.part"))
    provide(folder, system_copies=[str(copy)])
    assert_complete(folder)
