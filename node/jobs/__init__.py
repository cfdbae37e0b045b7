"""Drivers that the cluster starts for `mray submit`: their processes, signals and output.

runner.py owns their lives; launcher.py is the first program of each; output.py keeps what they
print. When a job starts, and what its end means, is the head's to decide.
"""
