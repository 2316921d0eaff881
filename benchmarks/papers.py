"""Print what a paper reports beside what edgekd measures on your copy of its data.

    python benchmarks/papers.py mobilevit --data DIR --teacher dinov2.onnx

*Reported* numbers are the paper's and were measured by nobody here; *measured* ones come from this
run. Each paper is one module of ``benchmarks/paper`` with ``arguments(parser)`` and ``run(asked)``.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

PAPERS = sorted(p.stem for p in (Path(__file__).parent / "paper").glob("*.py") if p.stem[0] != "_")


def main() -> None:
    """Run one paper's comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    papers = parser.add_subparsers(dest="paper", required=True)
    for name in PAPERS:
        module = importlib.import_module(f"benchmarks.paper.{name}")
        one = papers.add_parser(name, help=(module.__doc__ or "").partition("\n")[0])
        module.arguments(one)
        one.set_defaults(run=module.run)
    asked = parser.parse_args()
    asked.run(asked)


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
