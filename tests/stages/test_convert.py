"""What is simplified before LiteRT's converter sees a network."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from edgekd.models.mobilevit import Attention
from edgekd.stages.convert import spare_lone_softmax


@pytest.mark.parametrize("tokens, left", [(1, 0), (4, 1)])
def test_attention_over_one_token_is_what_it_attends_to(tokens, left):
    torch.manual_seed(0)
    model = Attention(16, 4).eval()
    x = torch.randn(2, 3, tokens, 16)
    with torch.no_grad():
        traced = torch.export.export(model, (x,))
        spare_lone_softmax(traced)
        assert torch.allclose(traced.module()(x), model(x), atol=1e-6)
    kinds = [str(node.target) for node in traced.graph_module.graph.nodes]
    assert kinds.count("aten.softmax.int") == left
    assert kinds.count("aten.matmul.default") == 2 * left
