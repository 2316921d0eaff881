"""What a network costs on paper: parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgekd.models.shipped import shipped


def count_params(model: nn.Module) -> int:
    """Return the number of parameters, those shared between modules counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Return the multiply-accumulates of one sample, of what ships of the network.

    Matrix products and convolutions count, also those inside attention and recurrent layers;
    elementwise operations do not.

    Args:
        model: The network; its mode is left as it was.
        shape: One sample, without the batch axis.
    """
    model = shipped(model)
    first = next(model.parameters(), torch.empty(0))
    sample = torch.zeros((1, *shape), dtype=first.dtype, device=first.device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), evaluating(model), _unfused(), counter:
        model(sample)
    return int(counter.get_total_flops()) // 2


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and every module back to its own mode after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _unfused() -> Iterator[None]:
    """Make torch run attention and recurrent layers as products that the counter sees."""
    fast, onednn = torch.backends.mha.get_fastpath_enabled(), bool(torch.backends.mkldnn.enabled)
    torch.backends.mha.set_fastpath_enabled(False)
    # not mkldnn.flags(): that sets TF32 too, and warns of it where there is no Intel GPU
    setattr(torch.backends.mkldnn, "enabled", False)  # noqa: B010 (typed as its descriptor)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        setattr(torch.backends.mkldnn, "enabled", onednn)  # noqa: B010
