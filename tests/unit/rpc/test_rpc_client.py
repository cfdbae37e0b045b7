"""Asking one question and waiting for its answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.ids import new_head_id
from mray.rpc.client import AskError, Client
from mray.rpc.door import Door, Keys
from mray.rpc.pump import Pump
from mray.wire.messages import Ack, Address, GetNodes, GetWorkers, KvGet, Ping, Refused, Workers

KEYS = Keys.from_token("secret")


class Server:
    """A process that answers, as a thread."""

    def __init__(self, path: str) -> None:
        self.pump = Pump(Door(new_head_id(), KEYS))
        self.pump.door.listen_ipc(path)
        port = self.pump.door.listen_tcp("127.0.0.1", 0)
        self.address = Address(self.pump.door.process_id, b"", path, f"127.0.0.1:{port}")
        self.pump.on(GetWorkers, self._workers)
        self.pump.on(KvGet, lambda sender, message: None)
        self.pump.on(GetNodes, self._refuse)
        self._thread = threading.Thread(target=self.pump.run)
        self._thread.start()

    def _workers(self, sender: bytes, message: GetWorkers) -> None:
        self.pump.send(sender, Workers(message.rid, [], []))

    def _refuse(self, sender: bytes, message: GetNodes) -> None:
        self.pump.send(sender, Refused(message.rid, "KeyError", "there are none"))

    def close(self) -> None:
        self.pump.stop()
        self._thread.join()
        self.pump.door.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(str(tmp_path / "s"))
    yield made
    made.close()


def test_answers_are_returned(server: Server) -> None:
    with Client() as client:
        for _ in range(3):
            assert client.ask(server.address, GetWorkers, Workers).workers == []


def test_endpoints_of_unknown_processes_can_be_asked(server: Server) -> None:
    with Client(KEYS) as client:
        for endpoint in (f"ipc://{server.address.ipc}", f"tcp://{server.address.tcp}"):
            assert client.ask(client.reach(endpoint), Ping, Ack).rid > 0


def test_a_refusal_is_raised_with_its_kind(server: Server) -> None:
    with Client() as client, pytest.raises(AskError, match="there are none") as caught:
        client.ask(server.address, GetNodes, Ack)
    assert (caught.value.kind, caught.value.text) == ("KeyError", "there are none")


def test_an_answer_of_another_type_is_an_error(server: Server) -> None:
    with Client() as client, pytest.raises(AskError, match="expected Ack, got Workers"):
        client.ask(server.address, GetWorkers, Ack)


def test_silence_is_an_error_after_its_time(server: Server) -> None:
    with Client() as client:
        with pytest.raises(AskError, match=r"KvGet to .*: no answer in time"):
            client.ask(server.address, lambda rid: KvGet(rid, "", b""), Ack, timeout_s=0.05)
        assert client.ask(server.address, Ping, Ack)


def test_nobody_there_is_an_error_after_its_time(tmp_path: Path) -> None:
    client = Client()
    client.pump.door._dialling.linger = 0
    with client, pytest.raises(AskError, match="no answer in time"):
        client.ask(client.reach(f"ipc://{tmp_path}/nobody"), Ping, Ack, timeout_s=0.05)
