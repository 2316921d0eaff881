"""Arrays in files, read a few rows at a time."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.inputs import open_rows, save_arrays


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "pixels": rng.integers(0, 255, (7, 5, 3), np.uint8),
        "a name/with signs": rng.normal(size=(70, 2)),
        "turned": np.asfortranarray(rng.normal(size=(6, 4)).astype(np.float32)),
    }


def test_rows_are_those_of_the_array(arrays, tmp_path):
    save_arrays(tmp_path / "a.npz", arrays)
    found = open_rows(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, rows in found.items():
        whole = arrays[name]
        assert (rows.shape, rows.dtype, rows.ndim) == (whole.shape, whole.dtype, whole.ndim)
        assert len(rows) == len(whole)
        for taken in (slice(None), slice(2, 5), np.array([3, 0, 3]), 4):
            assert np.array_equal(rows[taken], whole[taken])


def test_what_was_read_outlives_the_file(arrays, tmp_path):
    save_arrays(tmp_path / "a.npz", arrays)
    part = open_rows(tmp_path / "a.npz")["pixels"][1:3]
    (tmp_path / "a.npz").write_bytes(b"")
    assert np.array_equal(part, arrays["pixels"][1:3])
    part[:] = 0
