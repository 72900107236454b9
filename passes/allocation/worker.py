"""A process that works for `executors.processes`: `python -m mulshift.passes.allocation.worker FOLDER`.

A line of JSON in: a task. A line out: `{"result": ...}` or `{"error": [...]}`. Ends with its input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mulshift.ir import MulshiftError
from mulshift.passes.allocation.task import Runner, told


def main(folder: str) -> None:
    """Serve until stdin ends; what operators print goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    runner = Runner(Path(folder))
    for line in sys.stdin:
        try:
            answer = {"result": runner.run(json.loads(line))}
        except MulshiftError as e:
            answer = {"error": told(e)}
        out.write(json.dumps(answer, allow_nan=False) + "\n")
        out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
