"""Sending and receiving: sockets (door), one event loop a process (pump), a blocking client."""
