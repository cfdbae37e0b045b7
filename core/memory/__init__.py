"""What memory there is, who has it, and what the kernel has done about it: reading, never acting.

usage.py reads used and limit of the node (the one function of every surface); groups.py finds the
cgroups; threshold.py says how much is too much; trees.py reads what each worker has with all its
children; peaks.py keeps the most an attempt has had; kernel.py counts the kernel's own kills.
Whom to kill is decided in mray.node.memory.
"""
