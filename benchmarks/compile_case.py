"""One compilation in a process of its own: `python benchmarks/compile_case.py MODEL CALIBRATION RECIPE TARGET DIR`.

Prints one JSON object: seconds (whole call), bytes (peak resident), what verification compared, output SQNR in dB.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import mulshift


def main(model: str, calibration: str, recipe: str, target: str, folder: str) -> None:
    start = time.perf_counter()
    compiled = mulshift.compile(model, calibration, recipe=recipe, target=target, output=folder)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - start,
                "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "stages": compiled.seconds,
                "verification": compiled.report.verification.model_dump(),
                "totals": compiled.report.totals.model_dump(),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
