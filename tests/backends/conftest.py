from __future__ import annotations

import numpy as np
import pytest

from edgekd.backends.base import backend
from edgekd.data.icons import icons
from edgekd.events import silent
from edgekd.quant.ranges import measure_ranges, save_ranges
from edgekd.spec import Input

torch = pytest.importorskip("torch")
pytest.importorskip("onnxsim")


@pytest.fixture(scope="session")
def pixels():
    """Forty-eight images as bytes (n, 64, 64, 3)."""
    return icons().train.take(np.arange(0, 6240, 130))


@pytest.fixture(scope="session")
def feeds(pixels):
    """Calibration samples, prepared."""
    images = (pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
    return {"input": np.ascontiguousarray(images)}


@pytest.fixture(scope="session")
def network(feeds):
    """The tiny MobileViT, its batch statistics settled."""
    from edgekd.models.mobilevit import mobilevit

    torch.manual_seed(0)
    model = mobilevit("tiny").train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.from_numpy(feeds["input"]))
    return model.eval()


@pytest.fixture(scope="session")
def wanted(network, feeds):
    with torch.no_grad():
        return network(torch.from_numpy(feeds["input"])).numpy()


@pytest.fixture(scope="session")
def exported(tmp_path_factory, network, pixels, feeds):
    """model.onnx by form of the input."""
    from edgekd.graph.export import export_onnx

    folder = tmp_path_factory.mktemp("exported")
    samples = {"float32_nchw": feeds["input"][:5], "uint8_nhwc": pixels[:5]}
    for form, values in samples.items():
        export_onnx(
            network,
            Input((3, 64, 64), (0.5,) * 3, (0.5,) * 3, form=form),
            folder / form / "model.onnx",
            samples=torch.from_numpy(values),
            output_name="output",
            opset=20,
        )
    return {form: folder / form / "model.onnx" for form in samples}


@pytest.fixture(scope="session")
def built(tmp_path_factory, exported, feeds):
    """Function: candidate → (folder, facts), built once; ranges are measured once, too."""
    done = {}
    model = exported["float32_nchw"]
    save_ranges(measure_ranges(model, feeds), model.with_name("ranges.json"))

    def build(candidate):
        if candidate.id not in done:
            out = tmp_path_factory.mktemp(candidate.id)
            model = exported["float32_nchw"]
            facts = backend(candidate.backend).build(model, candidate, feeds, out, silent)
            done[candidate.id] = (out, facts)
        return done[candidate.id]

    return build


@pytest.fixture(scope="session")
def cosines():
    """Function: (found, wanted) → cosine of every sample."""

    def compare(found, wanted):
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        return (found * wanted).sum(1) / norms

    return compare
