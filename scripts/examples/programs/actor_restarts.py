"""An actor that crashes comes back, reads what it had saved, and its calls are made again."""

import json
import os
import tempfile

import ray
from ray.exceptions import ActorDiedError, RayActorError


@ray.remote(max_restarts=2, max_task_retries=-1)
class Ledger:
    def __init__(self, path):
        self.path = path
        self.entries = []
        if os.path.exists(path):
            with open(path) as file:
                self.entries = json.load(file)

    def add(self, number, crash=False):
        if number not in self.entries:
            self.entries.append(number)
            with open(self.path, "w") as file:
                json.dump(self.entries, file)
            if crash:
                os._exit(1)
        return number

    def read(self):
        return self.entries, ray.get_runtime_context().was_current_actor_reconstructed


@ray.remote
class Fragile:
    def crash(self):
        os._exit(1)

    def ping(self):
        return "pong"


def main():
    ray.init()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger.remote(os.path.join(folder, "ledger.json"))
        calls = [ledger.add.remote(n, crash=n in (3, 6)) for n in range(10)]
        assert ray.get(calls, timeout=60) == list(range(10))
        entries, restarted = ray.get(ledger.read.remote())
        assert sorted(entries) == list(range(10)), "each once"
        assert restarted
    fragile = Fragile.remote()
    assert ray.get(fragile.ping.remote()) == "pong"
    causes = []
    for call in (fragile.crash, fragile.ping):
        try:
            ray.get(call.remote(), timeout=60)
            raise AssertionError("it should be dead")
        except RayActorError as error:
            causes.append(type(error))
    assert causes == [ActorDiedError, ActorDiedError]
    print("10 entries over 2 crashes, none twice")


if __name__ == "__main__":
    main()
