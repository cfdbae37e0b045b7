"""CPU tensors of torch: their memory travels out of band, with torch's own meaning of a pickle.

Owns how a plain tensor is taken apart and put together. torch copies a tensor's storage into the
pickle, by way of a file format; here the storage becomes one buffer. Tensors that share a storage
share it again, and strides are kept, as with torch's own pickling.

torch knows no read-only memory: a tensor over a read-only mapping would end the process at the
first ``add_``. So buffers of tensors are marked private, and whoever reads the value gives them
memory that may be written to and that nobody else sees: copy-on-write pages of the store.

Tensors on other devices, sparse or quantized ones, those that require a gradient, subclasses and
those with attributes are left to torch. Imports torch, so it is imported only where torch is.
"""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any

import torch
from numpy import ndarray


class PrivateBytes(ndarray):
    """Flat bytes of a storage. The class tells whoever lays out the value that the buffer is to be
    read in private, writable memory."""


class Storage:
    """A storage on its way into a pickle: one object for all tensors over it."""

    __slots__ = ("_storage",)

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def __reduce__(self) -> Any:
        flat = torch.empty(0, dtype=torch.uint8).set_(self._storage).numpy()
        return open_storage, (PickleBuffer(flat.view(PrivateBytes)),)


#: Storages met by one pickler, by address.
Storages = dict[int, Storage]


def reduce_tensor(storages: Storages, tensor: Any) -> Any:
    """What a pickler's dispatch table or ``reducer_override`` returns for a ``torch.Tensor``."""
    if (
        tensor.device.type != "cpu"
        or tensor.layout is not torch.strided
        or tensor.requires_grad
        or tensor.is_quantized
        or tensor.is_conj()
        or tensor.is_neg()
        or not tensor.untyped_storage().nbytes()
        or tensor._backward_hooks
        or tensor.__dict__
    ):
        return tensor.__reduce_ex__(5)
    storage = tensor.untyped_storage()
    shared = storages.get(storage.data_ptr())
    if shared is None:
        shared = storages[storage.data_ptr()] = Storage(storage)
    return rebuild_tensor, (
        shared, tensor.dtype, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(),
    )  # fmt: skip


def open_storage(buffer: Any) -> Any:
    """The storage over a writable buffer, which it keeps alive."""
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


def rebuild_tensor(
    storage: Any, dtype: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Any:
    """The tensor over a storage."""
    return torch.empty(0, dtype=dtype).set_(storage, offset, shape, strides)
