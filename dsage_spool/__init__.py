"""dsage-spool: a batch system that lives in files and needs nothing but SSH to one box.

    import dsage_spool
    with dsage_spool.connect("me@box:spool") as session:
        print(session.submit(pow, 2, 100).result())

What is not in `__all__` is not public. Importing this package imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .client.compose import Options
    from .client.connecting import connect
    from .client.job import Job
    from .client.session import Session
    from .states import State

_HOMES = {
    "connect": "client.connecting",
    "Session": "client.session",
    "Job": "client.job",
    "Options": "client.compose",
    "State": "states",
    "SpoolError": "errors",
    "UsageError": "errors",
    "Unreachable": "errors",
    "Refused": "errors",
    "BadSignature": "errors",
    "JobError": "errors",
    "JobFailed": "errors",
    "JobCancelled": "errors",
    "JobRejected": "errors",
    "WaitTimeout": "errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
