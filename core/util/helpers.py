"""``ray.util.helpers``: where Ray keeps ``as_completed`` and ``map_unordered``."""

from mray.util.completion import as_completed, map_unordered

__all__ = ["as_completed", "map_unordered"]
