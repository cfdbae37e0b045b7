"""What init() takes for arguments that the program does not give: the options of `mray run`.

A slot, filled by mray.launch before the script begins and read by init(). Not an environment
variable: it is meant for this driver and not for programs that it starts.
"""

from __future__ import annotations

from typing import Any

#: Keyword arguments of init(): num_cpus, num_gpus, resources, object_store_memory.
values: dict[str, Any] = {}
