"""The words of a refused create."""

from __future__ import annotations

from mray.node.objects.effects import Full, Holder, OutOfDisk, OwnerGone
from mray.node.objects.refusal import refusal
from mray.units import MIB

OWNER = bytes.fromhex("6d00aa11") + bytes(24)
PATH = "/dev/shm/mray-0-s1-6d012345/arena"


def full(**facts: object) -> Full:
    given = {
        "object_id": b"\x01",
        "requested_bytes": 20 * MIB,
        "capacity_bytes": 64 * MIB,
        "used_bytes": 60 * MIB,
        "object_count": 2,
        "waited_s": 2.0,
        "holders": (
            Holder(b"\x02", 40 * MIB, "sealed", 0, OWNER),
            Holder(b"\x03", 10 * MIB, "sealed", 1, OWNER),
            Holder(b"\x04", 6 * MIB, "leaving", 2, OWNER),
            Holder(b"\x05", 4 * MIB, "created", 0, OWNER),
        ),
    } | facts
    return Full(**given)  # type: ignore[arg-type]


def test_a_full_store_says_what_holds_it() -> None:
    assert refusal(full(), PATH) == (
        "ObjectStoreFullError",
        "the object store of this node (/dev/shm/mray-0-s1-6d012345/arena) has no room for object "
        "01 (20 MiB): 60 MiB of 64 MiB are in use by 2 objects, and none of it came free in 2 s. "
        "The biggest:\n"
        "  02 40 MiB, referenced by its owner (owner 6d00aa11)\n"
        "  03 10 MiB, read through 1 pin (owner 6d00aa11)\n"
        "  04 6 MiB, read through 2 pins after its owner freed it (owner 6d00aa11)\n"
        "  05 4 MiB, still being written (owner 6d00aa11)\n"
        "Drop references that are no longer needed, or start with more object_store_memory",
    )


def test_an_object_larger_than_the_store_says_so() -> None:
    kind, text = refusal(full(requested_bytes=65 * MIB, waited_s=0.0), PATH)
    assert kind == "ObjectStoreFullError"
    assert text.startswith("object 01 (65 MiB) is larger than the whole object store of this node")
    assert "64 MiB" in text


def test_a_dead_owner_is_named() -> None:
    kind, text = refusal(OwnerGone(b"\x01", OWNER), PATH)
    assert kind == "OwnerDiedError"
    assert text == (
        "object 01 is not stored: its owner, process 6d00aa11, has ended, so nobody would ever "
        "free it"
    )


def test_reading_from_disk_takes_room_too_and_says_so() -> None:
    facts = OutOfDisk(
        object_id=b"\x01", requested_bytes=20 * MIB, capacity_bytes=64 * MIB, used_bytes=60 * MIB,
        spilled_bytes=40 * MIB, waited_s=2.0, disks=("the disk of /d is full",), spilled=True,
    )  # fmt: skip
    kind, text = refusal(facts, PATH)
    assert kind == "OutOfDiskError"
    assert text.startswith(
        "there is no room for object 01 (20 MiB), which is on disk and takes room in memory, or as "
        "much again on disk, to be read: 60 MiB of 64 MiB"
    )
