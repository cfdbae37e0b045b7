"""Tensors of torch: their memory is not copied, and writing to it is safe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mray.serialization.pickler import deserialize, serialize, wants_private_memory

torch = pytest.importorskip("torch", reason="torch is no test extra: it takes gigabytes")
pytestmark = pytest.mark.ecosystem


def read(value: Any) -> tuple[Any, Any]:
    """The value as read from memory of its own, and that memory."""
    memory = np.frombuffer(bytearray(serialize(value).to_bytes()), np.uint8)
    return deserialize(memoryview(memory)), memory


def shares(tensor: Any, memory: Any) -> bool:
    low = memory.ctypes.data
    return bool(low <= tensor.data_ptr() < low + memory.nbytes)


CUBE = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "tensor",
    [
        CUBE, CUBE.permute(2, 0, 1), CUBE[:, ::2], CUBE[1], CUBE.bfloat16(), CUBE.to(torch.bool),
        torch.tensor(3), CUBE.half(), torch.complex(CUBE, CUBE), torch.zeros(1).expand(3, 4),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}-{tensor.stride()}",
)  # fmt: skip
def test_a_tensor_comes_back_equal_over_the_same_bytes(tensor: Any) -> None:
    got, memory = read([tensor])
    assert type(got[0]) is type(tensor)
    assert got[0].dtype is tensor.dtype
    assert got[0].stride() == tensor.stride()
    assert torch.equal(got[0], tensor)
    assert shares(got[0], memory)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(0, 3),
        lambda: CUBE.clone().requires_grad_(),
        lambda: torch.complex(CUBE, CUBE).conj(),
        lambda: torch.empty(3, device="meta"),
    ],
    ids=["empty", "with gradient", "conjugated", "meta"],
)
def test_other_tensors_are_left_to_torch(make: Any) -> None:
    tensor = make()
    assert not wants_private_memory(serialize(tensor).to_bytes())
    got = read(tensor)[0]
    assert type(got) is type(tensor)
    assert (got.dtype, got.shape, got.requires_grad) == (
        tensor.dtype, tensor.shape, tensor.requires_grad,
    )  # fmt: skip


def test_parameters_and_sparse_tensors_share_the_memory_of_what_they_are_made_of() -> None:
    parameter, memory = read(torch.nn.Parameter(CUBE.clone()))
    assert type(parameter) is torch.nn.Parameter
    assert parameter.requires_grad
    assert torch.equal(parameter, CUBE)
    assert shares(parameter, memory)
    sparse, _ = read(CUBE.to_sparse())
    assert torch.equal(sparse.to_dense(), CUBE)


def test_attributes_and_subclasses_are_kept() -> None:
    tensor = torch.zeros(3)
    tensor.note = "kept"
    assert read(tensor)[0].note == "kept"


def test_tensors_over_one_storage_share_it_again() -> None:
    (whole, row, again), _ = read([CUBE, CUBE[0], CUBE])
    assert again is whole
    whole[0, 0, 0] = 99
    assert row[0, 0] == 99


def test_a_change_stays_with_the_reader_and_raises_no_warning() -> None:
    data = serialize({"tensor": CUBE, "array": np.arange(3)}).to_bytes()
    assert wants_private_memory(data)
    got = deserialize(data)
    got["tensor"].add_(1)
    assert not got["array"].flags.writeable
    assert torch.equal(deserialize(data)["tensor"], CUBE)


def test_arrays_beside_tensors_stay_read_only_in_writable_memory() -> None:
    (tensor, array), _ = read([CUBE, np.arange(3)])
    tensor += 1
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_tensors_beside_functions_share_memory_too() -> None:
    (function, tensor), memory = read([lambda: CUBE, CUBE])
    assert function() is tensor
    assert shares(tensor, memory)
