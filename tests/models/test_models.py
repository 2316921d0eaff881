import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.models.conv4 import conv4
from edgekd.models.mobilevit import mobilevit
from edgekd.models.resnet12 import resnet12


def params(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (lambda: mobilevit("xxs"), 951_024),
        (lambda: mobilevit("xs"), 1_932_848),
        (lambda: mobilevit("s"), 4_937_632),
        (lambda: resnet12(64), 12_424_320),
        (lambda: resnet12(32), 3_108_928),
    ],
)
def test_parameter_counts_are_the_published_ones(model, count):
    assert params(model()) == count


@pytest.mark.parametrize("size", [64, 128])
def test_a_sample_does_not_depend_on_its_batch(size):
    model = mobilevit("tiny", size=size).eval()
    x = torch.randn(3, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [84, 0, -64, 100])
def test_sizes_that_patches_cannot_tile_are_refused_with_the_remedy(size):
    with pytest.raises(RecipeError, match="multiple of 64") as caught:
        mobilevit("xxs", size=size)
    assert "hint use" in str(caught.value)


def test_an_unknown_variant_lists_the_known():
    with pytest.raises(RecipeError, match="known: tiny, xxs, xs, s"):
        mobilevit("xl")


def test_heads():
    for build in (lambda c: conv4(8, classes=c), lambda c: resnet12(4, classes=c)):
        x = torch.randn(2, 3, 64, 64)
        assert build(7)(x).shape == (2, 7)
        assert build(0)(x).shape == (2, build(0).features)
