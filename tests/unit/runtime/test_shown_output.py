"""What stands in front of workers' lines in a driver."""

from __future__ import annotations

import pytest

from mray.class_names import shown_repr
from mray.runtime.driver import OutputPrinter
from mray.wire.messages import WorkerLines


@pytest.mark.parametrize(
    ("name", "ip", "shown"),
    [
        ("f", "10.0.0.1", "(f pid=7) x\n"),
        ("", "10.0.0.1", "(pid=7) x\n"),
        ("f", "10.0.0.2", "(f pid=7, ip=10.0.0.2) x\n"),
    ],
)
def test_the_address_is_named_where_it_is_another(
    name: str, ip: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printer = OutputPrinter("10.0.0.1")
    printer.show(b"", WorkerLines(b"job", 7, ip, name, False, ["x"]))
    printer.close()
    assert capsys.readouterr().out == shown


class Plain:
    pass


class Named:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Broken(Plain):
    def __repr__(self) -> str:
        raise ValueError("not now")


def test_an_actor_is_shown_as_it_says() -> None:
    assert shown_repr(Named("Model(3)")) == "Model(3)"
    assert shown_repr(Named("two\n  lines")) == "two lines"
    assert len(shown_repr(Named("x" * 1000)) or "") == 200
    assert shown_repr(Plain()) is None
    assert shown_repr(Broken()) is None
