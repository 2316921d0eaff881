from __future__ import annotations

import pytest

from edgekd import table
from tests import fakes


def test_one_bundle_has_a_column_for_every_quantity():
    assert table.columns(fakes.manifest()) == [
        "network",
        "runtime",
        "precision",
        "parameters",
        "MACs",
        "file size",
        "5-way 1-shot",
        "5-way 5-shot",
        "p50 / p99 wall, ms",
        "CPU, ms",
        "threads / load",
        "peak RSS, MiB",
    ]


def test_the_row_that_ships_is_marked_and_reads_well():
    rows = table.rows(fakes.manifest())
    assert rows[-1][:8] == [
        "► MobileViT-XXS, ov-int8",
        "openvino",
        "int8",
        "951 k",
        "31.6 M",
        "1.26 MiB",
        "68.74 ± 0.51 %",
        "82.68 ± 0.37 %",
    ]
    assert rows[-1][10] == "1 / 0.4"
    assert not any(row[0].startswith("►") for row in rows[:-1])


def test_what_was_not_run_refers_to_one_footnote():
    manifest = fakes.manifest()
    fakes.row("control", manifest)["latency"] = {"not_run": "no network"}
    fakes.row("teacher", manifest)["metrics"]["5-way 1-shot"] = {"not_run": "no time"}
    shown = table.tabulate(manifest)
    assert shown.notes == ("no network", "no time")
    assert [row[8] for row in shown.rows if "[" in row[8]] == ["not run [1]"] * 2
    assert shown.rows[2][6] == "not run [2]"
    assert "[1] no network\n[2] no time" in table.plain_text(manifest)


def test_a_metric_that_only_some_rows_carry_is_a_column_of_all():
    manifest = fakes.manifest()
    del fakes.row("teacher", manifest)["metrics"]["5-way 1-shot"]
    fakes.row("teacher", manifest)["latency"]["load"] = None
    row = table.rows(manifest)[2]
    assert (row[6], row[10]) == ("–", "1 / –")


def test_several_targets_share_one_table():
    jetson = fakes.manifest()
    jetson["target"]["name"] = "jetson"
    shown = table.tabulate([fakes.manifest(), jetson])
    assert shown.columns[0] == "target"
    assert [row[0] for row in shown.rows] == ["cpu"] * 7 + ["jetson"] * 7


def test_plain_text_is_aligned():
    lines = table.plain_text(fakes.manifest()).splitlines()
    heads, rule, first = lines[0], lines[1], lines[2]
    assert set(rule) == {"─", " "}
    assert heads.index("runtime") == first.index("numpy")
    assert len({len(line) for line in lines[:2]}) == 1


def test_markdown_has_as_many_cells_in_every_line():
    manifest = fakes.manifest()
    manifest["rows"][0]["label"] = "a|b"
    lines = [line for line in table.markdown(manifest).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "a\\|b" in lines[2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (950, "950"),
        (951024, "951 k"),
        (999_960, "1.00 M"),
        (1.3e9, "1.30 G"),
    ],
)
def test_counts(value, shown):
    assert table.count(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0 B"), (1000, "1000 B"), (1024, "1.00 KiB"), (12837845, "12.2 MiB")],
)
def test_sizes(value, shown):
    assert table.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.01234, "0.012"), (0.9996, "1.00"), (9.996, "10.0"), (1234.5, "1234")],
)
def test_quantities(value, shown):
    assert table.quantity(value) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("5-way 1-shot", {"value": 0.7, "low": 0.695, "high": 0.705}, "70.00 ± 0.50 %"),
        ("accuracy", {"value": 0.7, "low": None, "high": None}, "70 %"),
        ("cost", {"value": 12.34, "low": 12.0, "high": 12.68, "unit": "EUR"}, "12.34 ± 0.34 EUR"),
        ("RMSE", {"value": 0.31, "low": 0.29, "high": 0.35}, "0.310 [0.290, 0.350]"),
        ("RMSE", {"value": 31.0, "low": 1.0, "high": 61.0}, "31 ± 30"),
        ("saving", {"value": 0.31, "low": 0.31, "high": 0.31, "unit": "%"}, "31 ± 0 %"),
    ],
)
def test_metrics_are_written_to_two_digits_of_their_uncertainty(name, value, shown):
    assert table.metric(name, value) == shown


def test_energy_has_a_column_where_a_board_measured_it():
    from tests import fakes

    manifest = fakes.manifest()
    assert "energy, mJ" not in table.markdown(manifest)
    timed = [row for row in manifest["rows"] if "not_run" not in row["latency"]]
    timed[0]["latency"]["energy"] = {"net_mj": 12.34, "gross_mj": 20.0}
    timed[1]["latency"]["energy"] = {"not_run": "a gap of 2.0 s in the power samples"}
    lines = table.markdown(manifest).splitlines()
    assert lines[0].endswith("| energy, mJ |")
    assert sum(line.endswith("| 12.3 |") for line in lines) == 1
