import json
import re
from pathlib import Path

from edgekd.table import markdown

ROOT = Path(__file__).parents[1]


def test_tables_are_those_of_the_committed_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"<!-- table: (\S+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert found
    for name, table in found:
        results = json.loads((ROOT / name).read_text(encoding="utf-8"))
        assert table.strip() == markdown(results).strip()


def test_the_printed_output_agrees_with_the_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "benchmarks/results/mobilevit-cpu.json").read_text("utf-8"))
    for row in results["rows"]:
        if row["kind"] in ("teacher", "control", "student"):
            value = row["metrics"][row["primary"]]["value"]
            assert f"{row['kind']}".ljust(12) + f"{value:.4g}" in text
