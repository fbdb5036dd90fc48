"""Folders that were made to do harm: each ends in one clear line, or in a right result, soon and in
little memory."""

import contextlib
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from src import compare, files, formats
from src.cli.options import Parser
from src.errors import LONGEST, UserError
from src.oscillation import __main__ as oscillation
from src.predict.inputs import find
from src.predict.prediction import predict
from src.runs import Run
from src.runs.build import restore
from src.runs.checkpoint import LARGEST, load_checkpoint
from src.sweeps import sweep as sweeps
from src.sweeps.summary import summarize
from src.training.resuming import resume
from tests.conftest import ROOT, compose_config
from tests.test_foreign import configuration, evaluated, write_run
from tests.tools.pages import text_of

pytestmark = pytest.mark.timeout(120)

MEMORY, SECONDS = 1.5e9, 20  # a stranger's folder costs no more, docs/trust.md
SECRET = "the diary of the user"


@pytest.fixture
def run(tmp_path) -> Run:
    return write_run(tmp_path / "run")


@pytest.fixture
def victim(tmp_path) -> Path:
    """A file of the user's, outside of the folder that is read."""
    path = tmp_path / "home/diary"
    path.parent.mkdir()
    path.write_text(SECRET)
    return path


def refused(function: Callable[[], object], match: str) -> str:
    """The one line with which the function refuses what it reads."""
    with pytest.raises(UserError, match=match) as refusal:
        function()
    line = str(refusal.value)
    assert line.isprintable()
    assert len(line) <= LONGEST + 5
    return line


# --- checkpoints: the pickle ----------------------------------------------------------------------


def archive(path: Path, parts: dict[str, bytes]) -> None:
    """A zip archive as torch.save writes it: nothing is compressed, each part has its checksum."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, content in parts.items():
            file.writestr(f"archive/{name}", content)


def checkpoint(path: Path, pickled: bytes, **storages: bytes) -> None:
    data = {f"data/{name.removeprefix('s')}": content for name, content in storages.items()}
    archive(path, {"data.pkl": pickled, "byteorder": sys.byteorder.encode(), **data})


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<L", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    content = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(content)]) + content


def called(module: str, name: str, *arguments: bytes) -> bytes:
    given = pickle.MARK + b"".join(arguments) + pickle.TUPLE
    return pickle.GLOBAL + f"{module}\n{name}\n".encode() + given + pickle.REDUCE


def tensor(length: int, size: list[int], stride: list[int], offset: int = 0) -> bytes:
    """A tensor in a storage "0" which is said to have this length."""
    kind = pickle.GLOBAL + b"torch\nFloatStorage\n"
    parts = [text("storage"), kind, text("0"), text("cpu"), integer(length)]
    storage = pickle.MARK + b"".join(parts) + pickle.TUPLE + pickle.BINPERSID
    numbers = [pickle.MARK + b"".join(map(integer, each)) + pickle.TUPLE for each in (size, stride)]
    hooks = called("collections", "OrderedDict")
    rest = [integer(offset), *numbers, pickle.NEWFALSE, hooks]
    return called("torch._utils", "_rebuild_tensor_v2", storage, *rest)


def whole(**replaced: bytes) -> bytes:
    """A pickle of all that a checkpoint needs, with values in the place of its own."""
    plain = {"epoch": integer(0), "global_step": integer(1)}
    plain |= dict.fromkeys(("state_dict", "loops", "callbacks"), pickle.EMPTY_DICT)
    plain |= dict.fromkeys(("optimizer_states", "lr_schedulers"), pickle.EMPTY_LIST)
    items = b"".join(text(name) + value for name, value in (plain | replaced).items())
    return pickle.PROTO + b"\2" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + b"."


def test_a_pickle_that_is_written_by_hand_is_a_checkpoint(tmp_path):
    # else the refusals below would show nothing
    state = pickle.EMPTY_DICT + text("W") + tensor(4, [2, 1], [2, 1], offset=1) + pickle.SETITEM
    checkpoint(tmp_path / "x.ckpt", whole(state_dict=state), s0=struct.pack("<4f", 1, 2, 3, 4))
    content = load_checkpoint(tmp_path / "x.ckpt")
    assert content["state_dict"]["W"].tolist() == [[2.0], [4.0]]
    assert content["epoch"] == 0


def with_key(key: bytes) -> bytes:
    return pickle.EMPTY_DICT + key + integer(1) + pickle.SETITEM


PICKLES = {
    "6 GB of zeros": (called("builtins", "bytearray", integer(6 * 10**9)), "names builtins.byte"),
    "a codec of quadratic time": (
        called("_codecs", "encode", text("\u00fc" * 100_000), text("idna")),
        "it names _codecs.encode",
    ),
    "a codec with escapes in its name": (
        called("_codecs", "encode", text("x"), text("\x1b[2J")),
        "it names _codecs.encode",
    ),
    "a name with escapes": (called("torch", "\x1b[2J"), r"it names torch\.\\x1b\[2J"),
    # Python's hash() of a tuple that is a million deep overflows the stack of the process
    "a tuple a million deep as key": (
        with_key(pickle.EMPTY_TUPLE + 300_000 * pickle.TUPLE1),
        "it has a tuple as a key",
    ),
    # whose hashes are all the same, so that each takes as long as all before
    "keys that collide": (with_key(integer((1 << 61) - 1)), "it has a int as a key"),
    "bytes": (pickle.SHORT_BINBYTES + b"\1x", "it has the instruction SHORT_BINBYTES"),
    "a set": (pickle.EMPTY_SET, "it has the instruction EMPTY_SET"),
    "a call of a text": (
        text("os system") + pickle.EMPTY_TUPLE + pickle.REDUCE,
        "it calls os system",
    ),
    "a method in the place of its items": (
        called("collections", "OrderedDict") + with_key(text("items")) + pickle.BUILD,
        "is damaged or no checkpoint",
    ),
    "versions that are none": (
        called("collections", "OrderedDict")
        + pickle.EMPTY_DICT
        + text("_metadata")
        + pickle.EMPTY_LIST
        + pickle.SETITEM
        + pickle.BUILD,
        "is damaged or no checkpoint",
    ),
    "a million instructions": (
        1_000_001 * (pickle.NONE + pickle.POP),
        "it has the instruction POP",
    ),
    "a million values": (
        pickle.EMPTY_LIST + pickle.MARK + 1_000_001 * pickle.NONE + pickle.APPENDS,
        "more than 1,000,000 instructions",
    ),
    "a stack that is empty": (pickle.TUPLE, "is damaged or no checkpoint"),
    "a value that was never put": (pickle.BINGET + b"\7", "is damaged or no checkpoint"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_makes_other_than_tensors_and_plain_values_is_refused(kind, tmp_path):
    value, says = PICKLES[kind]
    checkpoint(tmp_path / "x.ckpt", whole(loops=value))
    began = time.monotonic()
    refused(lambda: load_checkpoint(tmp_path / "x.ckpt"), says)
    assert time.monotonic() - began < 10


def test_the_407_bytes_that_take_6_gigabytes_are_refused(tmp_path):
    path = tmp_path / "small.ckpt"
    checkpoint(path, b"\x80\2" + called("builtins", "bytearray", integer(6 * 10**9)) + b".")
    assert path.stat().st_size < 500
    # torch.load(weights_only=True) would make them: it finds nothing wrong with less
    checkpoint(tmp_path / "y", b"\x80\2" + called("builtins", "bytearray", integer(1000)) + b".")
    archive_of_torch = {"version": b"3\n"}
    with zipfile.ZipFile(tmp_path / "y", "a") as file:
        for name, content in archive_of_torch.items():
            file.writestr(f"archive/{name}", content)
    assert len(torch.load(tmp_path / "y", weights_only=True)) == 1000
    refused(lambda: load_checkpoint(path), r"it names builtins\.bytearray")


LIES = {
    "more numbers than there are": (tensor(10**9, [10**9], [1]), "has 16 bytes, not 1000000000"),
    "fewer numbers than there are": (tensor(1, [1], [1]), "has 16 bytes, not 1 numbers"),
    "one number as a billion": (tensor(4, [10**9], [0]), "a tensor of size"),
    "one number as two million by two million": (tensor(4, [2 * 10**6] * 2, [0, 0]), "of size"),
    "behind its end": (tensor(4, [2], [1], offset=3), "a tensor"),
    "before its beginning": (tensor(4, [2], [1], offset=-1), "a tensor of size"),
    "strides backwards": (tensor(4, [2], [-1], offset=1), "a tensor of size"),
    "strides beyond": (tensor(4, [2, 2], [1, 10]), "a tensor"),
    "a size without strides": (tensor(4, [2, 2], [1]), "is damaged"),
    "a thousand dimensions": (tensor(4, [1] * 1000, [1] * 1000), "64 dimensions"),
    "ten thousand and one tensors": (
        pickle.EMPTY_LIST + pickle.MARK + 10_001 * tensor(4, [1], [1]) + pickle.APPENDS,
        "more than 10,000 tensors",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_is_not_in_its_storage_is_refused(lie, tmp_path):
    value, says = LIES[lie]
    checkpoint(tmp_path / "x.ckpt", whole(loops=value), s0=bytes(16))
    refused(lambda: load_checkpoint(tmp_path / "x.ckpt"), says)


def test_tensors_of_one_storage_share_it(tmp_path):
    # a file that says a thousand times "the same megabyte" takes one
    value = pickle.EMPTY_LIST + pickle.MARK + 1000 * tensor(1 << 18, [1 << 18], [1]) + b"e"
    checkpoint(tmp_path / "x.ckpt", whole(optimizer_states=value), s0=bytes(1 << 20))
    found = load_checkpoint(tmp_path / "x.ckpt")["optimizer_states"]
    assert len({each.data_ptr() for each in found}) == 1


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(2, 1), 0.1, 0, torch.qint8)


KINDS: dict[str, Callable[[], object]] = {
    "sparse": lambda: torch.zeros(2, 1).to_sparse(),
    "sparse in rows": lambda: torch.zeros(2, 1).to_sparse_csr(),
    "meta": lambda: torch.zeros(2, 1, device="meta"),
    "complex": lambda: torch.zeros(2, 1, dtype=torch.complex64),
    "8 bits": lambda: torch.zeros(2, 1, dtype=torch.float8_e5m2),
    "double": lambda: torch.zeros(2, 1, dtype=torch.float64),
    "expanded": lambda: torch.zeros(1, 1).expand(2, 1),
    "transposed": lambda: torch.zeros(1, 2),
    "a number": lambda: 3,
    "nothing": lambda: None,
    "a list": lambda: [0.0, 0.0],
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_another_kind_are_refused(kind, run):
    content = torch.load(run.best, weights_only=True)
    content["state_dict"]["W"] = KINDS[kind]()
    torch.save(content, run.best)
    refused(lambda: evaluated(run), "checkpoint|of another model")


@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_quantized_weights_are_refused(run):
    try:
        weights = quantized()
    except (AttributeError, RuntimeError):
        pytest.skip("this torch has none")
    content = torch.load(run.best, weights_only=True)
    content["state_dict"]["W"] = weights
    torch.save(content, run.best)
    refused(lambda: evaluated(run), "checkpoint")


@pytest.mark.parametrize(
    "value", [None, 1.5, "text", [], {}, [{}], {"a": 1}, (1, 2), True], ids=repr
)
@pytest.mark.parametrize("name", ["state_dict", "epoch", "callbacks", "loops", "optimizer_states"])
def test_a_part_of_a_checkpoint_of_another_type_is_refused_or_unused(run, name, value):
    content = torch.load(run.best, weights_only=True)
    content[name] = value
    torch.save(content, run.best)
    unused = (name in ("callbacks", "loops") and isinstance(value, dict)) or (
        name == "optimizer_states" and isinstance(value, list)
    )
    if unused or (name == "epoch" and value is True):
        load_checkpoint(run.best)
    else:
        refused(lambda: restore(run.settings(), run.best), "is no checkpoint|of another model")


def test_a_part_of_a_checkpoint_that_is_missing_is_named(run):
    content = torch.load(run.best, weights_only=True)
    for name in ("state_dict", "epoch", "callbacks", "loops", "optimizer_states", "global_step"):
        torch.save({key: each for key, each in content.items() if key != name}, run.best)
        refused(lambda: load_checkpoint(run.best), f"it has no {name}$")


def test_a_pickle_that_is_cut_anywhere_is_refused(run):
    with zipfile.ZipFile(run.best) as file:
        parts = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    pickled = parts["data.pkl"]
    for end in range(0, len(pickled), 7):
        archive(run.best, parts | {"data.pkl": pickled[:end]})
        refused(lambda: load_checkpoint(run.best), "checkpoint")


# --- checkpoints: the archive ---------------------------------------------------------------------


def header(name: bytes) -> bytes:
    return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name


def listed(name: bytes, content: bytes, place: int) -> bytes:
    """The entry of a part in the list of an archive."""
    sizes = zlib.crc32(content), len(content), len(content)
    fields = [20, 20, 0, 0, 0, 0, *sizes, len(name), 0, 0, 0, 0, 0, place]
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + name


def ending(count: int, directory: bytes, place: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), place, 0)


def test_parts_that_lie_one_upon_the_other_are_refused(tmp_path):
    # 200 parts, each the same 4 MB with the right checksum: 800 MB of a file of 4
    content = bytes(1 << 22)
    name = b"archive/data/0"
    body = header(name) + content
    directory = b"".join(listed(b"archive/data/%03d" % k, content, 0) for k in range(200))
    path = tmp_path / "x.ckpt"
    path.write_bytes(body + directory + ending(200, directory, len(body)))
    refused(lambda: load_checkpoint(path), "its parts overlap")


@pytest.mark.parametrize("said", [0xFFFF, 5], ids=["as many as can be said", "5"])
def test_an_archive_of_a_million_parts_is_refused_at_once(tmp_path, said):
    entry = listed(b"archive/x", b"", 0)
    directory = 1_000_000 * entry
    path = tmp_path / "x.ckpt"
    path.write_bytes(directory + ending(said, directory, 0))
    began = time.monotonic()
    refused(lambda: load_checkpoint(path), "more than 10,000 parts")
    assert time.monotonic() - began < 1


ENDS = {
    "empty": b"",
    "an end alone": ending(0, b"", 0),
    "a list that is not there": ending(3, bytes(500), 1 << 31),
    "a list of something else": 500 * b"x" + ending(3, bytes(500), 0),
    "a part behind the end": (entry := listed(b"archive/data.pkl", b"x", 1 << 31))
    + ending(1, entry, 0),
    "a part without a header": (entry := listed(b"archive/data.pkl", b"x", 60))
    + ending(1, entry, 0),
    "a name that is no text": (entry := listed(b"\xff\xfe", b"x", 0)) + ending(1, entry, 0),
}


@pytest.mark.parametrize("kind", ENDS)
def test_an_archive_that_leads_nowhere_is_damaged(tmp_path, kind):
    (tmp_path / "x.ckpt").write_bytes(ENDS[kind])
    refused(lambda: load_checkpoint(tmp_path / "x.ckpt"), "is damaged or no checkpoint")


def test_a_checkpoint_larger_than_can_be_read_is_not_written(config, tmp_path, monkeypatch):
    from src.training import saving

    monkeypatch.setattr(saving, "LARGEST", 1000)
    with pytest.raises(
        UserError, match=r"the checkpoint of this model has [\d,]+ bytes, more than"
    ):
        saving.CheckpointIO().save_checkpoint({"W": torch.zeros(1000)}, str(tmp_path / "x.ckpt"))
    assert not list(tmp_path.iterdir())


# --- texts ----------------------------------------------------------------------------------------

TEXTS = {
    "2 million ones": (f"x: [{'1,' * (1 << 21)}]", "too large"),
    "400,000 ones": (f"x: [{'1,' * 400_000}]", "more than 100,000 values"),
    "a value of a megabyte": (f"x: {'y' * 1_000_000}", "a text of 1,000,000 characters"),
    # a number to the base of 60, which grows with every part
    "an hour of seconds": (f"x: 1{':1' * 400_000}", "a text of 800,001 characters"),
    "a day of seconds": (f"x: 1{':1' * 300}.5", "is damaged"),
    "a number of 5,000 digits": (f"x: {'9' * 5000}", "is damaged"),
    "keys that collide": (
        "x: {" + ", ".join(f"{k * ((1 << 61) - 1)}: 1" for k in range(1, 20_000)) + "}",
        "is no name of a setting",
    ),
    "deep": (f"x: {'[' * 100}{']' * 100}", "nested deeper than 32 levels"),
    "1 as a key": ("1: 2", "'1' is no name of a setting"),
    "null as a key": ("null: 2", "'null' is no name of a setting"),
    "true as a key": ("model: {true: 2}", "'true' is no name of a setting"),
    "a list as a key": ("? [1, 2]\n: 3", "is no name of a setting"),
    "a date": ("x: 2026-11-30", "is no plain value"),
    "a tag that does not fit": ("x: !!bool x", "it holds a tag"),
    "a tag of nothing": ("x: !!int ''", "it holds a tag"),
    "a merge": ("x: {<<: {a: 1}}", "'<<' is no name of a setting"),
    "two documents": ("x: 1\n---\ny: 2", "is damaged"),
    "half a character": (r'x: "\ud800"', "is damaged"),
    "an escape": ('x: "\\e[2J"\ny: ${x}', "it holds an interpolation"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_config_that_is_no_small_text_of_plain_values_is_damaged(kind, run):
    content, says = TEXTS[kind]
    run.config.write_text(content)
    began = time.monotonic()
    refused(run.settings, f"config\\.yaml is (damaged|too large).*{says}|config.*{says}")
    assert time.monotonic() - began < 5


RECORDS = {
    "half a character": r'{"status": "\ud800"}',
    "metrics that are texts": '{"test/loss": "1"}',
    "metrics that are truths": '{"test/loss": true}',
    "metrics that are too large": '{"test/loss": 1e308}',
    "a thousand metrics": json.dumps({f"test/{k}": 1.0 for k in range(1000)}),
    "a number of 5,000 digits": f'{{"seed": {"9" * 5000}}}',
    "a number of 70 bits": f'{{"seed": {1 << 70}}}',
    "a status that is a number": '{"status": 1}',
    "resumed: 5": '{"resumed": 5}',
    "resumed without steps": '{"resumed": [{}]}',
    "a reason of a megabyte": json.dumps({"reason": "x" * 1_000_000}),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_of_other_values_is_damaged(kind, run):
    run.metrics_json.write_text(RECORDS[kind])
    refused(run.results, r"metrics\.json is damaged")


TABLES = {
    "no column epoch": "step,val/loss\n1,1\n",
    "no epoch": "epoch,val/loss\n,1\n",
    "an epoch that is no number": "epoch,val/loss\nnan,1\n",
    "an epoch without end": "epoch,val/loss\ninf,1\n",
    "the epoch 1e18": "epoch,val/loss\n1e18,1\n",
    "values that no sum has": "epoch,val/loss\n1,1e308\n",
    "a text": "epoch,val/loss\n1,x\n",
    "a row that is too long": "epoch,val/loss\n1,1,1\n",
    "a row that is too short": "epoch,val/loss\n1\n",
    "a column too many": ",".join(["epoch", *map(str, range(200))]) + "\n" + "1," * 200 + "1\n",
    "a row too many": "epoch\n" + "1\n" * 20_001,
    "a quote without end": 'epoch,val/loss\n1,"' + "1" * 200_000,
    "no text": "epoch\n\udcff\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_other_values_is_damaged(kind, run):
    run.metrics_csv.write_text(TABLES[kind], errors="surrogateescape")
    refused(run.epochs, r"metrics\.csv is damaged")


def test_a_table_of_63_megabytes_is_refused_unread(run):
    run.metrics_csv.write_text("epoch,val/loss\n" + "1,1.2345678901234567\n" * (63_000_000 // 21))
    refused(run.epochs, r"metrics\.csv is too large: it has 6[\d,]+ bytes")


def test_what_a_row_does_not_have_is_left_out(run):
    # as of a callback that a resumed run was given later
    run.metrics_csv.write_text("epoch,val/loss,train/swing\n1,0.5,\n2,0.4,0.1\n")
    assert run.epochs() == [
        {"epoch": 1.0, "val/loss": 0.5},
        {"epoch": 2.0, "val/loss": 0.4, "train/swing": 0.1},
    ]


# --- settings -------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[Callable[[dict], object], str]] = {
    "100 features of 10 million examples": (
        lambda config: config["data"].update(
            w=[1.0] * 100, train_size=10**7, val_size=10**7, test_size=10**7
        ),
        "are 3,000,000,000 numbers; at most 100,000,000$",
    ),
    "more examples than can be numbered": (
        lambda config: config["data"].update(test_size=10**15),
        "^data.test_size: ",
    ),
    "a billion members of a grid": (
        lambda config: config.update(
            data={"_target_": "src.data.fashion_mnist.FashionMNIST"},
            model={
                "_target_": "src.models.grid.SoftmaxRegression",
                **{name: [0.1] * 1000 for name in ("lr", "weight_decay", "gamma")},
            },
        ),
        "^model=grid has 1,000,000,000 members",
    ),
    "images of 225 pixels": (
        lambda config: config.update(
            data={"_target_": "src.data.fashion_mnist.FashionMNIST", "resize": 225}
        ),
        "^data.resize: ",
    ),
    "an abstract model": (
        lambda config: config["model"].update(_target_="src.models.regression.Regression"),
        "but must be a LightningModule that is defined in src.models",
    ),
    "half a model": (
        lambda config: config["model"].update(_target_="src.models.scratch.Scratch"),
        "but must be a LightningModule that is defined in src.models",
    ),
    "a base of data": (
        lambda config: config.update(
            data={
                "_target_": "src.data.module.SplitDataModule",
                "batch_size": 1,
                "val_size": 0,
                "seed": 0,
            }
        ),
        "but must be a LightningDataModule that is defined in src.data",
    ),
    "a class of Lightning's": (
        lambda config: config["data"].update(_target_="src.data.module.L.LightningDataModule"),
        "but must be a LightningDataModule",
    ),
    "a target of ten thousand letters": (
        lambda config: config["model"].update(_target_=f"src.models.{'x' * 9000}.{'y' * 900}"),
        "but must be a LightningModule",
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_that_take_all_memory_or_build_nothing_are_refused(kind, run):
    config = configuration()
    change, says = SETTINGS[kind]
    change(config)
    run.config.write_text(yaml.safe_dump(config))
    began = time.monotonic()
    refused(lambda: evaluated(run), says)
    assert time.monotonic() - began < 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "loss"),
    [
        ("model.sigma", 1e308, None),
        ("model.lr", 1e308, None),
        ("data.noise", 1e308, "test loss became (nan|inf)"),
        ("data.b", -1e308, "test loss became (nan|inf)"),
        ("data.w", [1e308, 1e-320], "test loss became (nan|inf)"),
        ("data.seed", (1 << 63) - 1, None),
        ("data.batch_size", (1 << 63) - 1, None),
        ("trainer.max_epochs", (1 << 63) - 1, None),
    ],
)
def test_numbers_at_the_end_of_their_range_are_evaluated_or_diverge(run, key, value, loss):
    config = configuration()
    group, _, name = key.partition(".")
    config[group][name] = value
    run.config.write_text(yaml.safe_dump(config))
    if loss is None:
        assert math.isfinite(evaluated(run)["test/loss"])
    else:
        refused(lambda: evaluated(run), loss)


def test_a_classifier_of_values_is_no_classifier(run, tmp_path):
    config = configuration()
    config["model"]["_target_"] = "src.models.scratch.SoftmaxRegression"
    run.config.write_text(yaml.safe_dump(config))
    refused(lambda: evaluated(run), "the model predicts labels, but the targets are values")
    cfg = compose_config("predict", f"run={run.path}")
    refused(lambda: predict(cfg, tmp_path / "out"), "is no classifier")


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38, 0.0])
def test_weights_of_any_size_are_compared(value, tmp_path):
    runs = []
    for name, each in (("one", value), ("other", 0.5)):
        state = {"W": torch.full((10, 784), each).T, "b": torch.zeros(10)}
        runs.append(fashion_run(tmp_path / name, SCRATCH, {}, **state).path)
    compare.compare(compare.find(runs), tmp_path / "out")
    assert (tmp_path / "out/weights.png").exists() == math.isfinite(value)


# --- sweeps ---------------------------------------------------------------------------------------


def write_sweep(folder: Path, jobs: list[list[str]], records: bool = True, **record) -> Path:
    """A sweep folder made by hand; the last job has no seconds."""
    folder.mkdir()
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"command": [], "jobs": jobs}))
    for number in range(len(jobs) if records else 0):
        (folder / str(number)).mkdir()
        row = {"status": "finished", "val/loss": 1.0 + number, "best_epoch": 1} | record
        (folder / str(number) / "metrics.json").write_text(json.dumps(row))
    return folder


def write_epochs(folder: Path, rows: int = 6, **values: float) -> None:
    """metrics.csv of a job as src.oscillation needs it."""
    row = dict.fromkeys(oscillation.NEEDED, 0.5) | values
    lines = [",".join(["epoch", *row])]
    for epoch in range(1, rows + 1):
        lines.append(",".join(map(str, [epoch, *row.values()])))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_a_sweep_of_20000_jobs_with_a_key_each_is_refused(tmp_path):
    folder = write_sweep(tmp_path / "s", [])
    jobs = "".join(f"- [k{n}=1]\n" for n in range(20_000))
    (folder / "sweep.yaml").write_text(f"command: []\njobs:\n{jobs}")
    refused(lambda: summarize(folder), "10000 items")


def test_a_sweep_whose_jobs_differ_in_51_keys_is_refused(tmp_path):
    folder = write_sweep(tmp_path / "s", [[f"k{n}=1"] for n in range(51)], records=False)
    refused(lambda: summarize(folder), "differ in 51 keys, at most 50")


def test_records_that_together_are_too_large_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "RECORDS", 1000)
    folder = write_sweep(tmp_path / "s", [["a=1"], ["a=2"]], reason="x" * 600)
    refused(lambda: summarize(folder), r"s/\*/metrics\.json are too large: 1,\d+ bytes, more than")
    folder = write_sweep(tmp_path / "t", [["a=1"], ["a=2"]])
    for number in range(2):
        write_epochs(folder / str(number), rows=50)
    refused(lambda: oscillation.measure(sweeps.Sweep(folder)), r"t/\*/metrics\.csv are too large")


def test_a_sweep_whose_runs_have_hundreds_of_metrics_each_is_refused(tmp_path):
    folder = write_sweep(tmp_path / "s", [[f"a={n}"] for n in range(9)])
    for number in range(9):
        metrics = {f"test/{number}_{k}": 1.0 for k in range(100)}
        (folder / str(number) / "metrics.json").write_text(json.dumps(metrics))
    refused(lambda: summarize(folder), "more than 200 kinds of metrics")


LONG = "y" * 9_000


def test_long_values_are_cut_in_tables_and_pictures(tmp_path):
    folder = write_sweep(tmp_path / "s", [[f"model.x={LONG}{n}"] for n in range(3)])
    _, text = summarize(folder)
    assert max(map(len, text.splitlines())) < 400
    assert (folder / "summary.png").stat().st_size < 200_000
    for number in range(3):
        write_epochs(folder / str(number))
    sweep = sweeps.Sweep(folder)
    from src.sweeps.answer import groups

    rows = oscillation.measure(sweep)
    oscillation.draw(groups(rows, sweep.axes, oscillation.MEASURED), folder / "oscillation.png")
    assert (folder / "oscillation.png").stat().st_size < 200_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", [r"$\frac$", r"\$\frac$", r"$$\frac$$", "_hidden", "a\\$b$", "实验"]
)
def test_no_value_is_a_formula_or_a_warning_in_a_picture(value, tmp_path):
    jobs = [[f"model.{value}={value}{n}", f"model.b={value}{n}"] for n in range(2)]
    folder = write_sweep(tmp_path / "s", jobs)
    for number in range(2):
        write_epochs(folder / str(number))
    summarize(folder)
    assert (folder / "summary.png").exists()
    from src.sweeps.answer import groups

    sweep = sweeps.Sweep(folder)
    rows = oscillation.measure(sweep)
    oscillation.draw(groups(rows, sweep.axes, oscillation.MEASURED), folder / "oscillation.png")
    assert (folder / "oscillation.png").exists()


@pytest.mark.parametrize("value", ["nan", "inf", "", "1e101"])
def test_a_loss_that_is_no_number_is_not_measured(value, tmp_path):
    folder = write_sweep(tmp_path / "s", [["a=1"]])
    write_epochs(folder / "0", **{"train/loss": value})
    refused(lambda: oscillation.measure(sweeps.Sweep(folder)), "lacks train/loss|is 1e[+]101")


def test_losses_as_large_as_a_metric_can_be_are_summed(tmp_path):
    jobs = [[f"a={n}", f"seed={seed}"] for n in (1, 2) for seed in (0, 1)]
    folder = write_sweep(tmp_path / "s", jobs, **{"val/loss": 1e100, "test/loss": -1e100})
    _, text = summarize(folder)
    assert "± 0.0000" in text
    assert (folder / "summary.png").exists()


@pytest.mark.parametrize(
    "values", [("5e-324", "1e308"), ("1e-320", "0.1"), ("nan", "inf"), ("0", "9")]
)
def test_values_of_any_size_have_a_place_in_a_picture(values, tmp_path):
    jobs = [[f"a={value}"] for value in values]
    folder = write_sweep(tmp_path / "s", jobs, **{"val/loss": 5e-324})
    summarize(folder)
    assert (folder / "summary.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, -1.0, 5e-324, 1e100, math.nan, math.inf])
def test_metrics_of_any_size_are_drawn(value, run, tmp_path):
    # warnings of matplotlib's, as of a logarithmic axis without a value above 0, are errors here
    names = ["lr", "train/loss", "val/loss", "val/acc", "error/w"]
    rows = [f"{epoch}," + ",".join([str(value)] * len(names)) for epoch in (1, 2)]
    run.metrics_csv.write_text("\n".join([f"epoch,{','.join(names)}", *rows]) + "\n")
    other = write_run(tmp_path / "other")
    compare.compare(compare.find([run.path, other.path]), tmp_path / "out")
    assert (tmp_path / "out/curves.png").exists()


@pytest.mark.parametrize("table", ["", "epoch\n", "epoch\n1\n", "epoch,val/loss\n1,\n"])
def test_a_run_without_a_metric_is_not_compared(table, run, tmp_path):
    other = write_run(tmp_path / "other")
    run.metrics_csv.write_text(table)
    refused(
        lambda: compare.compare(compare.find([other.path, run.path]), tmp_path / "out"),
        "/run has no epoch to compare yet$",
    )
    assert not (tmp_path / "out").exists()


# --- links ----------------------------------------------------------------------------------------


def as_somebody_else(function: Callable[[], object]) -> str:
    """What the function raises, as text, when it is called by a user who owns nothing here."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            os.setgid(65534)
            os.setuid(65534)
            function()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writable, said.encode())
            os._exit(0)
    os.close(writable)
    with open(readable, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def public():
    """A folder that every user of the machine can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("mode", [0o711, 0o333, 0o000])
def test_what_cannot_be_listed_is_refused(public, mode):
    secret = public / "diary"
    secret.write_text(json.dumps({"status": "finished", "reason": SECRET}))
    folder = write_sweep(public / "sweep", [["a=1"], ["a=2"]])
    (folder / "0/metrics.json").unlink()
    (folder / "0/metrics.json").symlink_to(secret)
    (folder / "0").chmod(mode)
    said = as_somebody_else(lambda: sweeps.Sweep(folder))
    assert said.startswith(f"UserError: {folder}/0 cannot be listed (Permission denied)")
    assert "\n" not in said
    run = write_run(public / "run")
    (run.path / "checkpoints").chmod(mode)
    said = as_somebody_else(run.settings)
    assert said.startswith(f"UserError: {run.best.parent} cannot be listed (Permission denied)")
    # the folder itself
    run.best.parent.chmod(0o755)
    run.path.chmod(mode)
    said = as_somebody_else(run.settings)
    assert "Permission denied" in said or "cannot be listed" in said
    assert "\n" not in said


def swap(path: Path, target: Path) -> None:
    """Put a link to the target in the place of the file or folder."""
    path.rename(path.with_name(f"was {path.name}"))
    path.symlink_to(target)


SWAPPED = {
    ".hydra/config.yaml": "config.yaml",
    ".hydra": "config.yaml",
    "checkpoints/best.ckpt": "best.ckpt",
    "checkpoints": "best.ckpt",
    "metrics.json": "metrics.json",
}


@pytest.mark.parametrize("name", SWAPPED)
def test_what_becomes_a_link_behind_the_check_is_not_opened(name, run, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run.path, elsewhere)
    check = files.refuse_links

    def check_and_swap(folder: Path, kind: str) -> None:
        check(folder, kind)
        swap(run.path / name, elsewhere / name)

    monkeypatch.setattr(files, "refuse_links", check_and_swap)
    refused(lambda: evaluated(run), f"{SWAPPED[name]} is (a link|no file)")
    assert not (run.path / "evaluation.json").exists()


@pytest.mark.parametrize("name", ["0", "0/metrics.json"])
def test_a_job_that_becomes_a_link_behind_the_check_is_damaged(name, tmp_path, monkeypatch):
    folder = write_sweep(tmp_path / "s", [["a=1"], ["a=2"]])
    other = write_sweep(tmp_path / "other", [["a=1"]], reason=SECRET)
    check = files.refuse_links

    def check_and_swap(folder: Path, kind: str) -> None:
        check(folder, kind)
        swap(folder / name, other / name)

    monkeypatch.setattr(sweeps, "refuse_links", check_and_swap)
    rows, _ = summarize(folder)
    assert [row["status"] for row in rows] == ["damaged", "finished"]
    assert SECRET not in (folder / "summary.md").read_text()
    assert SECRET not in (folder / "summary.csv").read_text()


def test_a_file_that_is_swapped_for_a_link_all_the_time_is_never_followed(run, victim):
    run.metrics_json.write_text('{"status": "finished"}')
    link = run.path.with_name("link")
    victim.write_text(json.dumps({"status": SECRET}))
    link.symlink_to(victim)
    kept = run.path.with_name("kept")
    end = time.monotonic() + 0.3

    def race() -> None:
        while time.monotonic() < end:
            run.metrics_json.rename(kept)
            link.rename(run.metrics_json)
            run.metrics_json.rename(link)
            kept.rename(run.metrics_json)

    racing = threading.Thread(target=race)
    racing.start()
    found = set()
    while racing.is_alive():
        try:
            found.add(run.results().get("status", "none"))
        except UserError:
            found.add("refused")
    racing.join()
    assert SECRET not in found
    assert len(found) > 1  # else there was no race


# --- names ----------------------------------------------------------------------------------------


@pytest.fixture
def deep(run):
    """The run, with 990 folders one within the other: no path is long enough to name the last."""
    current = os.open(run.path, os.O_RDONLY)
    for _ in range(990):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    yield run
    for _ in range(990):
        above = os.open("..", os.O_RDONLY, dir_fd=current)
        os.close(current)
        os.rmdir("d", dir_fd=above)
        current = above
    os.close(current)


def test_folders_990_deep_are_refused(deep):
    refused(deep.settings, "more than 16 levels")


def test_a_folder_of_very_many_files_is_refused(run, monkeypatch):
    monkeypatch.setitem(files.ENTRIES, "run folder", 20)
    for number in range(21):
        (run.path / str(number)).touch()
    refused(run.settings, "has more than 20 files")


NAMES = [b"\xff\xfe run", b"r\xc3\xbcn\x1b[2J", b"error: all is lost\nwritten to x", b"$x=", b"-m"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_run_may_have_any_name(name, tmp_path):
    parent = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    run = write_run(parent / "run")
    from src.cli.console import quoted

    cfg = compose_config("evaluate", f"run={quoted(run.path)}")
    from src.evaluate.scores import evaluate

    assert evaluate(cfg)["test/loss"] > 0
    other = write_run(parent / "other")
    text = compare.compare(compare.find([run.path, other.path]), tmp_path / "out")
    assert all(line.isprintable() for line in text.splitlines())
    folder = write_sweep(parent / "sweep", [["a=1"], ["a=2"]])
    _, text = summarize(folder)
    assert "2 finished" in text
    (run.best).write_bytes(b"")
    refused(lambda: evaluate(cfg), "best.ckpt is damaged")


def test_the_home_folder_of_nobody_is_a_name_like_others(run):
    refused(lambda: compare.find([run.path, Path("~nobody-of-this-name/run")]), "is no run folder")
    refused(lambda: sweeps.Sweep("~nobody-of-this-name/sweep"), "is no sweep folder")
    refused(lambda: find("~nobody-of-this-name/x.png"), "names no picture")


def test_a_link_to_ones_own_run_may_be_named(run, tmp_path):
    # the user's own link leads to the folder; below it none is followed
    (tmp_path / "mine").symlink_to(run.path)
    assert evaluated(Run(tmp_path / "mine"))["test/loss"] > 0


# --- what is printed ------------------------------------------------------------------------------


def test_a_message_is_one_line_of_a_length_that_can_be_read():
    line = str(UserError(f"no such thing: {'x' * 1_000_000}\n\x1b[2J"))
    assert len(line) == LONGEST + len(" ... ")
    assert line.startswith("no such thing: xxx")
    assert line.endswith(r"x\n\x1b[2J")


@pytest.mark.parametrize("arguments", [["--\x1b[2Jx"], ["--\x1b]0;owned\x07"]])
def test_what_is_wrong_with_arguments_is_said_without_escapes(arguments):
    parser = Parser("python -m src.compare", "Runs side by side.")
    parser.add_argument("runs", nargs="+")
    line = refused(lambda: parser.parse_args(["a", *arguments]), "unrecognized arguments")
    assert r"\x1b" in line


@pytest.mark.slow
def test_escapes_in_tracebacks_and_arguments_do_not_reach_the_terminal(cli, tmp_path):
    run = write_run(tmp_path / "run")
    pickled = b"\x80\2" + called("_codecs", "encode", text("x"), text("\x1b[2J")) + b"."
    checkpoint(run.best, pickled)
    name = "run\nerror: forged\x1b[2J"
    shutil.copytree(run.path, tmp_path / name)
    for arguments in (
        ("src.compare", "run", name),
        ("src.compare", "--\x1b[2J"),
        ("src.compare", f"{name}/none", "run"),
        ("src.sweeps", name),
        ("src.sweeps", "resume", name),
        ("src.sweeps", "resume", "\x1b[2J", "x", "--y\x1b[2J"),
        ("src.oscillation", name),
        ("src.oscillation", "--\x1b[2J"),
    ):
        for full in ("0", "1"):
            status, output = cli(*arguments, data=False, env={"HYDRA_FULL_ERROR": full})
            assert status == 1, output
            assert "\x1b" not in output
            assert "error: forged" not in [line.strip() for line in output.splitlines()]
            if full == "0":
                assert len(output.splitlines()) == 1


# --- a folder that one is in ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("safe", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_a_plugin_in_the_current_folder_is_not_loaded_with_a_safe_path(safe, start, tmp_path):
    made = tmp_path / "made"
    write_run(tmp_path / "run")
    for module in ("hydra_plugins/evil.py", "sitecustomize.py", "yaml.py"):
        path = tmp_path / module
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(made)!r}, 'w')\n")
    if not safe:  # else the other case would show nothing; this one alone breaks no library
        (tmp_path / "yaml.py").unlink()
    env = {"PYTHONSAFEPATH": "1"} if safe else {}
    command = start("src.evaluate", "run=run", data=False, fresh=True, env=env)
    assert command.wait() == 0, command.output()
    assert "written to run/: evaluation.json" in command.output()
    assert made.exists() != safe


# --- going on with a folder that is damaged -------------------------------------------------------


def test_a_finished_record_without_epochs_is_finished_all_the_same(run, caplog):
    run.last.write_bytes(run.best.read_bytes())
    run.metrics_json.write_text('{"status": "finished"}')
    caplog.set_level("INFO")
    resume(run.path)
    assert "is finished" in caplog.text
    assert "0 epochs" not in caplog.text


@pytest.mark.parametrize("content", ["5", "{}", "[1]", "a: b", "", "[a, [b]]", "!!python/x 1"])
def test_overrides_that_are_no_list_are_damaged(run, content):
    run.config.with_name("overrides.yaml").write_text(content)
    refused(run.overrides, r"overrides\.yaml is damaged")


@pytest.mark.parametrize(
    "callbacks", [{}, {"History": {}}, {"History": {"rows": 3}}, {"History": 1}]
)
def test_a_checkpoint_without_its_history_is_not_gone_on_with(run, callbacks):
    content = torch.load(run.best, weights_only=True)
    torch.save(content | {"callbacks": callbacks}, run.last)
    run.metrics_json.write_text('{"status": "interrupted"}')
    refused(lambda: resume(run.path), r"last\.ckpt is no checkpoint of a run: it has no history")


# --- what the commands cost -----------------------------------------------------------------------


def peak(process: int) -> int:
    """The most memory that the process has had, in bytes; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def cost(start: Callable, *arguments: str) -> tuple[int, str, float, float]:
    """Exit status, output, peak memory in bytes and seconds of a command in a new interpreter."""
    command = start(*arguments, data=False, fresh=True)
    most = 0
    while command.alive():
        most = max(most, peak(command.process.pid))
        time.sleep(0.005)
    seconds = time.monotonic() - command.began
    return command.wait(), command.output(), most, seconds


def fashion_run(folder: Path, model: dict, data: dict, **state: torch.Tensor) -> Run:
    """A run on FashionMNIST whose checkpoint has these weights."""
    run = write_run(folder)
    config = configuration()
    config["data"] = {"_target_": "src.data.fashion_mnist.FashionMNIST", **data}
    config["model"] = model
    run.config.write_text(yaml.safe_dump(config))
    content = torch.load(run.best, weights_only=True)
    torch.save(content | {"state_dict": state}, run.best)
    return run


SCRATCH = {"_target_": "src.models.scratch.SoftmaxRegression"}


def images_of_224(folder: Path) -> Run:
    side = 224
    return fashion_run(
        folder, SCRATCH, {"resize": side}, W=torch.zeros(10, side**2).T, b=torch.zeros(10)
    )


def largest_grid(folder: Path) -> Run:
    K = 6_300  # members of 784 x 10 weights: 49 million
    grid = {"_target_": "src.models.grid.SoftmaxRegression", "lr": [0.1] * 63, "gamma": [0.9] * 100}
    state = {"W": torch.zeros(784, 10), "b": torch.zeros(10)}
    state |= {"Ws": torch.zeros(784, K, 10), "bs": torch.zeros(K, 10)}
    return fashion_run(folder, grid | {"weight_decay": [0.0]}, {}, **state)


def synthetic_run(folder: Path, features: int, examples: int) -> Run:
    run = write_run(folder)
    config = configuration()
    config["data"] |= {"w": [1.0] * features, "test_size": examples, "train_size": 1, "val_size": 0}
    run.config.write_text(yaml.safe_dump(config))
    content = torch.load(run.best, weights_only=True)
    state = {"W": torch.zeros(1, features).T, "b": torch.zeros(1)}
    torch.save(content | {"state_dict": state}, run.best)
    return run


def many_examples(folder: Path) -> Run:
    return synthetic_run(folder, 9, 10_000_000)


def many_features(folder: Path) -> Run:
    return synthetic_run(folder, 10_000, 9_900)


def largest_checkpoint(folder: Path) -> Run:
    run = write_run(folder)
    content = torch.load(run.best, weights_only=True)
    torch.save(content | {"more": torch.zeros(LARGEST // 4 - 3_000)}, run.best)
    return run


def many_instructions(folder: Path) -> Run:
    run = write_run(folder)
    with zipfile.ZipFile(run.best) as file:
        parts = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    # lists of nothing, which take more memory than any other instruction of one byte
    more = text("more") + pickle.EMPTY_LIST + pickle.MARK + 990_000 * pickle.EMPTY_DICT + b"e"
    archive(run.best, parts | {"data.pkl": parts["data.pkl"][:-1] + more + pickle.SETITEM + b"."})
    return run


MADE = [images_of_224, largest_grid, many_examples, many_features]
MADE += [largest_checkpoint, many_instructions]


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("command", ["src.evaluate", "src.predict", "src.compare"])
@pytest.mark.parametrize("make", MADE)
def test_all_that_is_as_large_as_may_be_takes_a_bounded_memory_and_time(
    make, command, start, data_root, tmp_path
):
    check_cost(make, command, start, data_root, tmp_path)


# for every run of the suite: the largest that each command builds, in the one that it costs most
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "command"),
    [
        pytest.param(images_of_224, "src.predict", marks=pytest.mark.thorough),
        (many_instructions, "src.compare"),
    ],
)
def test_the_largest_that_is_read_takes_a_bounded_memory_and_time(
    make, command, start, data_root, tmp_path
):
    check_cost(make, command, start, data_root, tmp_path)


def check_cost(
    make: Callable[[Path], Run], command: str, start: Callable, data_root: str, tmp_path: Path
) -> None:
    run = make(tmp_path / "run")
    if command == "src.compare":
        arguments = [command, "run", str(write_run(tmp_path / "other").path)]
    else:
        arguments = [command, "run=run", f"data.root={data_root}"]
    status, output, memory, seconds = cost(start, *arguments)
    print(f"{make.__name__} {command}: {memory / 1e6:.0f} MB, {seconds:.1f} s")
    regression = command == "src.predict" and "src.data.synthetic" in run.config.read_text()
    assert status == int(regression), output
    assert memory < MEMORY
    assert seconds < SECONDS


def eight_long_runs(folder: Path) -> list[str]:
    """Runs of as many epochs and metrics as can be read."""
    names = ["lr", "train/loss", "val/loss", "train/acc", "val/acc", "error/w", "error/b"]
    names += [f"more/{k}" for k in range(17)]
    line = ",".join("0.123456789" for _ in names)
    text = "\n".join(f"{epoch},{line}" for epoch in range(1, 20_001))
    for letter in "ABCDEFGH":
        run = write_run(folder / letter)
        run.metrics_csv.write_text(f"epoch,{','.join(names)}\n{text}\n")
        content = torch.load(run.best, weights_only=True)
        content["callbacks"]["History"]["rows"] = [{"epoch": 1, "lr": 0.5}] * 20_000
        torch.save(content, run.best)
    return [*"ABCDEFGH"]


@pytest.mark.slow
@pytest.mark.thorough
def test_eight_runs_as_long_as_can_be_are_compared(start, tmp_path):
    names = eight_long_runs(tmp_path)
    status, output, memory, seconds = cost(start, "src.compare", *names)
    print(f"eight long runs: {memory / 1e6:.0f} MB, {seconds:.1f} s")
    assert status == 0, output
    assert memory < MEMORY
    assert seconds < SECONDS


def many_jobs(folder: Path) -> None:
    write_sweep(folder, [[f"a={n}"] for n in range(10_000)], reason="x" * 1_500)


def many_axes(folder: Path) -> None:
    jobs = [[f"k{k}={n}" for k in range(7)] for n in range(7_000)]
    write_sweep(folder, jobs)


def many_lines(folder: Path) -> None:
    write_sweep(folder, [[f"model.a={n}", f"model.b={n % 499}"] for n in range(500)])


def many_epochs(folder: Path) -> None:
    write_sweep(folder, [[f"model.a={n}"] for n in range(38)])
    for number in range(38):
        write_epochs(folder / str(number), rows=20_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        many_axes,
        pytest.param(many_jobs, marks=pytest.mark.thorough),
        pytest.param(many_lines, marks=pytest.mark.thorough),
        pytest.param(many_epochs, marks=pytest.mark.thorough),
    ],
)
def test_the_largest_sweep_takes_a_bounded_memory_and_time(make, start, tmp_path):
    make(tmp_path / "sweep")
    status, output, memory, seconds = cost(start, "src.sweeps", "sweep")
    print(f"{make.__name__} src.sweeps: {memory / 1e6:.0f} MB, {seconds:.1f} s")
    assert status == 0, output[-500:]
    assert (memory < MEMORY, seconds < SECONDS) == (True, True)
    if make in (many_lines, many_epochs):
        for number in range(500 if make is many_lines else 0):
            write_epochs(tmp_path / "sweep" / str(number))
        status, output, memory, seconds = cost(start, "src.oscillation", "sweep")
        print(f"{make.__name__} src.oscillation: {memory / 1e6:.0f} MB, {seconds:.1f} s")
        assert status == 0, output[-500:]
        assert (memory < MEMORY, seconds < SECONDS) == (True, True)


# --- at random ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mutants_of_runs_and_sweeps_do_no_harm(data_root):
    arguments = [sys.executable, "-m", "tests.tools.fuzz_folders", "6", "7"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("6 of 6 passed, seed 7; they ended ")


# --- the page -------------------------------------------------------------------------------------


def test_the_page_states_the_limits_of_the_code():
    from src.data.synthetic import MOST_NUMBERS
    from src.models.grid import MOST_MEMBERS, MOST_WEIGHTS
    from src.runs import checkpoint
    from src.runs.record import LARGEST_METRIC, MOST_METRICS
    from src.tables import WIDEST

    rows = [line for line in text_of("docs/trust.md").splitlines() if line.startswith("| ")]
    page = "\n".join(rows)
    MB = 1 << 20
    for limit in (
        f"| {files.ENTRIES['run folder']:,} files, {files.ENTRIES['sweep folder']:,} files",
        f"; {files.LEVELS} levels deep",
        f"| {files.TEXT // MB} MB, {formats.NODES:,} values, {formats.DEPTH} levels deep",
        f"{formats.CHARACTERS:,} characters a value",
        f"| {formats.TABLE // MB} MB, {formats.ROWS:,} epochs, {formats.COLUMNS} columns",
        f"{formats.CELLS:,} values |",
        f"| {LARGEST // MB} MB; its pickle {checkpoint.PICKLE // MB} MB",
        f"{checkpoint.INSTRUCTIONS:,} instructions, {checkpoint.TENSORS:,} tensors",
        f"| {sweeps.MOST_JOBS:,} jobs that differ in {sweeps.MOST_AXES} keys",
        f"{sweeps.RECORDS // MB} MB together",
        f"| {MOST_METRICS} names, numbers up to {LARGEST_METRIC:g}".replace("+", ""),
        f"{MOST_NUMBERS:,} numbers",
        f"| {MOST_MEMBERS:,} members, {MOST_WEIGHTS:,} weights",
        f"| {WIDEST} characters, {LONGEST:,} characters",
    ):
        assert limit in page
