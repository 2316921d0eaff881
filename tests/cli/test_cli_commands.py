"""Every command: what it passes on, what it prints, its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekd.cli import COMMANDS, cli
from edgekd.errors import VerifyError
from edgekd.events import Event

ROOT = Path(__file__).parents[2]
SUBCOMMANDS = [
    ("recipes", "list"),
    ("recipes", "show"),
    ("recipes", "new"),
    ("targets", "list"),
    ("targets", "show"),
    ("targets", "validate"),
    ("targets", "schema"),
    ("data", "list"),
    ("data", "build"),
    ("data", "check"),
    ("data", "export"),
    ("cache", "list"),
    ("cache", "why"),
    ("cache", "gc"),
]
ASKED = ("--recipe", "mobilevit", "--target", "cpu")


@pytest.fixture
def shipped(monkeypatch):
    """Find the recipes of a test and the shipped targets."""
    Path("recipes").mkdir()
    Path("recipes/tiny.py").write_text(
        '"""Module."""\nfrom typing import Literal\n\n\n'
        'def recipe(*, preset: Literal["a", "b"] = "a", epochs: int = 3, data: str):\n'
        '    """Teach a tiny network.\n\n    Args:\n        epochs: Passes over the data; many '
        "words that have to be wrapped to the width of the page, which is a hundred columns.\n\n"
        '    Data:\n        Pictures in class folders.\n    """\n'
    )
    Path("recipes/broken.py").write_text("def recipe(:\n")
    monkeypatch.setattr("edgekd.discover._entry_points", lambda kind: iter(()))
    monkeypatch.setattr(
        "edgekd.discover._bundled", lambda kind: ROOT / kind if kind == "targets" else Path("none")
    )


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS), *SUBCOMMANDS], ids=" ".join
)
def test_help(command, edgekd_, snapshot):
    ran = edgekd_(*command, "--help")
    assert ran.code == 0
    assert ran.out == snapshot


def test_the_table_of_commands_says_what_the_commands_say():
    for name, summary in COMMANDS.items():
        command = cli.get_command(None, name)
        assert command.get_short_help_str(200).rstrip(".") == summary.rstrip("."), name


def test_version(edgekd_):
    assert edgekd_("--version").out == "edgekd 0.1.0\n"


# --- the pipeline ------------------------------------------------------------------------------


def test_compress_passes_everything_on(edgekd_, api, tmp_path):
    (tmp_path / "old").mkdir()
    ran = edgekd_(
        "compress", *ASKED, "--target", "cpu-ort", "--set", "epochs=3", "--set", "data=x=y",
        "--on", "here", "--out", "there", "--device", "cpu", "--pick", "2", "--like", "old",
        "--allow-unbuilt",
    )  # fmt: skip
    assert ran.code == 0
    assert api == [
        (
            ("mobilevit", ["cpu", "cpu-ort"]),
            {
                "settings": {"epochs": "3", "data": "x=y"},
                "on": "here",
                "out": Path("there"),
                "device": "cpu",
                "pick": 2,
                "like": Path("old"),
                "allow_unbuilt": True,
            },
        )
    ]


def test_compress_has_the_defaults_of_the_python_function(edgekd_, api):
    edgekd_("compress", *ASKED)
    assert api[0][1] == {
        "settings": {},
        "on": "local",
        "out": None,
        "device": "auto",
        "pick": None,
        "like": None,
        "allow_unbuilt": False,
    }


def test_compress_prints_plain_lines_and_a_summary(edgekd_, api, snapshot):
    ran = edgekd_("compress", *ASKED)
    assert ran.err == snapshot(name="events")
    assert ran.out == snapshot(name="summary")
    assert all(character == "\n" or character.isprintable() for character in ran.err + ran.out)


def test_compress_as_json(edgekd_, api):
    ran = edgekd_("compress", *ASKED, "--json")
    assert ran.result[0]["path"] == "out/mobilevit-cpu"
    assert ran.result[0]["manifest"]["artefact"]["candidate"] == "ov-int8"
    assert [line["kind"] for line in ran.lines] == [
        "plan", "cached", "start", "progress", "end", "note", "warning",
    ]  # fmt: skip


def test_plan(edgekd_, api, snapshot):
    assert edgekd_("plan", *ASKED, "--pick", "smallest").out == snapshot
    assert api[0][1]["pick"] == "smallest"
    assert edgekd_("plan", *ASKED, "--json").result[1]["status"] == "run"


def test_the_device_may_come_from_the_environment(edgekd_, api, monkeypatch):
    monkeypatch.setenv("EDGEKD_ON", "ssh:board")
    edgekd_("plan", *ASKED)
    assert api[0][1]["on"] == "ssh:board"


def test_verify(edgekd_, fake):
    calls = []

    def verify(*args, **kwargs):
        calls.append((args, {k: v for k, v in kwargs.items() if k != "emit"}))
        kwargs["emit"](Event("note", "hashes", "12 files"))
        return {"status": "passed"}

    fake("verify", verify=verify)
    ran = edgekd_("verify", "b", "--hashes-only", "--task", "--expect", "00", "--json")
    assert ran.result == {"status": "passed"}
    options = {"hashes_only": True, "task": True, "on": "local", "expect": "00"}
    assert calls == [((Path("b"),), options)]


def test_a_bundle_that_is_not_what_it_claims_exits_5(edgekd_, fake):
    def verify(*_, **__):
        raise VerifyError("sha256 differs", at="b/model.onnx")

    fake("verify", verify=verify)
    ran = edgekd_("verify", "b")
    assert (ran.code, ran.err) == (5, "error: sha256 differs\n  at   b/model.onnx\n")


def test_profile(edgekd_, api, snapshot):
    ran = edgekd_(
        "profile", "b", "--runs", "5", "--threads", "2", "--pin", "0", "--duration", "1.5"
    )
    assert ran.out == snapshot
    options = {"on": "local", "runs": 5, "threads": 2, "pin": 0, "duration": 1.5, "layers": False}
    options |= {"meter": None}
    assert api == [((Path("b"),), options)]
    assert edgekd_("profile", "b", "--layers").out == snapshot


def test_report_goes_beside_the_bundle_or_where_it_is_told(edgekd_, api, tmp_path):
    page = tmp_path / "b.report.html"
    assert edgekd_("report", "b").out == f"wrote {page}\n"
    assert edgekd_("report", "b", "--out", "x.html").out == "wrote x.html\n"
    assert [args for args, _ in api] == [(Path("b"), page), (Path("b"), Path("x.html"))]


# --- recipes and targets -----------------------------------------------------------------------


def test_recipes(edgekd_, shipped, snapshot):
    ran = edgekd_("recipes")
    assert ran.out == snapshot
    assert edgekd_("recipes", "list").out == ran.out
    assert [row["name"] for row in edgekd_("recipes", "--json").result] == ["broken", "tiny"]
    assert len(edgekd_("recipes", "list", "--json").result) == 2


def test_recipes_show(edgekd_, shipped, snapshot, tmp_path):
    assert edgekd_("recipes", "show", "tiny").out.replace(str(tmp_path), "HERE") == snapshot
    shown = edgekd_("recipes", "show", "tiny", "--json").result
    assert shown["settings"][2] == {"name": "data", "type": "str", "default": None, "doc": ""}


def test_recipes_new_writes_what_loads_and_never_overwrites(edgekd_, snapshot):
    ran = edgekd_("recipes", "new", "my_recipe.py")
    assert (ran.code, ran.out) == (0, snapshot)
    lines = Path("my_recipe.py").read_text().splitlines()
    assert len(lines) <= 40
    Path("my_recipe.py").write_text("mine")
    assert edgekd_("recipes", "new", "my_recipe.py").code == 2
    assert Path("my_recipe.py").read_text() == "mine"


@pytest.mark.parametrize("file", ["recipe.txt", "no/such/folder.py"])
def test_recipes_new_refuses_what_cannot_be_a_recipe(edgekd_, file, snapshot):
    ran = edgekd_("recipes", "new", file)
    assert (ran.code, ran.err) == (2, snapshot)


def test_targets(edgekd_, shipped, snapshot):
    Path("targets").mkdir()
    Path("targets/wrong.yaml").write_text("name: wrong\n")
    ran = edgekd_("targets")
    assert ran.out.replace(str(Path.cwd()), "HERE") == snapshot
    assert edgekd_("targets", "list").out == ran.out
    listed = edgekd_("targets", "--json").result
    assert {"cpu", "cpu-ort", "wrong"} <= {row["name"] for row in listed}


def test_targets_show(edgekd_, shipped):
    text = (ROOT / "targets" / "cpu.yaml").read_text()
    assert edgekd_("targets", "show", "cpu").out == f"# {ROOT / 'targets' / 'cpu.yaml'}\n{text}"
    assert edgekd_("targets", "show", "cpu", "--json").result["measure"]["threads"] == 1


def test_targets_validate_prints_all_faults_of_all_files(edgekd_, shipped, snapshot):
    Path("a.yaml").write_text("name: a\ntitle: 3\n")
    Path("b.yaml").write_text("backends: x\n")
    ran = edgekd_("targets", "validate", "cpu", "./a.yaml", "./b.yaml")
    assert ran.code == 2
    assert ran.out == "cpu: valid (cpu)\n"
    assert ran.err.replace(str(Path.cwd()), "HERE") == snapshot


def test_targets_schema_is_a_json_schema(edgekd_):
    schema = edgekd_("targets", "schema").result
    assert schema["$schema"].startswith("https://json-schema.org/")


# --- the rest ----------------------------------------------------------------------------------


def test_data_list(edgekd_, shipped, snapshot):
    assert edgekd_("data").out == snapshot
    assert edgekd_("data", "list", "--json").result["recipes"] == {
        "tiny": "Pictures in class folders."
    }


def test_data_build(edgekd_, fake, monkeypatch):
    from edgekd.data import build_icons

    def build(package, out, emit):
        emit("rendering")
        return {"counts": {"train": 3}, "out": str(out)}

    monkeypatch.setattr(build_icons, "build_icons", build)
    ran = edgekd_("data", "build", "icons", "--out", "there")
    assert ran.err == "rendering\n"
    assert ran.out == "counts.train  3\nout           there\n"


def test_data_export(edgekd_, monkeypatch):
    from edgekd import calls

    recipe = ROOT / "recipes" / "decision_transformer.py"
    asked = ("data", "export", "--recipe", recipe, "--set", "preset=smoke", "--out", "there")
    made = SimpleNamespace(export=lambda out: {"path": str(out), "episodes": 2})
    monkeypatch.setattr(calls, "invoke", lambda call, base: made)
    assert edgekd_(*asked).out == "path      there\nepisodes  2\n"
    monkeypatch.setattr(calls, "invoke", lambda call, base: object())
    ran = edgekd_(*asked)
    assert ran.code == 2 and "files already" in ran.err


def test_data_check_names_what_cannot_be_read(edgekd_):
    Image = pytest.importorskip("PIL.Image")
    for name in ("ant", "cat", "dog"):
        Path("d", name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (9, 9), (number * 9, len(name), ord(name[0]))).save(
                f"d/{name}/{number}.png"
            )
    good = edgekd_("data", "check", "d", "--kind", "classification")
    assert (good.code, good.err) == (0, "")
    assert "unreadable      0" in " ".join(good.out.split()).replace(
        "unreadable 0", "unreadable      0"
    )
    Path("d/cat/bad.png").write_bytes(b"x")
    bad = edgekd_("data", "check", "d", "--json")
    assert bad.code == 2
    assert bad.result["unreadable"] == 1
    assert "cat/bad.png" in bad.lines[0]["what"]


def test_cache(edgekd_, tmp_path):
    from edgekd.store import Store, key_of

    store, keys = Store(), []
    for epochs in (3, 4):
        made_of = {"step": "distill", "spec": {"epochs": epochs}}
        keys.append(key_of(made_of))
        store.put(keys[-1], made_of, lambda out: (out / "f").write_bytes(b"x" * 2048) and {}, print)
    listed = edgekd_("cache")
    assert listed.out.startswith(f"{tmp_path / 'store'}: 2 steps")
    assert edgekd_("cache", "list").out == listed.out
    assert {row["key"] for row in edgekd_("cache", "list", "--json").result} == set(keys)
    why = edgekd_("cache", "why", keys[0][:12], keys[1][:12])
    assert why.out == "spec.epochs: 3 → 4\n"
    assert edgekd_("cache", "why", keys[0], keys[0]).out == "the same\n"
    assert edgekd_("cache", "why", keys[0], "nothing").code == 2
    assert edgekd_("cache", "gc", "--days", "0").out.startswith("removed 2 entries, ")
    assert edgekd_("cache").out == f"{tmp_path / 'store'}: 0 steps, 0 B\n"


def test_doctor(edgekd_, shipped, monkeypatch):
    from edgekd import doctor

    checks = (
        doctor.Check("edgekd", "version", "ok", "0.1.0"),
        doctor.Check("target t", "openvino", "lacks", "no runtime", "pip install it"),
    )
    monkeypatch.setattr(doctor, "examine", lambda target, on: doctor.Diagnosis(checks, target))
    ran = edgekd_("doctor")
    assert ran.code == 0
    assert ran.out == (
        "edgekd\n  ok  version  0.1.0\ntarget t\n  lacks  openvino  no runtime; pip install it\n"
    )
    ran = edgekd_("doctor", "--target", "t", "--json")
    assert ran.code == 4
    assert ran.result[1]["fix"] == "pip install it"
    assert ran.lines[0]["hint"] == "pip install it"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(edgekd_, shell):
    ran = edgekd_("completion", shell)
    assert ran.code == 0
    assert "_EDGEKD_COMPLETE" in ran.out


def test_names_of_recipes_and_targets_are_completed(shipped):
    from edgekd.cli.options import complete_recipe, complete_target

    assert [item.value for item in complete_recipe(None, None, "ti")] == ["tiny"]
    assert [item.value for item in complete_target(None, None, "cpu-")] == ["cpu-ort"]


def test_json_is_never_mixed_with_text(edgekd_, shipped):
    for command in ("recipes", "targets", "data", "cache"):
        json.loads(edgekd_(command, "--json").out)
