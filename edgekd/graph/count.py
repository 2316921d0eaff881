"""What a network costs on paper: multiply-accumulates and parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgekd.errors import StageError

__all__ = ["count_macs", "count_params", "evaluating"]


def count_macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Count the multiply-accumulates of one inference, batch 1 (half of torch's "FLOPs").

    Convolutions and every matrix product count, those of attention and recurrent layers too;
    norms and activations do not. torch's counter is blind to its own fused CPU kernels
    (``scaled_dot_product_attention``, the fast path of ``TransformerEncoderLayer``, oneDNN's
    LSTM), so those are switched off while it looks.

    Args:
        model: The network; its weights and mode are left alone.
        shape: Shape of one sample, without the batch axis.

    Raises:
        StageError: The network cannot run on that shape.
    """
    counter = FlopCounterMode(display=False)
    with evaluating(model), _plain_kernels(), torch.no_grad(), counter:
        try:
            model(torch.zeros(1, *shape, device=device_of(model)))
        except Exception as error:
            raise refused(model, (1, *shape), error) from error
    return int(counter.get_total_flops()) // 2


def count_params(model: nn.Module) -> int:
    """Count the parameters; one that is shared counts once, buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a network into evaluation mode, and every part back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Return where the network's first parameter lies; the CPU for one without any."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def refused(model: nn.Module, shape: Sequence[int], error: Exception) -> StageError:
    """Return the error for a network whose forward pass fails."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return StageError(
        f"{type(model).__name__} fails on an input of shape {tuple(shape)}: {reason}",
        hint="check the recipe's input shape against what the network takes",
    )


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Switch off the fused kernels that the counter cannot see into."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # torch warns about its own oneDNN flags
        undo.enter_context(torch.backends.mkldnn.flags(enabled=False))
        undo.enter_context(sdpa_kernel(SDPBackend.MATH))
        undo.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        yield
