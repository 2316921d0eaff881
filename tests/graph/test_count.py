from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import nn

from edgekd.graph.count import count_macs, count_params


class Attends(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.fused = fused

    def forward(self, x):
        if self.fused:
            return F.scaled_dot_product_attention(x, x, x)
        return (x @ x.transpose(-2, -1)).softmax(-1) @ x


def test_convolution_and_linear_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5))
    assert count_macs(model, (3, 8, 8)) == 8 * 64 * 27 + 512 * 5
    assert count_params(model) == 8 * 27 + 8 + 512 * 5 + 5


def test_shared_parameters_count_once():
    layer = nn.Linear(4, 4)
    assert count_params(nn.Sequential(layer, layer)) == 20


@pytest.mark.parametrize("fused", [True, False])
def test_attention_counts_however_it_is_computed(fused):
    assert count_macs(Attends(fused), (2, 10, 16)) == 2 * 2 * 10 * 10 * 16


def test_transformer_layer_is_not_hidden_by_its_fast_path():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    products = 10 * 16 * 48 + 10 * 16 * 16 + 2 * 10 * 16 * 32 + 2 * 2 * 10 * 10 * 8
    assert count_macs(layer, (10, 16)) == products


def test_recurrent_layer_counts():
    assert count_macs(nn.LSTM(8, 16, batch_first=True), (10, 8)) == 10 * 4 * 16 * (8 + 16)


def test_mode_of_every_module_is_kept():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout())
    model.train()
    model[0].eval()
    count_macs(model, (4,))
    assert (model.training, model[0].training, model[1].training) == (True, False, True)
    assert int(model[0].num_batches_tracked) == 0


def test_counting_says_nothing_and_leaves_torch_as_it_was(recwarn):
    before = torch.backends.mkldnn.enabled
    count_macs(nn.LSTM(3, 4, batch_first=True), (5, 3))
    assert torch.backends.mkldnn.enabled == before
    assert not list(recwarn)
