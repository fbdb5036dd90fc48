"""The order of the minibatches, its division among processes, and going on in the middle of an epoch."""

import multiprocessing
import os
import signal
import time

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
def test_minibatches_of_all_processes_make_up_those_of_one_process_with_the_larger_batch(world_size):
    n = 60 * world_size
    ranks = [
        BatchSampler(indices(n), 8, shuffle=True, rank=r, world_size=world_size) for r in range(world_size)
    ]
    single = BatchSampler(indices(n), 8 * world_size, shuffle=True)
    for together, alone in zip(zip(*ranks, strict=True), single, strict=True):
        assert set(torch.cat(together).tolist()) == set(alone.tolist())


def test_evaluation_covers_every_example_once_over_uneven_processes():
    ranks = [BatchSampler(indices(10), 4, shuffle=False, rank=rank, world_size=3) for rank in range(3)]
    seen = [torch.cat(list(sampler)).tolist() for sampler in ranks]
    assert seen == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert [len(sampler) for sampler in ranks] == [len(list(sampler)) for sampler in ranks]


def test_training_gives_all_processes_equally_many_minibatches():
    ranks = [BatchSampler(indices(17), 8, shuffle=True, rank=rank, world_size=2) for rank in range(2)]
    assert [len(list(sampler)) for sampler in ranks] == [len(sampler) for sampler in ranks] == [1, 1]


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


def test_workers_are_out_of_reach_of_a_signal_to_the_group_and_end_when_asked_to():
    # ignoring SIGTERM instead, they would outlive a main process that ends them by it, and keep it waiting
    examples = Examples(torch.arange(40.0).view(20, 2), torch.arange(20))
    loader = BatchLoader(examples, BatchSampler(torch.arange(20), 4, shuffle=False), num_workers=2)
    assert len(list(loader)) == 5  # each worker has begun
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    # torch's handler raises as soon as a worker has died, wherever this process is
    watch = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for worker in workers:
            assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)
            worker.terminate()
            worker.join(60)
            assert not worker.is_alive()
        del loader  # and with it what torch knows of the workers
    finally:
        signal.signal(signal.SIGCHLD, watch)


@pytest.mark.slow
def test_a_worker_that_is_only_starting_outlives_a_signal_to_the_group(monkeypatch):
    def slow(*arguments: int) -> None:
        time.sleep(1)
        setpgid(*arguments)

    setpgid = os.setpgid
    monkeypatch.setattr(os, "setpgid", slow)  # in the workers, which are forked
    examples = Examples(torch.arange(40.0).view(20, 2), torch.arange(20))
    loader = BatchLoader(examples, BatchSampler(torch.arange(20), 4, shuffle=False), num_workers=2)
    batches = loader.workers()
    for worker in multiprocessing.active_children():
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(worker.pid, signum)
    assert len(list(batches)) == 5
