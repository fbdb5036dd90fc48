"""The order of the minibatches, its division among processes, and going on in the middle of an
epoch."""

import threading

import pytest
import torch

from src.data.batches import BatchLoader, BatchSampler, Examples


def indices(n: int) -> torch.Tensor:
    return torch.arange(n)


def order(seed: int, epoch: int, n: int = 1000) -> list[int]:
    sampler = BatchSampler(indices(n), 64, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return torch.cat(list(sampler)).tolist()


def test_order_is_a_function_of_seed_and_epoch_alone():
    first = order(seed=3, epoch=5)
    torch.manual_seed(99)
    torch.rand(7)
    assert order(seed=3, epoch=5) == first
    assert sorted(first) == list(range(1000))
    assert first != list(range(1000))


def test_other_seeds_and_epochs_give_other_orders():
    orders = [tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16  # (0, 1) and (1, 0) differ too


def test_last_minibatch_is_smaller_and_none_is_lost():
    sampler = BatchSampler(indices(1000), 64, shuffle=True)
    assert [len(batch) for batch in sampler] == [64] * 15 + [40]
    assert len(sampler) == 16


def test_only_the_given_indices_are_drawn():
    sampler = BatchSampler(torch.tensor([5, 7, 11]), 2, shuffle=True)
    assert sorted(torch.cat(list(sampler)).tolist()) == [5, 7, 11]


@pytest.mark.parametrize("world_size", [2, 3])
def test_minibatches_of_all_processes_make_up_those_of_one_process_with_the_larger_batch(
    world_size,
):
    n = 60 * world_size
    ranks = [
        BatchSampler(indices(n), 8, shuffle=True, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    single = BatchSampler(indices(n), 8 * world_size, shuffle=True)
    for together, alone in zip(zip(*ranks, strict=True), single, strict=True):
        assert set(torch.cat(together).tolist()) == set(alone.tolist())


def test_evaluation_covers_every_example_once_over_uneven_processes():
    ranks = [
        BatchSampler(indices(10), 4, shuffle=False, rank=rank, world_size=3) for rank in range(3)
    ]
    seen = [torch.cat(list(sampler)).tolist() for sampler in ranks]
    assert seen == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert [len(sampler) for sampler in ranks] == [len(list(sampler)) for sampler in ranks]


def test_training_gives_all_processes_equally_many_minibatches():
    ranks = [
        BatchSampler(indices(17), 8, shuffle=True, rank=rank, world_size=2) for rank in range(2)
    ]
    assert (
        [len(list(sampler)) for sampler in ranks] == [len(sampler) for sampler in ranks] == [1, 1]
    )


def loader(num_workers: int = 0) -> BatchLoader:
    examples = Examples(torch.arange(100).view(100, 1), torch.arange(100))
    return BatchLoader(examples, BatchSampler(indices(100), 8, shuffle=True, seed=1), num_workers)


def epoch(loader: BatchLoader, number: int) -> list[list[int]]:
    loader.sampler.set_epoch(number)
    return [labels.tolist() for _, labels in loader]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_goes_on_behind_the_minibatches_that_were_used(num_workers):
    whole = loader()
    expected = epoch(whole, 4)
    interrupted = loader(num_workers)
    interrupted.sampler.set_epoch(4)
    batches = iter(interrupted)
    for _ in range(5):
        next(batches)
    resumed = loader(num_workers)
    resumed.load_state_dict(interrupted.state_dict())
    assert epoch(resumed, 4) == expected[5:]
    assert epoch(resumed, 5) == epoch(whole, 5)  # the next epoch is whole again


def test_state_of_a_finished_or_cut_epoch_skips_nothing_in_the_next():
    cut = loader()
    cut.sampler.set_epoch(0)
    batches = iter(cut)
    next(batches)  # as with trainer.limit_train_batches=1
    again = loader()
    again.load_state_dict(cut.state_dict())
    assert epoch(again, 1) == epoch(loader(), 1)


def test_images_and_labels_stay_together():
    for X, y in loader():
        assert X[:, 0].tolist() == y.tolist()


def test_no_more_minibatches_than_workers_are_made_ahead_and_an_error_in_one_is_met():
    asked = []

    class Watched(Examples):
        def __getitem__(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            asked.append(indices.tolist())
            if 17 in indices:
                raise OSError("example 17")
            return super().__getitem__(indices)

    examples = Watched(torch.arange(20).view(20, 1), torch.arange(20))
    batches = iter(
        BatchLoader(examples, BatchSampler(indices(20), 2, shuffle=False), num_workers=3)
    )
    before = threading.active_count()
    for taken in range(8):
        assert next(batches)[1].tolist() == [2 * taken, 2 * taken + 1]
        assert len(asked) <= taken + 1 + 3
    with pytest.raises(OSError, match="example 17"):
        next(batches)
    assert threading.active_count() == before
