"""The runtime of a driver or worker: machines, sockets and store of one process, wired together.

runtime.py assembles; objects.py (with borrowing.py), tasks.py and actors.py are its parts;
driver.py connects a driver; worker.py and executor.py are what a worker has beyond one.
"""
