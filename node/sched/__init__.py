"""Who may use what of this node: its resources, found and lent.

detect.py reads what the machine has; lines.py says who waits; leases.py decides who gets a worker.
"""
