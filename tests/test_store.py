import errno
import json
import multiprocessing

import pytest

from edgekd.errors import SetupError, StageError, UsageError
from edgekd.events import silent
from edgekd.store import Digests, Store, key_of, why

MADE = {"step": "s", "spec": {"a": 1}}


def work(out):
    (out / "data.bin").write_bytes(b"result")
    return {"n": 1}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_result_is_kept_and_found(store):
    key = key_of(MADE)
    store.put(key, MADE, work, silent)
    entry = store.get(key)
    assert entry is not None
    assert entry.facts == {"n": 1}
    assert (entry.path / "data.bin").read_bytes() == b"result"


def test_a_damaged_entry_is_dropped_and_made_again(store):
    key = key_of(MADE)
    entry = store.put(key, MADE, work, silent)
    (entry.path / "data.bin").write_bytes(b"rotten")
    assert store.get(key) is None
    assert (store.put(key, MADE, work, silent).path / "data.bin").read_bytes() == b"result"


def test_a_failure_is_not_kept_and_names_the_step(store):
    def fail(out):
        raise ValueError("no such thing")

    with pytest.raises(StageError, match="step s failed: ValueError: no such thing"):
        store.put(key_of(MADE), MADE, fail, silent)
    assert store.get(key_of(MADE)) is None


def test_a_full_disk_behind_another_error_is_seen(store):
    def fail(out):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 12160 vs 12056")  # noqa: B904

    with pytest.raises(SetupError, match="the disk is full"):
        store.put(key_of(MADE), MADE, fail, silent)


def test_a_full_disk_leaves_nothing_half_written(store):
    def fail(out):
        (out / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SetupError, match="the disk is full"):
        store.put(key_of(MADE), MADE, fail, silent)
    assert list((store.root / "objects").iterdir()) == []


def test_only_the_checkpoint_survives_an_interrupted_attempt(store):
    def stop(out):
        (out / "checkpoint.pt").write_text("epoch 3")
        (out / "half").write_text("half")
        raise KeyboardInterrupt

    key = key_of(MADE)
    with pytest.raises(KeyboardInterrupt):
        store.put(key, MADE, stop, silent)
    seen = []
    store.put(key, MADE, lambda out: seen.extend(p.name for p in out.iterdir()) or {}, silent)
    assert seen == ["checkpoint.pt"]


def _slow(root, queue):
    def once(out):
        queue.put("worked")
        (out / "f").write_text("x")
        return {}

    Store(root).put(key_of(MADE), MADE, once, silent)


def test_two_runs_do_the_work_once(store):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    runs = [context.Process(target=_slow, args=(store.root, queue)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert queue.get(timeout=5) == "worked"
    assert queue.empty()


def test_an_unwritable_store_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot write the store") as caught:
        Store(tmp_path / "file" / "store")
    assert "EDGEKD_STORE" in str(caught.value)


def test_why_names_the_first_difference():
    assert why({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}) == "b.c: 2 → 3"
    assert why({"code": "ab" * 32}, {"code": "cd" * 32}) == "code: abababababab… → cdcdcdcdcdcd…"
    assert why(MADE, json.loads(json.dumps(MADE))) == ""


def test_an_unknown_key_is_refused(store):
    with pytest.raises(UsageError, match="0 store entries"):
        store.find("abc")


def test_digests_follow_content(store, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = Digests(store.root).of(folder)
    (folder / "a").write_text("2!")
    assert Digests(store.root).of(folder) != first


def test_gc_removes_what_was_not_used(store):
    store.put(key_of(MADE), MADE, work, silent)
    assert store.gc(days=1)[0] == 0
    assert store.gc(days=-1)[0] == 1
