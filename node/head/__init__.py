"""The head (gcs): who is in the cluster, which jobs and actors there are, and the shared keys.

Start at server.py, which routes messages; events.py is what goes in and comes out of the machines
membership.py, jobs.py, actors.py (with placement.py) and kv.py.
"""
