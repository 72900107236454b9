"""Paths of the scripts in this folder, which are run by themselves: import it first.

The scripts on transformers live apart from `benchmarks/transformers.py`, which Python would else find instead of the
package of that name; those in `precision/` have a link to this file.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent
ROOT = BENCHMARKS.parent
sys.path.append(str(BENCHMARKS))  # behind the packages, see above


def quiet() -> None:
    """Exporters and loaders speak of torchvision, of progress and of their own future; what fails still raises."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
