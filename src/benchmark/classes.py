"""Time and memory of softmax and cross-entropy, with their gradient, as the number of classes grows."""

import itertools
import json
import os
import tempfile
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as torch_F
from torch.profiler import ProfilerActivity, profile

from src.maths import functional as F

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler is chatty
LOSSES = {"torch": torch_F.cross_entropy, "stable": F.cross_entropy, "textbook": F.textbook_cross_entropy}
FORMS = [*LOSSES, "closed_form"]


def loss_grad(form: str, logits: Tensor, y: Tensor) -> Tensor:
    """Gradient of the mean loss with respect to the logits, after the loss itself."""
    if form != "closed_form":
        return torch.autograd.grad(LOSSES[form](logits, y), logits)[0]
    with torch.no_grad():
        F.cross_entropy(logits, y)
        return F.cross_entropy_grad(logits, y)


def measure(classes: list[int], num_examples: int, repeats: int) -> Iterator[dict]:
    """A row for each number of classes and form; the forms take turns, within which ratios are taken."""
    for q in classes:
        logits, y = torch.randn(num_examples, q, requires_grad=True), torch.randint(q, (num_examples,))
        calls = [partial(loss_grad, form, logits, y) for form in FORMS]
        turns = [[timeit.timeit(call, number=1) for call in calls] for _ in range(2 + repeats)]
        seconds = np.array(turns[2:])  # (repeats, forms), after two to warm up
        for k, form in enumerate(FORMS):
            peak = peak_bytes(calls[k])
            yield {
                "classes": q,
                "loss and gradient": form,
                "milliseconds": 1e3 * np.median(seconds[:, k]),
                "times torch's": np.median(seconds[:, k] / seconds[:, 0]),
                "peak megabytes": peak / 1e6,
                "times the logits": peak / logits.nbytes,
            }


def peak_bytes(function: Callable[[], object]) -> int:
    """The most memory (of tensors on the CPU) that the call holds at any moment beyond what there was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    with tempfile.TemporaryDirectory() as folder:
        profiled.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    events = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    return max(itertools.accumulate(event["args"]["Bytes"] for event in events))
