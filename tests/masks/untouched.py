"""Is a model as it was, and the random numbers? (The first Adam step of a process lets torch import its compiler, which
sets an environment variable and warning filters: that much is torch's.)"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fingerprint import fingerprint_of_model


def state_of(model: nn.Module) -> dict[str, Any]:
    return fingerprint_of_model(model) | {"torch random state": torch.get_rng_state().numpy().tobytes()}
