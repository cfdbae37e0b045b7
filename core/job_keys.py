"""Namespaces of the head's key-value table whose keys begin with the id of a job.

What is under them goes when nothing of the job lives any more: see node/head/kv.py.
"""

from __future__ import annotations

from typing import Final

#: Exported functions and classes; behind the job's id their hash.
FUNCTIONS: Final = "fn"
#: Tables of serializers; behind the job's id their version.
SERIALIZERS: Final = "serializers"
OF_JOBS: Final = (FUNCTIONS, SERIALIZERS)
