"""How many GPUs a node may have where CUDA_VISIBLE_DEVICES says which there are."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize(("visible", "count"), [("0,1", 3), ("", 1)])
def test_a_node_has_no_more_than_the_variable_names(disconnected, visible, count):
    """It is refused at once, with the reason."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES"):
            disconnected.init(address="local", num_cpus=1, num_gpus=count, log_to_driver=False)
        assert not disconnected.is_initialized()
