"""How does a model run so that every operation can be seen?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Layers that run as one fused kernel run as their parts instead, so that what they read can be seen."""
    is_recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with ExitStack() as afterwards:
        afterwards.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        if is_recurrent:
            afterwards.enter_context(torch.backends.cudnn.flags(enabled=False))
            # torch.backends.mkldnn.flags would also set the TF32 switch of Intel GPUs, which warns where there is none.
            afterwards.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)
        yield
