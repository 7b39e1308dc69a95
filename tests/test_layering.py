"""Who may import whom, as data; and the sizes that keep modules readable."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "dsage_spool"

# One door for each outside package: the modules that may import it.
DOORS = {
    "paramiko": {"ssh", "line", "ssh_config", "known_hosts"},
    "watchdog": {"watch"},
    "filelock": {"locks"},
    "pickle": {"payload"},
    "cloudpickle": {"payload"},
    "pickletools": set(),
    "rich": {"view"},
    "cryptography": {"sshkey", "sshalgorithms", "keys"},
    # Source jobs have sympy's names at hand; payload teaches it to pickle what it loses.
    "sympy": {"functions", "runner.source", "payload"},
    "subprocess": {"children", "line", "ssh_config", "cli.demo"},
}

# A module (or the whole of a folder) never imports, directly or through others, these.
NEVER = {
    "server": {"payload", "runner", "children", "worker", "client", "sftp", "ssh", "cli", "view"},
    "worker": {"payload", "server", "client", "cli", "view", "runner.child", "runner.slot"},
    "client": {"server", "worker.monitor", "runner", "children", "cli", "view"},
    "runner": {"spool", "files", "sftp", "ssh", "places", "server", "worker", "client", "keys", "cli"},
    "view": {"server", "runner", "cli"},
    "spool": {"server", "worker", "client", "runner", "children", "cli", "view", "sftp", "ssh"},
    "functions": {"server", "worker", "client", "spool", "files", "runner", "cli", "view"},
}
PURE = {"errors", "states", "names", "records", "pack", "layout", "queuefile", "timing", "text", "wire"}
NOT_PURE = {"os", "io", "socket", "subprocess", "threading", "time", "pathlib", "random", "select"}
PURE_MAY = {"names": {"time"}}  # it formats a moment that it is given


def module_name(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(package: Path = PACKAGE) -> dict[str, ast.Module]:
    return {module_name(p): ast.parse(p.read_text()) for p in sorted(package.rglob("*.py"))}


def imports(name: str, tree: ast.Module, known: set[str]) -> tuple[set[str], set[str]]:
    """Modules of ours, and top-level names of others, that a module imports anywhere in it."""
    ours, others = set(), set()
    package = name.split(".") if any(k.startswith(name + ".") for k in known) else name.split(".")[:-1]
    if name == "":
        package = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            others.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                full = ".".join([*base, alias.name])
                ours.add(full if full in known else ".".join(base))
    return ours, others


def typing_only(tree: ast.Module) -> ast.Module:
    """Without blocks under `if TYPE_CHECKING`: they are not imports."""

    class Drop(ast.NodeTransformer):
        def visit_If(self, node):
            return None if getattr(node.test, "id", "") == "TYPE_CHECKING" else node

    return Drop().visit(tree)


def within(name: str, group: str) -> bool:
    return name == group or name.startswith(group + ".")


def door_violations(found: dict[str, tuple[set[str], set[str]]]) -> list[str]:
    return [
        f"{name} imports {package}"
        for name, (_, others) in found.items()
        for package in others & DOORS.keys()
        if not any(within(name, door) for door in DOORS[package])
    ]


def reach(name: str, found: dict[str, tuple[set[str], set[str]]]) -> set[str]:
    seen, todo = set(), [name]
    while todo:
        for other in found.get(todo.pop(), (set(), set()))[0] - seen:
            seen.add(other)
            todo.append(other)
    return seen


def layer_violations(found: dict[str, tuple[set[str], set[str]]]) -> list[str]:
    wrong = []
    for name in found:
        for group in (group for group in NEVER if within(name, group)):
            for other in reach(name, found):
                if any(within(other, never) for never in NEVER[group]):
                    wrong.append(f"{name} reaches {other}")
    return wrong


def analysed(trees: dict[str, ast.Module]) -> dict[str, tuple[set[str], set[str]]]:
    return {name: imports(name, typing_only(tree), set(trees)) for name, tree in trees.items()}


@pytest.fixture(scope="module")
def found():
    return analysed(sources())


def test_each_outside_package_has_one_door(found):
    assert door_violations(found) == []


def test_no_party_reaches_what_it_must_not(found):
    assert layer_violations(found) == []


def test_pure_modules_do_no_input_or_output(found):
    wrong = {
        name: others & NOT_PURE - PURE_MAY.get(name, set())
        for name, (_, others) in found.items()
        if name in PURE
    }
    assert {name: bad for name, bad in wrong.items() if bad} == {}


def test_no_import_goes_round_in_a_circle(found):
    assert [name for name in found if name and name in reach(name, found)] == []


def test_planted_violations_are_found():
    trees = sources()
    trees["server.serve"] = ast.parse("import paramiko\nfrom .. import payload\n")
    planted = analysed(trees)
    assert "server.serve imports paramiko" in door_violations(planted)
    assert "server.serve reaches payload" in layer_violations(planted)


def test_functions_and_modules_keep_to_their_sizes():
    lengths, long, large = [], [], []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        if text.count("\n") > 400:
            large.append(f"{path.name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lengths.append(node.end_lineno - node.lineno + 1)
                if lengths[-1] > 50:
                    long.append(f"{path.name}: {node.name}: {lengths[-1]} lines")
    assert (long, large) == ([], [])
    assert statistics.median(lengths) <= 10
