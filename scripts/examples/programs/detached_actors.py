"""A detached actor outlives its driver: the next driver finds it by its name."""

import os

import ray

NAMESPACE = f"accounts-{os.getpid()}"


@ray.remote
class Account:
    def __init__(self):
        self.balance = 0

    def add(self, amount):
        self.balance += amount
        return self.balance


def main():
    address = ray.init(namespace=NAMESPACE).address_info["address"]
    first_job = ray.get_runtime_context().get_job_id()
    account = Account.options(name="savings", lifetime="detached").remote()
    assert ray.get(account.add.remote(100)) == 100
    passing = Account.options(name="wallet").remote()
    assert ray.get(passing.add.remote(5)) == 5
    with_same_name = Account.options(name="savings", get_if_exists=True).remote()
    assert ray.get(with_same_name.add.remote(1)) == 101
    del account, passing, with_same_name
    if not os.environ.get("RAY_ADDRESS") and not os.environ.get("MRAY_ADDRESS"):
        ray.get(ray.get_actor("savings").add.remote(0))
        print("one driver: a cluster of its own ends with the program")
        return

    ray.shutdown()
    ray.init(address=address, namespace=NAMESPACE)
    assert ray.get_runtime_context().get_job_id() != first_job
    try:
        ray.get_actor("wallet")
        raise AssertionError("an actor that is not detached ends with its driver")
    except ValueError:
        pass
    savings = ray.get_actor("savings", namespace=NAMESPACE)
    assert ray.get(savings.add.remote(50)) == 151
    names = [n["name"] for n in ray.util.list_named_actors(all_namespaces=True)]
    assert "savings" in names
    ray.kill(savings)
    print("two drivers, one account: 151")


if __name__ == "__main__":
    main()
