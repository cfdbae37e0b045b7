"""``ray.autoscaler``: only its ``sdk`` is here, for libraries that ask for room when they start."""
