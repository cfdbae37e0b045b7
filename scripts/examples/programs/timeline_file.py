"""The timeline of a program as a file for chrome://tracing or Perfetto."""

import json
import os
import tempfile
import time

import ray


@ray.remote
def stage(name, seconds):
    time.sleep(seconds)
    return name


def spans(path):
    ray.timeline(path)
    with open(path) as file:
        return [event for event in json.load(file) if event.get("ph") == "X"]


def main():
    ray.init()
    ray.get([stage.remote(f"s{n}", 0.02) for n in range(6)])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "timeline.json")
        give_up_at = time.monotonic() + 30
        found = []
        while len(found) < 6:
            assert time.monotonic() < give_up_at, f"only {len(found)} spans came"
            found = [event for event in spans(path) if "stage" in event["cat"]]
            time.sleep(0.1)
    assert all(event["dur"] >= 20_000 for event in found), "microseconds"
    print(f"{min(len(found), 6)} spans of stage")


if __name__ == "__main__":
    main()
