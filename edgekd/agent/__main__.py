"""Start the agent: ``python -m edgekd.agent`` or ``python edgekd-agent.pyz``.

Reads one JSON request a line on standard input and answers each with one JSON line:

    {"id": 1, "op": "facts"}
    {"id": 2, "op": "load", "runtime": "onnxruntime", "model": "m.onnx", "options": {"threads": 1}}
    {"id": 3, "op": "run", "inputs": "in.npz", "outputs": "out.npz", "batch": 8}
    {"id": 4, "op": "time", "inputs": "in.npz", "warmup": 10, "runs": 200, "max_seconds": 30,
     "cpu_block": 20}                                              (on one line)
    {"id": 5, "op": "bye"}
"""

from __future__ import annotations

import sys

from . import process, protocol, quiet


def main() -> int:
    """Serve requests until ``bye`` or the end of standard input."""
    if len(sys.argv) > 1:
        sys.stderr.write(__doc__)
        return 2
    process.prepare()
    quiet.silence()
    requests, answers = protocol.take_streams()
    try:
        protocol.serve(requests, answers)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
