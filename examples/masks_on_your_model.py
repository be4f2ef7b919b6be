"""Masks on models that know nothing of modscope: an LSTM, a CNN on CIFAR-10, and a GPT-2.

    python examples/masks_on_your_model.py

The models are small and barely trained, so that this runs in seconds: it shows how to call, not what one finds.
"""

# marks: data
from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modscope.data.cifar10 import cifar10_test
from modscope.data.examples import Examples
from modscope.errors import DataError
from modscope.masks.learner import MaskLearner, learn_masks
from modscope.masks.overlap import overlap
from modscope.tasks.task import Task
from modscope.training.fit import fit

LEARNER = MaskLearner(n_steps=100)


def lstm() -> None:
    """Two questions about one sequence: is its first number positive, is its last? Time is axis 0, examples axis 1."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.answer = nn.LSTM(1, 16), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.answer(self.lstm(x)[0][-1])

    def question(name: str, step: int, output: int) -> Task:
        batches = [(x, x[step, :, 0] > 0) for x in torch.randn(20, 6, 128, 1).unbind()]
        return Task(
            name,
            batches,
            batches,
            loss=lambda logits, is_positive: F.binary_cross_entropy_with_logits(logits[:, output], is_positive.float()),
            correct=lambda logits, is_positive: (logits[:, output] > 0) == is_positive,
            batch_dim=1,
        )

    model, tasks = Reader(), [question("first", 0, 0), question("last", -1, 1)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(10):
        for batches in zip(*(task.train for task in tasks), strict=True):
            loss = torch.stack([task.loss(model(x), y) for task, (x, y) in zip(tasks, batches, strict=True)]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    total = overlap(learn_masks(model, tasks, LEARNER, n_seeds=2)).pair("first", "last").total
    print(f"LSTM: overlap {total.overlap:.2f}, by chance {total.chance:.2f}, two runs of one task {total.ceiling:.2f}")


def cnn() -> None:
    """Which channels does a CIFAR-10 network need for animals? One logit per unit; units are found by themselves."""
    try:
        images = cifar10_test(os.environ.get("MODSCOPE_DATA"))
    except DataError as error:
        print("CNN: skipped -", error)
        return
    images = Examples(images.inputs[:1500] / 255, images.targets[:1500])
    train, test = images[:1000].batches(100), images[1000:].batches(100)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    everything = Task("all", train, test, loss=F.cross_entropy, correct=lambda o, t: o.argmax(1) == t)
    fit(model, everything, n_steps=100, rng=0)
    is_animal = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 0, 0]).bool()
    animals = Task(
        "animals",
        train,
        test,
        loss=lambda o, t: F.cross_entropy(o[is_animal[t]], t[is_animal[t]]),
        correct=lambda o, t: o.argmax(1)[is_animal[t]] == t[is_animal[t]],
    )
    print("CNN:", MaskLearner(granularity="unit", n_steps=100)(model, animals))


def gpt2() -> None:
    """A Hugging Face model takes dict batches as they are; here without labels: do what the whole network does."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from modscope.tasks.losses import match_outputs

    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    batches = [{"input_ids": ids} for ids in torch.randint(50, (8, 16, 12)).unbind()]
    task = match_outputs(model, batches, batches)
    print("GPT-2:", MaskLearner(n_steps=100, parameters=["transformer.h.*.weight"])(model, task))


if __name__ == "__main__":
    torch.manual_seed(0)
    lstm()
    cnn()
    gpt2()
