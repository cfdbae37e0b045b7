"""An async actor as a server would be: many requests under way, none blocks another."""

import asyncio

import ray


@ray.remote
class Server:
    def __init__(self):
        self.routes = {"/": "hello", "/about": "a server"}
        self.active = self.most = 0
        self.gate = asyncio.Event()

    async def request(self, path):
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.wait_for(self.gate.wait(), timeout=60)
            if path not in self.routes:
                raise LookupError(path)
            return 200, self.routes[path]
        finally:
            self.active -= 1

    async def wait_for_load(self, count):
        while self.active < count:
            await asyncio.sleep(0.005)
        self.gate.set()

    async def busiest(self):
        return self.most


@ray.remote
class Client:
    """Another async actor that asks, all at once."""

    async def ask(self, server, paths):
        answers = await asyncio.gather(
            *(server.request.remote(path) for path in paths), return_exceptions=True
        )
        return [answer if isinstance(answer, tuple) else 404 for answer in answers]


def main():
    ray.init()
    server, client = Server.remote(), Client.remote()
    paths = ["/", "/about", "/nothing"] * 20
    answers = client.ask.remote(server, paths)
    ray.get(server.wait_for_load.remote(len(paths)))
    assert ray.get(answers) == [(200, "hello"), (200, "a server"), 404] * 20
    busiest = ray.get(server.busiest.remote())
    assert busiest == len(paths)
    print(f"{len(paths)} requests, {busiest} at once")


if __name__ == "__main__":
    main()
