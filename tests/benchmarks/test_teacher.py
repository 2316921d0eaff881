"""The script that makes the shipped teacher writes what the recipe reads."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgekd

torch = pytest.importorskip("torch")

from benchmarks.teacher import NAME, rounded
from edgekd.backends.torch_eager import save_network
from edgekd.models.resnet12 import resnet12
from edgekd.spec import Call, Input
from edgekd.stages.teacher import read_state

FILE = Path(edgekd.__file__).parent / "data" / "teachers" / f"{NAME}.pt"


def test_the_shipped_file_has_the_form_that_the_script_writes(tmp_path):
    torch.manual_seed(0)
    model, head = resnet12(maps=32), torch.nn.Linear(320, 240)
    call = Call("edgekd.models.resnet12:resnet12", {"maps": 32})
    save_network(model, call, Input((3, 64, 64)), tmp_path, head)
    made = rounded(tmp_path)
    shipped = torch.load(FILE, weights_only=True)
    assert {n: (v.shape, v.dtype) for n, v in made.items()} == {
        n: (v.shape, v.dtype) for n, v in shipped.items()
    }
    torch.save(made, tmp_path / "made.pt")
    again = resnet12(maps=32)
    again.load_state_dict(
        {n: v for n, v in read_state(tmp_path / "made.pt").items() if "edgekd.head" not in n}
    )
    for mine, theirs in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="holds no trained network"):
        rounded(tmp_path)
