"""What processes of this node print: shown to drivers, and served to whoever asks.

watch.py says which files have changed; files.py knows the parts of a rotated log; tailer.py sends
workers' lines to their drivers (lines.py cuts them); service.py answers ListLogs and ReadLog.
"""
