from __future__ import annotations

import pytest
import torch

from modscope.masks.adam import BareAdam, FusedAdam, adam


@pytest.mark.parametrize("kind", [BareAdam, lambda logits: FusedAdam([logits])])
def test_few_logits_move_as_by_pytorch_s_adam_at_any_rate_and_past_missing_gradients(kind: object) -> None:
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=draws)
    ours, reference = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimizer, plain = kind(ours), torch.optim.Adam([reference], foreach=False, fused=False)  # type: ignore[operator]
    for step in range(30):
        gradient = torch.randn(50, generator=draws) * 10 ** (-step % 5)
        optimizer.zero_grad()
        plain.zero_grad()
        if step % 7:
            ours.grad, reference.grad = gradient.clone(), gradient.clone()
        plain.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.step(0.1 / (step + 1))
        plain.step()
        assert torch.allclose(ours, reference, atol=1e-6)
    assert not torch.allclose(ours, start, atol=0.1)


def test_many_logits_or_several_tensors_go_to_the_fused_adam() -> None:
    assert isinstance(adam([torch.zeros(5)]), BareAdam)
    assert isinstance(adam([torch.zeros(100_000)]), FusedAdam)
    assert isinstance(adam([torch.zeros(5), torch.zeros(5)]), FusedAdam)
