"""The real executor with small budgets, so that what must be stopped is stopped in seconds."""

from traitlets import Dict

from autograder.execute import SandboxedExecute

MIB = 1 << 20


class TightExecute(SandboxedExecute):
    """Everything is the real thing but the numbers: 1 GiB, 16 MiB of files, 3 s a call."""

    limits = Dict({"memory": 1024 * MIB, "tmpfs": 16 * MIB, "file_bytes": 64 * MIB}).tag(
        config=True
    )
    budget = Dict({"define": 8.0, "extra": 8.0, "extras": 24.0, "test": 8.0, "call": 3.0}).tag(
        config=True
    )
