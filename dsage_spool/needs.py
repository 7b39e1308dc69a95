"""What a job needs and what a worker offers, as words that are compared letter by letter.

    python=cpython-3495    implementation and bytecode magic (importlib.util.MAGIC_NUMBER)
    cloudpickle=3          its major version
    numpy=2  sympy=1.14    numpy's major, sympy's minor version, where a pickle refers to them
    package=mpmath         a top-level package that is installed (offered only)

Everything here is read from bytes and folder names: nothing is unpickled or imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterable

from . import names

# How many parts of a version must agree.
_PARTS = {"cloudpickle": 1, "numpy": 1, "sympy": 2}
# SHORT_BINUNICODE (PEP 307), its length, and the beginning of a module's dotted name.
_MODULE = re.compile(rb"\x8c(.)(numpy|sympy)([.A-Za-z0-9_]*)", re.DOTALL)
_DISTRIBUTION = re.compile(r"([A-Za-z0-9_.]+)-(\d[^-]*)(?:-.*)?\.(?:dist|egg)-info")
_PACKAGES_LIMIT = 1500  # so that a worker's record stays far below the limit of records


def python_token() -> str:
    """This interpreter's word: code pickled under another one must not be loaded here."""
    magic = int.from_bytes(importlib.util.MAGIC_NUMBER[:2], "little")
    return f"python={sys.implementation.name}-{magic}"


def of_pickles(pickles: Iterable[bytes], cloudpickle_version: str) -> tuple[str, ...]:
    """The needs of pickles made by this process."""
    found = {package for data in pickles for package in _packages_in(data)}
    words = [python_token(), _token("cloudpickle", cloudpickle_version)]
    if found:
        versions = _loaded_versions(found) or installed(sys.path)[0]
        words += [_token(name, versions[name]) for name in sorted(found) if name in versions]
    return tuple(words)


def _packages_in(data: bytes) -> set[str]:
    """Of numpy and sympy, those whose modules are named by a string of the pickle."""
    found = set()
    for match in _MODULE.finditer(data):
        rest = match[1][0] - len(match[2])
        if rest == 0 or (0 < rest <= len(match[3]) and match[3].startswith(b".")):
            found.add(match[2].decode())
    return found


def _loaded_versions(packages: set[str]) -> dict[str, str]:
    versions = {name: getattr(sys.modules.get(name), "__version__", "") for name in packages}
    return versions if all(versions.values()) else {}


def _token(package: str, version: str) -> str:
    return f"{package}={'.'.join(version.split('.')[: _PARTS[package]])}"


def offers() -> tuple[str, ...]:
    """What this interpreter offers to jobs."""
    versions, packages = installed(sys.path)
    words = [python_token()]
    words += [_token(name, versions[name]) for name in sorted(_PARTS) if versions.get(name)]
    words += [f"package={name}" for name in sorted(packages)[:_PACKAGES_LIMIT]]
    return tuple(words)


def installed(folders: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """Versions by distribution and names of packages, from the names in site-packages alone."""
    versions: dict[str, str] = {}
    packages: set[str] = set()
    for folder in folders:
        if os.path.basename(folder) not in ("site-packages", "dist-packages"):
            continue
        for name in _listed(folder):
            found = _DISTRIBUTION.fullmatch(name)
            if found:
                versions.setdefault(found[1].lower(), found[2])
            elif name.isidentifier() and not name.startswith("_") and names.is_token(name):
                packages.add(name)
    return versions, packages


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
