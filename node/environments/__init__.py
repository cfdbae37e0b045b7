"""What a node does to make the environments that its workers run in.

Owns the parts an environment is made of, their cache on the disk, and the process that makes them.
"""
