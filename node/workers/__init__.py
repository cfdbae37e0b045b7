"""The worker processes of a node, from birth to the cause of their death.

pool.py decides how many live; processes.py starts, watches and ends them, with zygote.py (forks),
fresh.py (spawned anew) and child.py (what a worker does first); strays.py ends what workers leave
behind; death.py names the one cause.
"""
