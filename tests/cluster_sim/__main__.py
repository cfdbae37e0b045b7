"""Lives of simulated clusters, by seed: ``python -m tests.cluster_sim FIRST END [STEP]``.

A life that fails prints its seed and its story, and the next one begins. The last line says how
many lived, how many failed, and what a life cost; the status says whether one failed. Between the
stories, on standard error, a line of JSON tells every few seconds how far it is.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
import traceback

from .lives import live

#: After so many lives their garbage is collected: there is none within them.
_COLLECT_EVERY = 20
_TELL_EVERY_S = 5.0


def main(words: list[str]) -> int:
    """Live them all; 0, or 1 if one failed."""
    logging.lastResort = None  # Nodes warn of what is done to them.
    gc.collect()
    gc.freeze()  # What is there by now stays: no collection has to look at it.
    gc.disable()
    seeds = range(*(int(word) for word in words))
    failed: list[int] = []
    told_at = time.monotonic()
    for count, seed in enumerate(seeds, 1):
        try:
            live(seed)
        except Exception as error:
            failed.append(seed)
            # Of a broken rule, its story; of an error in the simulation itself, where it was.
            broken = isinstance(error, AssertionError)
            print(error if broken else f"seed {seed}: {traceback.format_exc()}", flush=True)
        if count % _COLLECT_EVERY == 0:
            gc.collect()
        if time.monotonic() - told_at >= _TELL_EVERY_S or count == len(seeds):
            told_at = time.monotonic()
            told = {"lived": count, "failed": failed, "cpu_s": round(time.process_time(), 1)}
            print(json.dumps(told), file=sys.stderr, flush=True)
    cost_s = time.process_time() / max(1, len(seeds))
    print(f"{len(seeds)} lives, {len(failed)} failed {failed or ''}, {cost_s:.3f} CPU-s a life")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
