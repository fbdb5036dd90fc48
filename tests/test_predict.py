"""Predictions from a finished run, of test images and of one's own pictures, and decisions under
costs."""

import csv
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from src.cli.explain import USER_ERRORS, explain
from src.data.batches import Examples
from src.data.fashion_mnist import CLASSES, FashionMNIST
from src.data.module import SplitDataModule
from src.errors import UserError
from src.maths import functional as F
from src.models.concise import SoftmaxRegression
from src.predict.prediction import predict, read_costs
from src.runs import Run
from src.runs.build import restore
from src.training.experiment import train
from tests.conftest import ROOT, compose_config, write_png_header


def test_the_likeliest_class_is_not_always_the_best_answer():
    # healthy with 0.9, ill with 0.1; to miss the illness costs 100, a false alarm 1:
    # "healthy" costs 0.1 * 100 = 10 on average, "ill" 0.9 * 1 = 0.9
    p = torch.tensor([[0.9, 0.1], [0.999, 0.001]])
    costs = torch.tensor([[0.0, 1.0], [100.0, 0.0]])
    expected = torch.tensor([[10.0, 0.9], [0.1, 0.999]])
    torch.testing.assert_close(F.expected_cost(p, costs), expected)
    assert F.expected_cost(p, costs).argmin(dim=1).tolist() == [1, 0]


def test_equal_costs_of_all_errors_choose_the_likeliest_class():
    p = torch.randn(100, 10, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    assert torch.equal(F.expected_cost(p, 1 - torch.eye(10)).argmin(dim=1), p.argmax(dim=1))


def test_costs_are_read_by_name_whatever_their_order(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("true,dog,cat\ndog,0,5\ncat,2,0\n")
    assert read_costs(path, ["cat", "dog"]).tolist() == [[0, 2], [5, 0]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("true,cat,dog\ncat,0,1\n", "has no row or no column for dog; see conf/costs"),
        ("true,cat\ncat,0\ndog,1\n", "has no row or no column for dog; see conf/costs"),
        ("true,cat,dog\ncat,0,x\ndog,1,0\n", "could not convert string to float: 'x'"),
        ("true,cat,dog\ncat,0\ndog,1,0\n", "must be a string or a real number"),
        ("true,cat,dog\ncat,0,inf\ndog,1,0\n", "finite number"),
        ("", "has no row or no column for cat, dog"),
        (
            "true,cat,dog,ask\ncat,0,1,1\ndog,1,0,1\n",
            "names ask, which is no class; see conf/costs",
        ),
        ("true,cat,dog\ncat,0,1\ndog,1,0\ncow,1,1\n", "names cow, which is no class"),
    ],
)
def test_costs_that_make_no_sense_are_refused(tmp_path, text, complaint):
    path = tmp_path / "costs.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_costs(path, ["cat", "dog"])


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig"]
)  # with a byte order mark, as spreadsheets write
def test_costs_are_read_in_utf_8_whatever_the_terminal_speaks(tmp_path, encoding, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    (tmp_path / "costs.csv").write_text("true,chat,é\nchat,0,1\né,5,0\n", encoding)
    assert read_costs(tmp_path / "costs.csv", ["chat", "é"]).tolist() == [[0, 1], [5, 0]]


def test_costs_in_another_encoding_are_refused(tmp_path):
    (tmp_path / "costs.csv").write_text("true,chat,é\nchat,0,1\né,5,0\n", "latin-1")
    with pytest.raises(UserError, match=r"is no CSV file of costs: .* no text in UTF-8"):
        read_costs(tmp_path / "costs.csv", ["chat", "é"])


@pytest.fixture(scope="module")
def finished(data_root, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("predict") / "run")
    small = [
        "data.train_size=5000",
        "trainer.max_epochs=1",
        "~callbacks.figures",
        f"data.root={data_root}",
    ]
    train(compose_config("train", *small), run.path)
    return run


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """A copy of a finished run."""
    return Run(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture
def predicted(data_root, tmp_path, monkeypatch, caplog):
    """predicted(key=value, ...) predicts in tmp_path into out; the rows of predictions.csv, and the
    log."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "src.predict")

    def call(*arguments: str, root: Path = data_root) -> tuple[list[dict[str, str]], list[str]]:
        caplog.clear()
        predict(compose_config("predict", f"data.root={root}", *arguments), tmp_path / "out")
        with open(tmp_path / "out/predictions.csv", newline="") as file:
            return list(csv.DictReader(file)), [record.getMessage() for record in caplog.records]

    return call


@pytest.mark.slow
def test_predictions_of_a_run_are_those_of_its_best_checkpoint(predicted, finished, tmp_path):
    costs = ROOT / "conf/costs/missed_shirt.csv"
    rows, log = predicted(f"run={finished.path}", f"decision.costs={costs}", "first=9")
    assert len(rows) == 10_000
    share = sum(row["true"] == row["predicted"] for row in rows) / 10_000
    assert share == finished.results()["test/acc"]
    assert log[0] == f"accuracy {share:.4f} on 10000 test images"
    for row in rows[:100]:
        p = {name: float(row[name]) for name in CLASSES}
        assert max(p, key=p.get) == row["predicted"]
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
    prices = read_costs(costs, CLASSES)
    for rule, line in (("predicted", log[1]), ("answer", log[2])):
        paid = [prices[CLASSES.index(row["true"]), CLASSES.index(row[rule])].item() for row in rows]
        assert float(line.split(" costs ")[1].split()[0]) == pytest.approx(
            sum(paid) / 10_000, abs=1e-4
        )
    assert sum(paid) < sum(
        prices[CLASSES.index(row["true"]), CLASSES.index(row["predicted"])] for row in rows
    )
    differ = sum(row["predicted"] != row["answer"] for row in rows)
    assert log[3] == f"the answers differ on {differ} of 10000 images"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "decisions.png",
        "predictions.csv",
    ]
    with Image.open(tmp_path / "out/decisions.png") as picture:
        assert picture.width > 700


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run=nowhere"], "nowhere is no run folder"),
        ([], "Missing mandatory value: run"),
        (["run={run}", "decision.costs=nowhere.csv"], "No such file"),
        (["run={run}", "first=0"], "first: input should be greater than or equal to 1, got 0"),
        (["run={run}", "first=abc"], "first: input should be a valid integer, got 'abc'"),
        (["run={run}", "first=true"], "first: input should be a valid integer, got True"),
        (
            ["run={run}", "first=1000000"],
            "first: input should be less than or equal to 300, got 1000000",
        ),
        (
            ["run={run}", "checkpoint=nope"],
            "checkpoint: input should be 'best' or 'last', got 'nope'",
        ),
        (["run={run}", "checkpoint=1"], "checkpoint: input should be 'best' or 'last', got 1"),
        (["run=null"], "run: input should be a valid string, got None"),
        (["run={run}", "inputs=''"], "inputs: string should have at least 1 character, got ''"),
        (["run={run}", "inputs=1"], "inputs: input should be a valid string, got 1"),
        (
            ["run={run}", "decision.costs=1"],
            "decision.costs: input should be a valid string, got 1",
        ),
        (["run={run}", "decision=null"], "decision: input should be a valid dictionary, got None"),
        (["run={run}", "data.root=[1]"], "data.root: input should be a valid string, got [1]"),
        (["run={run}", "decision.costs=folder"], "folder is no regular file"),
        (["run={run}", "decision.costs=pipe"], "pipe is no regular file"),
        (["run={run}", "decision.costs=/dev/zero"], "/dev/zero is no regular file"),
        (["run={run}", "decision.costs=endless"], "endless is too large"),
        (["run={run}", "inputs=nope.png"], "inputs=nope.png names no picture"),
        (
            ["run={run}", "invert=maybe"],
            "invert: input should be 'auto', 'true' or 'false', got 'maybe'",
        ),
        (
            ["run={run}", "invert=[1]"],
            "invert: input should be 'auto', 'true' or 'false', got '[1]'",
        ),
        (["run={run}", "invert=1"], "invert: input should be 'auto', 'true' or 'false', got '1'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    predicted, finished, tmp_path, arguments, complaint
):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "endless", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(USER_ERRORS) as refused:
        predicted(*(text.format(run=finished.path) for text in arguments))
    (line,) = explain(refused.value).splitlines()
    assert complaint in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("side", [28, 20])
def test_test_images_as_files_are_predicted_as_in_the_data_set(
    predicted, data_root, tmp_path, side
):
    data = FashionMNIST(root=str(data_root))
    data.setup()
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(data.splits["test"][0].X[:100]):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"pictures/{i:03}.png")
    run = untrained(
        tmp_path / "run", "src.data.fashion_mnist.FashionMNIST", side * side, 10, resize=side
    )
    expected, _ = predicted(f"run={run.path}")
    found, log = predicted(f"run={run.path}", "inputs=pictures", "first=2")
    for i, (own, of_set) in enumerate(zip(found, expected[:100], strict=True)):
        assert own.pop("file") == f"{i:03}.png"
        assert own.pop("predicted") == of_set["predicted"]
        for name in CLASSES:  # the order of a sum of 784 terms may depend on the number of images
            assert float(own[name]) == pytest.approx(float(of_set[name]), abs=2e-6)
    assert [line.split(":")[0] for line in log] == ["000.png", "001.png", "written to out/"]


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Five pictures, among them one with a line break and one with a byte that is not UTF-8 in its
    name."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, name in enumerate([b"a.png", b"b.PNG", b"line\nbreak.png", b"byte\xff.png", b"z.png"]):
        picture = Image.new("RGB", (90, 120), "white")
        picture.paste((20, 60, 20 * k), (20, 10 + 8 * k, 70, 100))
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            picture.save(file, "PNG")
    return folder


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(cli, run, pictures, tmp_path):
    (pictures / "empty.jpg").touch()
    (pictures / "cut.png").write_bytes((pictures / "a.png").read_bytes()[:100])
    write_png_header(pictures / "bomb.png", 20_000, 20_000)
    (pictures / "words.txt").write_text("not asked for")
    status, output = cli(
        "src.predict",
        f"run={run.path}",
        "inputs=pictures",
        "hydra.run.dir=out",
        "first=2",
        data=False,
    )
    assert status == 1
    lines = output.splitlines()
    assert lines[:3] == [
        "cannot read bomb.png: it has 400 megapixels; a PNG may have at most 100: save it smaller",
        "cannot read cut.png: image file is truncated",
        "cannot read empty.jpg: it is empty, damaged, or none of PNG, JPEG, BMP, GIF, WEBP",
    ]
    assert re.fullmatch(
        r"a\.png: [a-z -]+ \d\.\d\d, [a-z -]+ \d\.\d\d, [a-z -]+ \d\.\d\d", lines[3]
    )
    assert lines[4].startswith("b.PNG: ")
    assert lines[5:] == [
        "written to out/: inputs.png predictions.csv",
        "error: 3 of 8 pictures could not be read; the lines above say why",
    ]
    rows = list(csv.DictReader((tmp_path / "out/predictions.csv").read_text().splitlines()))
    names = ["a.png", "b.PNG", r"byte\udcff.png", r"line\nbreak.png", "z.png"]
    assert [row["file"] for row in rows] == names
    for row in rows:
        p = {name: float(row[name]) for name in CLASSES}
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(p, key=p.get)
    with Image.open(tmp_path / "out/inputs.png") as drawing:
        assert drawing.width > 480
    assert "error: 3 of 8 pictures" in (tmp_path / "out/predict.log").read_text()


@pytest.mark.slow
def test_pictures_that_are_passed_over_are_named_with_what_to_do(cli, run, tmp_path):
    (tmp_path / "photos").mkdir()
    picture = Image.new("RGB", (90, 120), "white")
    picture.paste((20, 60, 90), (20, 10, 70, 100))
    for suffix in ("png", "jfif", "jpe", "tif"):
        picture.save(tmp_path / f"photos/x.{suffix}")
    for suffix in ("avif", "heic", "jp2"):
        (tmp_path / f"photos/x.{suffix}").write_bytes(b"\0\0\0\x18ftyp")
    (tmp_path / "photos/.hidden.tif").touch()
    (tmp_path / "photos/folder.tif").mkdir()
    (tmp_path / "photos/notes.txt").touch()
    status, output = cli(
        "src.predict", f"run={run.path}", "inputs=photos", "hydra.run.dir=out", data=False
    )
    assert status == 0
    assert output.splitlines()[0] == (
        "4 files passed over, as they are none of PNG, JPEG, BMP, GIF, WEBP: "
        "x.avif, x.heic, x.jp2, x.tif; convert them to PNG"
    )
    rows = list(csv.DictReader((tmp_path / "out/predictions.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == ["x.jfif", "x.jpe", "x.png"]


def test_if_no_file_can_be_read_nothing_is_written(predicted, finished, tmp_path, caplog):
    (tmp_path / "x.png").touch()
    with pytest.raises(
        UserError, match=r"^1 of 1 pictures could not be read; the lines above say why$"
    ):
        predicted(f"run={finished.path}", "inputs=x.png")
    assert caplog.messages == [
        "cannot read x.png: it is empty, damaged, or none of PNG, JPEG, BMP, GIF, WEBP"
    ]
    assert not (tmp_path / "out").exists()


def test_pictures_get_the_answer_of_least_expected_cost_and_need_no_data_set(
    predicted, run, pictures, tmp_path
):
    run.config.write_text(re.sub(r"(?m)^  root: .*$", "  root: /nowhere", run.config.read_text()))
    # a missed shirt costs 10, a missed coat 3, any other error 1
    missed = dict.fromkeys(CLASSES, 1) | {"shirt": 10, "coat": 3}
    lines = [
        ",".join([true, *(str(missed[true] * (true != name)) for name in CLASSES)])
        for true in CLASSES
    ]
    (tmp_path / "costs.csv").write_text("\n".join([",".join(["true", *CLASSES]), *lines]))
    arguments = [f"run={run.path}", "inputs=pictures", "decision.costs=costs.csv", "invert=true"]
    rows, log = predicted(*arguments, root=tmp_path / "nothing")
    assert len(rows) == 5
    for row, line in zip(rows, log, strict=False):
        paid = {
            name: sum(missed[c] * float(row[c]) for c in CLASSES if c != name) for name in CLASSES
        }
        assert row["answer"] == min(paid, key=paid.get)
        assert line.startswith(f"{row['file']}: {row['predicted']} ")
        assert line.endswith(f"; answer {row['answer']}")
    assert any(row["answer"] != row["predicted"] for row in rows)
    assert not (tmp_path / "nothing").exists()


def untrained(path: Path, data: str, num_inputs: int, num_outputs: int, **settings) -> Run:
    """A run folder with the weights that a model starts with."""
    run = Run(path)
    model = {"_target_": "src.models.concise.SoftmaxRegression"}
    config = {"seed": 0, "data": {"_target_": data, **settings}, "model": model}
    run.save_config(config | {"trainer": {"accelerator": "cpu"}, "callbacks": {}})
    run.best.parent.mkdir()
    content = {"callbacks": {}, "lr_schedulers": [], "loops": {}, "optimizer_states": []}
    state = SoftmaxRegression(num_inputs=num_inputs, num_outputs=num_outputs).state_dict()
    torch.save({**content, "epoch": 0, "global_step": 1, "state_dict": state}, run.best)
    return run


class Striped(SplitDataModule):
    """Pictures that no file can be made into; the test split is a part of its examples."""

    classes = ["left", "right"]  # noqa: RUF012
    train_size, num_inputs, num_outputs = 3, 6, 2

    def __init__(self, seed: int = 0):
        super().__init__(2, 2, seed)

    def setup(self, stage=None):
        examples = Examples(torch.linspace(0, 1, 10 * 6).view(10, 6), torch.arange(10) % 2)
        self.splits = {
            name: (examples, torch.tensor(places))
            for name, places in {"train": [0, 1, 2], "val": [3, 4], "test": [9, 7, 5]}.items()
        }


@pytest.fixture
def striped(tmp_path, monkeypatch) -> Run:
    """A run on data of one's own, whose test split is three of ten examples, which are no
    pictures."""
    monkeypatch.setattr(Striped, "__module__", "src.data.striped")
    monkeypatch.setitem(sys.modules, "src.data.striped", sys.modules[__name__])
    return untrained(tmp_path / "run", "src.data.striped.Striped", 6, 2)


def test_predictions_are_of_the_test_split_and_of_nothing_else(striped, tmp_path):
    predict(compose_config("predict", f"run={striped.path}"), tmp_path / "out")
    data, model = restore(striped.settings(), striped.best)
    data.setup()
    X, y = data.splits["test"][0].X[[9, 7, 5]], [1, 1, 1]
    with torch.no_grad():
        expected = model(X).softmax(dim=1)
    with open(tmp_path / "out/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["true"] for row in rows] == [data.classes[k] for k in y]
    assert [float(row["left"]) for row in rows] == pytest.approx(expected[:, 0].tolist(), abs=1e-6)


def test_pictures_for_data_that_take_none_are_refused_in_one_line(striped, tmp_path):
    Image.new("L", (6, 6)).save(tmp_path / "x.png")
    cfg = compose_config("predict", f"run={striped.path}", f"inputs={tmp_path}/x.png")
    with pytest.raises(
        UserError, match="takes no pictures, as its data have no `resize`; leave inputs out"
    ):
        predict(cfg, tmp_path / "out")
    assert not (tmp_path / "out").exists()
