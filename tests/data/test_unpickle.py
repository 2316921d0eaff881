from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.data.unpickle import unpickle
from edgekd.errors import DataError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers())
    ),
    max_leaves=12,
)


class Hostile:
    """A pickle that runs a command when it is opened."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def write(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_containers_come_back(tmp_path, value, protocol):
    assert unpickle(write(tmp_path / "x.pkl", value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back(tmp_path, protocol):
    value = {
        "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.int64(7),
        "ordered": collections.OrderedDict(a=[1]),
        "default": collections.defaultdict(list, b=[2]),
        "range": range(3),
    }
    found = unpickle(write(tmp_path / "x.pkl", value, protocol))
    assert np.array_equal(found.pop("image"), value.pop("image"))
    assert np.array_equal(found.pop("fortran"), value.pop("fortran"))
    assert found == value


def test_a_pickle_of_python_2_is_read(tmp_path):
    def short(text):
        return b"U" + bytes([len(text)]) + text

    content = (
        b"\x80\x02}"
        + short(b"image_data")
        + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + short(b"b")
        + b"\x87R(K\x01K\x03\x85cnumpy\ndtype\n"
        + short(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + short(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + short(b"\x01\xff\x03")
        + b"tbs."
    )
    pickletools.dis(content, out=io.StringIO())
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    assert unpickle(path)["image_data"].tolist() == [1, 255, 3]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    mark = tmp_path / "ran"
    path = write(tmp_path / "x.pkl", {"data": Hostile(os.system, f"touch {mark}")}, protocol)
    with pytest.raises(DataError) as caught:
        unpickle(path)
    assert f"{os.name}.system" in str(caught.value) and caught.value.at == str(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        Hostile(eval, "1"),
        Hostile(getattr, "x", "upper"),
        Hostile(np.load, "x.npy"),
        np.random.default_rng(),
        collections.Counter(),
        DataError,
    ],
)
def test_all_other_globals_are_refused_by_name(tmp_path, value):
    with pytest.raises(DataError, match=r"asks for [\w.]+; only"):
        unpickle(write(tmp_path / "x.pkl", value))


def test_a_dotted_name_does_not_reach_into_an_allowed_class(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(DataError, match=r"ndarray\.tofile"):
        unpickle(path)


def test_a_codec_other_than_latin1_is_refused(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR.")
    with pytest.raises(DataError, match="zlib"):
        unpickle(path)


def test_a_pickle_cut_anywhere_is_said_to_be_damaged(tmp_path):
    value = {"image_data": np.arange(30, dtype=np.uint8), "class_dict": {"a": [1, 2]}}
    content = pickle.dumps(value, 4)
    path = tmp_path / "x.pkl"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="damaged") as caught:
            unpickle(path)
        assert caught.value.at == str(path)


def test_an_absent_pickle_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot read the pickle"):
        unpickle(tmp_path / "x.pkl")
