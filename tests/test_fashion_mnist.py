"""The real data set through the data module."""

import shutil

import pytest
import torch
import torchvision
from torchvision.transforms import v2

from src.data import sources
from src.data.fashion_mnist import CLASSES, FILES, FashionMNIST
from src.errors import UserError
from src.training.experiment import train
from tests.conftest import made


@pytest.fixture(scope="module")
def data(data_root) -> FashionMNIST:
    module = FashionMNIST(str(data_root))
    module.prepare_data()
    module.setup()
    return module


def everything(loader) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_the_real_files_are_there_and_verified(data_root):
    assert sources.missing(data_root / "FashionMNIST/raw", FILES) == {}


def test_sizes_classes_and_the_first_published_labels(data):
    assert len(everything(data.train_dataloader())[1]) == 55_000
    assert len(everything(data.val_dataloader())[1]) == 5_000
    images, labels = everything(data.test_dataloader())
    assert images.shape == (10_000, 1, 28, 28)
    assert [CLASSES[label] for label in labels[:3]] == ["ankle boot", "pullover", "trouser"]
    assert labels.bincount().tolist() == [1_000] * 10


def test_validation_split_is_disjoint_fixed_and_independent_of_the_seed(data, data_root):
    other = FashionMNIST(str(data_root), seed=7)
    other.setup()
    assert torch.equal(data.splits["val"][1], other.splits["val"][1])
    together = torch.cat([data.splits["train"][1], data.splits["val"][1]])
    assert together.sort().values.tolist() == list(range(60_000))


def test_setup_twice_does_the_work_once(data):
    before = data.splits
    data.setup("test")
    assert data.splits is before


def test_minibatches_are_scaled_as_totensor_scales(data, data_root):
    loader = data.test_dataloader()
    X, _ = data.on_after_batch_transfer(next(iter(loader)), 0)
    official = torchvision.datasets.FashionMNIST(
        str(data_root),
        train=False,
        transform=v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
    )
    torch.testing.assert_close(X[:20], torch.stack([official[i][0] for i in range(20)]))
    assert (X.min(), X.max()) == (0, 1)


def test_without_a_validation_split_the_test_set_is_watched_under_its_name(data_root):
    module = FashionMNIST(str(data_root), val_size=0)
    module.setup()
    assert module.validates_on == "test"
    assert len(everything(module.train_dataloader())[1]) == 60_000
    assert len(everything(module.val_dataloader())[1]) == 10_000


def test_train_size_takes_a_part_and_leaves_validation_alone(data, data_root):
    module = FashionMNIST(str(data_root), train_size=100)
    module.setup()
    assert torch.equal(module.splits["train"][1], data.splits["train"][1][:100])
    assert torch.equal(module.splits["val"][1], data.splits["val"][1])


def test_resize_interpolates(data_root):
    module = FashionMNIST(str(data_root), resize=14)
    module.setup()
    images, _ = everything(module.test_dataloader())
    assert images.shape == (10_000, 1, 14, 14)
    official = torchvision.datasets.FashionMNIST(str(data_root), train=False)
    expected = v2.functional.resize(official.data[:50, None], [14, 14])
    torch.testing.assert_close(images[:50], expected)


def test_files_are_verified_at_every_start_although_the_images_are_kept(data_root, tmp_path):
    shutil.copytree(data_root / "FashionMNIST/raw", tmp_path / "FashionMNIST/raw")
    module = FashionMNIST(str(tmp_path))
    module.prepare_data()
    module.setup()
    with open(tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte", "r+b") as file:
        file.seek(1_000)
        file.write(b"damage")
    with pytest.raises(UserError, match="damaged"):
        FashionMNIST(str(tmp_path)).prepare_data()


@pytest.mark.parametrize("num_workers", [2])
def test_workers_deliver_the_same_minibatches(data, data_root, num_workers):
    module = FashionMNIST(str(data_root), num_workers=num_workers)
    module.setup()
    for with_workers, without in zip(module.val_dataloader(), data.val_dataloader(), strict=True):
        assert torch.equal(with_workers[0], without[0])
        assert torch.equal(with_workers[1], without[1])


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"val_size": 60_000},
        {"val_size": -1},
        {"train_size": 0},
        {"train_size": 55_001},
        {"resize": 0},
        {"num_workers": -1},
        {"seed": -1},
        {"debian_package": "-oDir::Bin::dpkg=/bin/true"},
        {"debian_package": "Package"},
        {"debian_package": "a"},
        {"debian_package": "package\n"},
    ],
)
def test_values_out_of_range_are_refused(bad):
    (name,) = bad
    with pytest.raises(UserError, match=rf"^data\.{name}"):
        made("data", FashionMNIST, bad)


def test_jobs_of_a_sweep_share_the_images_and_do_not_change_them(data_root):
    first, second = (
        FashionMNIST(root=str(data_root)),
        FashionMNIST(root=str(data_root), val_size=10),
    )
    for data in (first, second):
        data.setup()
    assert first.splits["train"][0] is second.splits["train"][0]
    before = first.splits["train"][0].X[:100].clone()
    X, _ = first.on_after_batch_transfer(list(first.splits["train"][0][torch.arange(100)]), 0)
    X.zero_()
    assert torch.equal(first.splits["train"][0].X[:100], before)


def test_what_old_versions_of_torchvision_left_is_not_taken_for_the_verified_files(
    data_root, tmp_path
):
    raw, processed = tmp_path / "FashionMNIST/raw", tmp_path / "FashionMNIST/processed"
    shutil.copytree(data_root / "FashionMNIST/raw", raw)
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save(
            (torch.zeros(7, 28, 28, dtype=torch.uint8), torch.zeros(7, dtype=torch.long)),
            processed / name,
        )
    module = FashionMNIST(str(tmp_path), val_size=0)
    module.prepare_data()
    module.setup()
    assert [len(module.splits[name][0]) for name in ("train", "test")] == [60_000, 10_000]


def test_a_classifier_of_data_without_classes_is_refused_before_it_is_trained(
    config, monkeypatch, tmp_path
):
    monkeypatch.setattr(FashionMNIST, "classes", None)
    monkeypatch.setattr(FashionMNIST, "num_outputs", 10)
    with pytest.raises(
        UserError,
        match=r"num_outputs is 10, but the data has 0 classes; FashionMNIST\.classes must",
    ):
        train(config("data.train_size=100", "trainer.max_epochs=1"), tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()
