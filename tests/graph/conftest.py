from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxsim")

from edgekd.data.icons import icons
from edgekd.models.mobilevit import mobilevit
from edgekd.spec import Input


@pytest.fixture(scope="session")
def pixels():
    """Thirty-two images as bytes (n, 64, 64, 3)."""
    return icons().train.take(np.arange(0, 6400, 200))


@pytest.fixture(scope="session")
def prepared(pixels):
    return torch.from_numpy((pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5)


@pytest.fixture(scope="session")
def network(prepared):
    """The tiny MobileViT, its batch statistics settled."""
    torch.manual_seed(0)
    model = mobilevit("tiny").train()
    with torch.no_grad():
        for _ in range(5):
            model(prepared)
    return model.eval()


@pytest.fixture(scope="session")
def contract():
    return Input((3, 64, 64), (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="session")
def exported(tmp_path_factory, network, contract, prepared):
    """(model.onnx, facts) of the tiny network."""
    from edgekd.graph.export import export_onnx

    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    return path, export_onnx(network, contract, path, samples=prepared[:5], opset=20)


@pytest.fixture
def run_onnx():
    def run(path, feed):
        from edgekd.agent.quiet import import_onnxruntime

        session = import_onnxruntime().InferenceSession(str(path))
        return session.run(None, {session.get_inputs()[0].name: np.asarray(feed)})[0]

    return run
