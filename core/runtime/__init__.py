"""The runtime of a driver or worker: machines, sockets and store of one process, wired together.

runtime.py assembles; objects.py, tasks.py and actors.py are its three parts; worker.py and
executor.py are what a worker has beyond a driver.
"""
