"""Environment variables of a job, overlaid by those of tasks and actors."""

import os

import ray


@ray.remote
def read(*names):
    return [os.environ.get(name) for name in names]


@ray.remote
class Reader:
    def read(self, name):
        return os.environ.get(name)


def main():
    ray.init(runtime_env={"env_vars": {"STAGE": "test", "LEVEL": "1"}})
    assert ray.get(read.remote("STAGE", "LEVEL")) == ["test", "1"]
    louder = read.options(runtime_env={"env_vars": {"LEVEL": "9"}})
    assert ray.get(louder.remote("STAGE", "LEVEL")) == ["test", "9"]
    actor = Reader.options(runtime_env={"env_vars": {"WHO": "actor"}}).remote()
    assert ray.get(actor.read.remote("WHO")) == "actor"
    assert ray.get(actor.read.remote("STAGE")) == "test"
    assert ray.get(read.remote("WHO")) == [None], "it is the actor's alone"
    assert "STAGE" not in os.environ, "the driver's own are left alone"
    print("variables of job, task and actor, each where it belongs")


if __name__ == "__main__":
    main()
