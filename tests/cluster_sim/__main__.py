"""Lives of simulated clusters, by seed: ``python -m tests.cluster_sim FIRST END [STEP]``.

Prints the story of the first one that fails; the status says whether one did.
"""

from __future__ import annotations

import logging
import sys

from .clockwork import Violation
from .lives import live


def main(words: list[str]) -> int:
    """Live them all; 0, or 1 after the first that fails."""
    logging.lastResort = None  # Nodes warn of what is done to them.
    for seed in range(*(int(word) for word in words)):
        try:
            live(seed)
        except Violation as error:
            print(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
