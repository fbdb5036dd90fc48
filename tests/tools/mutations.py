"""Mutants of run and sweep folders: bytes, values, checkpoints, files and names, changed at random."""

import contextlib
import copy
import io
import json
import math
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

CANARY, SECRET = "the-users-own", "dear diary"  # a folder beside the mutants, and what it holds
RAW = "a place for text"  # in what is dumped, replaced by a text that a dumper does not write

TEXTS = [
    *("", " ", "x", "0", "1e5", "nan", "true", "~", "~root", "-m", "a=b", "a.b=c", "finished"),
    *(
        "\x1b[2J",
        "\x1b]0;owned\x07",
        "\u202eevil",
        "a\nerror: forged",
        "\r",
        "\t=1",
        "\x00",
        "\x7f",
    ),
    *("\ud800", "é" * 300, "x" * 5_000, "x" * 20_000, "\N{PILE OF POO}", "实验", "a\u0301" * 40),
    *(
        r"$\frac$",
        "$",
        r"\$\frac$",
        "_",
        "<img src=http://127.0.0.1:9/x>",
        "[x](http://127.0.0.1:9)",
    ),
    *(
        "| a | b |",
        "`x`",
        "=1+1",
        "@SUM(1)",
        "+1",
        "-1",
        "${oc.env:HOME}",
        "${seed}",
        "${model.lr}",
    ),
    *("${oc.create:{_target_: os.system}}", "/etc/passwd", "/dev/zero", f"../{CANARY}/diary"),
    *(
        "src.models.scratch.Scratch",
        "src.models.regression.Regression",
        "src.models.x.y",
        "os.system",
    ),
    *("src.models.scratch.SoftmaxRegression", "src.models.closed_form.SoftmaxRegression"),
    *("src.models.concise.SoftmaxRegression", "src.models.grid.SoftmaxRegression"),
    *(
        "src.data.module.SplitDataModule",
        "src.data.synthetic.SyntheticRegression",
        "subprocess.Popen",
    ),
    *("src.data.fashion_mnist.FashionMNIST", "src.data..x", "src.data.sources.subprocess.Popen"),
    *("cpu", "gpu", "auto", "tpu", "l1", "huber", "textbook", "best", "diverged", "running"),
]
NUMBERS = [
    0,
    -1,
    1,
    2,
    7,
    224,
    1_000,
    59_999,
    10_000_000,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63),
    10**30,
]
NUMBERS += [1e308, -1e308, 1e-320, 1e101, 3.5e38, 0.5, 1.5, math.nan, math.inf, -math.inf]


def deep(levels: int) -> list:
    return [deep(levels - 1)] if levels else []


OTHERS: list[Any] = [None, True, False, [], {}, [[]], [1] * 50, ["x", 1, None], [0.1] * 2_000]
OTHERS += [deep(20), deep(40), deep(900), {"a": {"b": 1}}, {"": 1}, {"_target_": "os.system"}]
OTHERS += [{"_target_": "subprocess.run", "args": ["touch", CANARY]}, {"x" * 500: 1}, ["a=b"]]
OTHERS += [
    {f"k{k}": k for k in range(300)},
    [{"step": 1, "overrides": []}],
    {"a/b": 1},
    [[["a=b"]]],
]

YAML = [
    *("!!bool x", "!!int ''", "!!float x", "!!python/object/apply:os.system ['true']", "!<x> y"),
    *("&a [*a]", "&a 1", "*a", "2026-11-30", "2026-11-30 10:00:00", "1:1:1", f"1{':1' * 300}.5"),
    *(f"1{':1' * 4000}", "0x7fffffffffffffffff", "9" * 4_400, ".nan", "-.inf", "1e308", "0b12"),
    *(
        '"\\ud800"',
        '"\\e[2J"',
        "[" * 40,
        "{" * 40,
        "? [1]\n: 2",
        "{1: 2}",
        "{null: 1}",
        "{true: 1}",
    ),
    *(
        "{a: 1, a: 2}",
        "{<<: 5}",
        "=",
        "<<",
        "|\n  text",
        "'",
        '"',
        "\t",
        "- - -",
        "%YAML 9.9",
        "---",
    ),
    *("${oc.env:HOME}", "${", "@x", "`x`", "0o17", "+.inf", "1_000", "yes", "no", "~", "null"),
]
JSON = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", '"\\ud800"', '"\\u001b[2J"', "9" * 5_000]
JSON += [
    "[" * 2_000,
    "{" * 50,
    '{"a": 1, "a": 2}',
    "01",
    "'x'",
    "tru",
    "//",
    '"x',
    "1.",
    '"\\x"',
    "\x00",
]
CELLS = [
    "",
    "x",
    "nan",
    "inf",
    "1e308",
    "1e101",
    "-1",
    "1_0",
    " 1 ",
    '"',
    '"a\nb"',
    "1,2",
    "\x00",
    "'",
]
CELLS += [
    "\x1b[2J",
    "=1+1",
    "é",
    "1" * 400,
    "0x1",
    "1e-400",
    "９",
    "true",
    "None",
    "\r",
    '""',
    "1;2",
]


def value(rng: random.Random) -> Any:
    return rng.choice(rng.choice([TEXTS, NUMBERS, OTHERS]))


# --- bytes ----------------------------------------------------------------------------------------


def flip(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.choice([1, 1, 2, 10, 100])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def cut(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    del content[start : rng.choice([len(content), start + 1, start + 50])]


def repeat(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    part = content[start : start + rng.choice([1, 10, 1_000])]
    content[start:start] = part * rng.choice([1, 2, 100])


def insert(rng: random.Random, content: bytearray) -> None:
    part = rng.choice(
        [b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b"\r\n", b"PK\5\6", b"\x1b[2J", b"\t"]
    )
    start = rng.randrange(len(content) + 1)
    content[start:start] = part


def change_bytes(rng: random.Random, path: Path) -> str:
    content = bytearray(path.read_bytes())
    how = rng.choice([flip, cut, repeat, insert])
    if content:
        how(rng, content)
    path.write_bytes(content)
    return f"{how.__name__} bytes of {path.name}"


def swap_files(rng: random.Random, path: Path) -> str:
    """Exchange what the file holds with that of another in the folders beside it."""
    others = [each for each in sorted(path.parent.parent.rglob("*")) if is_file(each)]
    other = rng.choice(others)
    held, others_held = path.read_bytes(), other.read_bytes()
    path.write_bytes(others_held)
    other.write_bytes(held)
    return f"swap {path.name} and {other.name}"


# --- values of texts ------------------------------------------------------------------------------


def places(content: Any) -> list[tuple[Any, Any]]:
    """The containers of a value with the keys of all that is in them, at any depth."""
    items = list(content.items()) if isinstance(content, dict) else []
    if isinstance(content, list):
        items = list(enumerate(content))
    found = []
    for key, each in items:
        found += [(content, key), *places(each)]
    return found


def change_value(
    rng: random.Random, content: Any, new: Callable[[], Any], deep: bool = True
) -> str:
    """Replace, take away, add or rename one of the values within the content."""
    known = places(content) if deep else [(content, key) for key in content]
    if not known:
        return "nothing"
    container, key = rng.choice(known)
    how = rng.choice(["replace"] * 5 + ["remove", "add", "rename", "copy"])
    if how == "replace":
        container[key] = new()
    elif how == "remove":
        del container[key]
    elif how == "copy":
        other, place = rng.choice(known)
        container[key] = copy.deepcopy(other[place])
    elif isinstance(container, dict):
        name = rng.choice([*TEXTS, "val/loss", "epoch", "hydra", "defaults", "_target_", "w"])
        container[name] = new() if how == "add" else container.pop(key)
    else:
        container.insert(rng.randrange(len(container) + 1), new())
    return f"{how} {key}"


def change_text(rng: random.Random, path: Path) -> str:
    """Change a value of a YAML or JSON file."""
    raw = rng.choice(JSON if path.suffix == ".json" else YAML)
    content = yaml.safe_load(path.read_text())
    holder = [content]
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        what = change_value(rng, holder, lambda: RAW if rng.random() < 0.3 else copied(rng))
    content = holder[0] if holder else None
    try:
        text = json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content)
    except (RecursionError, TypeError, yaml.YAMLError):
        text = "[" * 2_000
    text = text.replace(f'"{RAW}"', raw).replace(RAW, raw)
    path.write_text(text, "utf-8", "surrogatepass")
    return f"{what} in {path.name}" + (f" ({raw[:30]})" if raw in text else "")


def copied(rng: random.Random) -> Any:
    return copy.deepcopy(value(rng))


def change_table(rng: random.Random, path: Path) -> str:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    how = rng.choice(["cell"] * 4 + ["name", "row", "column", "rows", "order"])
    row = rng.choice(rows)
    if how in ("cell", "name"):
        row = rows[0] if how == "name" else row
        row[rng.randrange(len(row))] = rng.choice(CELLS)
    elif how == "row":
        rows.remove(row)
    elif how == "column":
        place = rng.randrange(len(rows[0]))
        rows = [each[:place] + each[place + 1 :] for each in rows]
    elif how == "rows":
        rows += [row] * rng.choice([1, 1_000, 30_000])
    else:
        rng.shuffle(rows)
    text = "\n".join(map(",".join, rows)) + "\n"
    path.write_text(text, "utf-8", "surrogatepass")
    return f"{how} of {path.name}"


def enlarge(rng: random.Random, path: Path) -> str:
    """Write a text that is large, or stands for something large."""
    times = rng.choice([10_000, 100_000, 400_000])
    text = {
        "numbers": f"x: [{'1,' * times}]",
        "keys": "".join(f"k{k}: 1\n" for k in range(times)),
        "rows": "epoch,a\n" + "1,1\n" * times,
        "columns": "epoch" + ",a" * times + "\n1" + ",1" * times + "\n",
        "jobs": "command: []\njobs:\n" + "".join(f"- [k{k % 60}={k}]\n" for k in range(times)),
        "many jobs": "command: []\njobs:\n" + "".join(f"- [a={k}]\n" for k in range(9_000)),
        "metrics": json.dumps({f"m/{k}": 1.0 for k in range(times // 10)}),
        "a key": json.dumps({"x" * times: 1}),
        "a value": json.dumps({"status": "x" * times}),
        "lines": "\n" * times,
    }
    what = rng.choice([*text])
    path.write_text(text[what])
    return f"{times} {what} in {path.name}"


# --- checkpoints ----------------------------------------------------------------------------------


def tensors() -> list[Any]:
    """Tensors of other kinds, shapes and types than weights have."""
    made = [torch.zeros(0), torch.zeros(()), torch.zeros(3, 3), torch.full((784, 10), math.nan)]
    made += [torch.zeros(784, 10, dtype=torch.float64), torch.zeros(784, 10, dtype=torch.int64)]
    made += [torch.zeros(1, 1).expand(784, 10), torch.zeros(10, 784).T, torch.zeros(7840)[::2]]
    made += [torch.zeros(784, 10, device="meta"), torch.zeros(784, 10).to_sparse()]
    made += [torch.zeros(784, 10, dtype=torch.complex64), torch.full((10,), 1e38)]
    made += [torch.zeros(784, 10, dtype=torch.bfloat16), torch.nn.Parameter(torch.zeros(10))]
    made.append(torch.zeros(784, 10).to_sparse_csr())
    with contextlib.suppress(AttributeError, RuntimeError):  # a torch that has none any more
        made.append(torch.quantize_per_tensor(torch.zeros(784, 10), 0.1, 0, torch.qint8))
    return made


def change_checkpoint(rng: random.Random, path: Path) -> str:
    """Build a checkpoint again with other parts."""
    holder = {"": torch.load(path, weights_only=True)}
    part = rng.choice(["", "", "state_dict", "state_dict", "everything"])

    def new() -> Any:
        odd = [b"bytes", bytearray(9), {1, 2}, (1, 2), 1j, {(1, 2): 3}, {1: 2, None: 3}, 2**2000]
        return rng.choice([*tensors(), *odd]) if rng.random() < 0.6 else copied(rng)

    for _ in range(rng.choice([1, 1, 2, 4])):
        within = {"": holder[""], "state_dict": holder[""].get("state_dict")}.get(part, holder)
        what = change_value(rng, within, new, deep=part == "everything")
    with contextlib.suppress(Exception):  # the file is left as it was if this cannot be saved
        content = io.BytesIO()
        torch.save(holder.get(""), content)
        path.write_bytes(content.getvalue())
    return f"{what} in {path.name}"


OPCODES = [
    getattr(pickle, name) for name in pickle.__all__ if isinstance(getattr(pickle, name), bytes)
]
SNIPPETS = [
    b"cos\nsystem\nX\4\0\0\0true\x85R",
    b"cbuiltins\nbytearray\n\x8a\x05\x00\xc8\x17\xa8\x04\x85R",
    b"c_codecs\nencode\nX\1\0\0\0xX\4\0\0\0idna\x86R",
    b"ccollections\nOrderedDict\n)R",
    b"ctorch\nFloatStorage\n",
    b")" + b"\x85" * 1_000,
    b"}(" + b"K\1K\2" * 100 + b"u",
    b"]" * 1_000,
    b"2" * 50,
    b"0" * 50,
]


def change_pickle(rng: random.Random, path: Path) -> str:
    """Change the instructions of a checkpoint, or the other parts of its archive; all checksums are
    right."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    name = next(each for each in parts if each.endswith("/data.pkl"))
    if rng.random() < 0.3:
        name = rng.choice([*parts])
    content = parts[name]
    how = rng.choice(
        ["opcode", "opcode", "snippet", "bytes", "bytes", "remove", "empty", "deflate"]
    )
    start = rng.randrange(len(content)) if content else 0
    if how == "opcode":
        for _ in range(rng.choice([1, 1, 3])):
            content[start : start + 1] = rng.choice(OPCODES)
    elif how == "snippet":
        content[start:start] = rng.choice(SNIPPETS)
    elif how == "bytes" and content:
        rng.choice([flip, cut, repeat, insert])(rng, content)
    elif how == "remove":
        del parts[name]
    elif how == "empty":
        content.clear()
    method = zipfile.ZIP_DEFLATED if how == "deflate" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for each, held in parts.items():
            archive.writestr(each, bytes(held))
    return f"{how} of {name} in {path.name}"


# --- files and names ------------------------------------------------------------------------------


def replace_file(rng: random.Random, path: Path) -> str:
    """Put something else in the place of a file, or of the folder that it is in."""
    canary = next(each for each in path.parents if each.name == "mutants").with_name(CANARY)
    targets = [canary / "run" / path.name, canary / "run/checkpoints" / path.name, canary / "run"]
    targets += [
        Path("/dev/zero"),
        Path("/etc/passwd"),
        path,
        Path("nowhere"),
        path.parent,
        Path("/"),
    ]
    if path.parent.parent != canary.with_name("mutants") and rng.random() < 0.25:
        path = path.parent
    target = rng.choice(targets)
    how = rng.choice(["link", "link", "link", "pipe", "folder", "nothing", "sparse", "empty"])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if how == "link":
        path.symlink_to(target)
        return f"{path.name} is a link to {target}"
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how in ("sparse", "empty"):
        with open(path, "wb") as file:
            file.truncate(rng.choice([1 << 20, 1 << 27, 1 << 40]) if how == "sparse" else 0)
    return f"{path.name} is {how}"


NAMES = [
    b"a b",
    b"a=b",
    b"\xff\xfe",
    b"\x1b[2J",
    b"a\nerror: forged",
    b"$x",
    b"'",
    b'"',
    b"-x",
    b"~x",
]
NAMES += [
    "实验一".encode(),
    "\u202egnp".encode(),
    b"x" * 200,
    b"{a}",
    b"a,b",
    b"(",
    b"#",
    b"%s",
    b"[a]",
]
NAMES += [b"a\\", b"$\\frac$", b"..x", b"summary.csv", b"<b>", b"=1"]


def add_file(rng: random.Random, path: Path) -> str:
    """Add files with names that do harm elsewhere."""
    names = [b"hydra_plugins/evil.py", b"src/__init__.py", b"sitecustomize.py", b"matplotlibrc"]
    names += [b".env", b"conf/train.yaml", b"evaluation.json/x", b"summary.md/x", b"figures/x"]
    names += [b"evaluation.json.1.part", b"summary.csv.-1.part/x", b"oscillation.png/x"]
    names += [b"/".join([b"d"] * 100), *NAMES]
    name = rng.choice(names)
    path = os.path.join(os.fsencode(rng.choice([path.parent, path.parent.parent])), name)
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(rng.choice([b"", b"raise SystemExit(7)\n", b"\xff"]))
    return f"add {name[:30]!r}"


# --- mutants --------------------------------------------------------------------------------------


def is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.lstat().st_size < 1 << 26


ANY = [change_bytes, change_bytes, replace_file, replace_file, swap_files, add_file]
CHANGES = {  # how the name of a file ends -> what may be done to it
    ".yaml": [*ANY, *[change_text] * 12, enlarge],
    ".json": [*ANY, *[change_text] * 12, enlarge],
    ".csv": [*ANY, *[change_table] * 12, enlarge],
    ".ckpt": [*ANY, *[change_checkpoint] * 7, *[change_pickle] * 7],
}


def mutate(
    rng: random.Random, original: Path, parent: Path, read: list[str]
) -> tuple[Path, list[str]]:
    """Copy the folder into `parent` and change the copy, most often one of the files that are
    `read`; returns it, and what was done to it."""
    name = rng.choice(NAMES) if rng.random() < 0.1 else b"mutant"
    folder = Path(os.fsdecode(os.path.join(os.fsencode(parent), name)))
    shutil.copytree(original, folder)
    changes = [f"named {name!r}"] if name != b"mutant" else []
    wanted = len(changes) + rng.choice([1, 1, 1, 2, 3])
    for _ in range(20):
        files = [path for path in sorted(folder.rglob("*")) if is_file(path)]
        if rng.random() < 0.9:
            files = [path for path in files if path.name in read] or files
        if not files:
            break
        path = rng.choice(files)
        # an earlier change may have left nothing to change, as of a file that is no YAML any more
        with contextlib.suppress(Exception):
            changes.append(rng.choice(CHANGES.get(path.suffix, ANY))(rng, path))
        if len(changes) == wanted:
            break
    return folder, changes
