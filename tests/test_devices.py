"""What a GPU is spared. The device "meta" stands for it: its tensors have no values, to ask for one
fails."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from src.data.synthetic import SyntheticRegression
from src.models import closed_form, concise, scratch
from src.training.arguments import trainer_arguments
from src.training.trainer import build_trainer

META = torch.device("meta")


def trained_on(device: str, free: int, monkeypatch, **settings) -> SyntheticRegression:
    """The data of a model on the device, which has so many bytes free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1 << 40))
    data = SyntheticRegression(**settings)
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    data.setup()
    return data


def test_minibatches_are_made_on_the_device_of_the_model(monkeypatch):
    data = trained_on("meta", 1 << 30, monkeypatch, train_size=25, val_size=5, batch_size=10)
    for loader, sizes in ((data.train_dataloader(), [10, 10, 5]), (data.val_dataloader(), [5])):
        assert all(indices.device == META for indices in loader.sampler)
        assert not loader.pin_memory
        batches = list(loader)
        assert [len(X) for X, _ in batches] == sizes
        assert {each.device for batch in batches for each in batch} == {META}
    whole = data.splits["train"][0]
    assert (whole.X.device.type, data.train_dataloader().dataset) == (
        "cpu",
        data.on_device[whole],
    )  # once


def test_what_does_not_fit_stays_on_the_host_and_is_pinned_for_the_copy(monkeypatch, caplog):
    caplog.set_level("INFO")
    data = trained_on("cuda", 1000, monkeypatch, train_size=100)
    loader = data.train_dataloader()
    assert loader.dataset is data.splits["train"][0]
    assert loader.pin_memory
    assert caplog.messages == ["0 MB of examples stay on the host; minibatches are copied to cuda"]


def test_pinning_changes_no_minibatch(monkeypatch):
    pins = []
    if not torch.cuda.is_available():  # torch cannot pin without a GPU
        monkeypatch.setattr(
            torch.Tensor, "pin_memory", lambda each: (pins.append(each), each.clone())[1]
        )
    pinned = trained_on("cuda", 1000, monkeypatch, train_size=95).train_dataloader()
    plain = trained_on("cpu", 0, monkeypatch, train_size=95).train_dataloader()
    assert not plain.pin_memory
    batches = list(pinned)
    assert len(pins) == 20 or all(each.is_pinned() for batch in batches for each in batch)
    for (X, y), (expected_X, expected_y) in zip(batches, plain, strict=True):
        assert torch.equal(X, expected_X)
        assert torch.equal(y, expected_y)
    assert pinned.state_dict() == plain.state_dict() == {"epoch": 0, "handed_out": 10}


class Asked(TorchDispatchMode):
    """Records the operations; "lift_fresh" makes a tensor of a Python number."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", [scratch, concise, closed_form])
def test_a_step_asks_the_device_for_nothing_and_gives_it_no_number(form):
    class Trainer:
        world_size, global_step, current_epoch = 1, 0, 0
        strategy = SimpleNamespace(reduce=lambda grad, reduce_op: grad)

    trainer = Trainer()
    model = form.SoftmaxRegression(num_inputs=4, num_outputs=3, weight_decay=0.1).to(META)
    model.trainer = trainer
    optimizer = model.configure_optimizers()["optimizer"]
    model.optimizers = lambda: optimizer
    model.manual_backward = lambda loss: loss.backward()
    batch = [torch.zeros(5, 4, device=META), torch.zeros(5, dtype=torch.long, device=META)]
    model.training_step(batch, 0)  # sets up what is made once
    with Asked() as asked:
        loss = model.training_step(batch, 1)
        if loss is not None:  # Lightning drives this form
            loss.backward()
            optimizer.step()
    assert not asked.names & {"_local_scalar_dense", "item", "lift_fresh", "nonzero"}, asked.names
    assert model.means.sums["train"]["n"] == 10


@pytest.mark.parametrize(("gpus", "accelerator"), [(0, "cpu"), (1, "gpu")])
def test_auto_is_a_gpu_if_torch_has_one_whatever_else_lightning_would_take(
    monkeypatch, gpus, accelerator
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(L, "Trainer", lambda **arguments: arguments)
    values = trainer_arguments({"trainer": {"accelerator": "auto"}})
    assert build_trainer(values)["accelerator"] == accelerator
