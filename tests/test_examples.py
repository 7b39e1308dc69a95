"""The examples, run as their first lines say, against one spool."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment
from parties import World

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A spool with a server and a worker, for all examples."""
    world = World(tmp_path_factory.mktemp("examples"))
    try:
        world.server()
        world.worker("desk")
        yield world
    finally:
        world.close()


def run(world: World, example: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *words], env=environment(world),
        cwd=world.home("alice"), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hello_finds_the_spool_in_the_environment(served):
    said = run(served, "hello.py")
    assert said.startswith("hello from ") and served.where(said.split()[-1]) == ["done"]


def test_the_sweep_tells_every_parameter_once_and_in_order(served):
    lines = run(served, "sweep.py", str(served.spool)).splitlines()
    assert [line.split("   ")[0] for line in lines] == [f"a = {a}" for a in range(8)]
    assert [line.split("   ")[1] for line in lines[:4]] == [f"{n} points" for n in (0, 0, 2, 4)]


def test_factor_multiplies_out_to_the_number(served):
    said = run(served, "factor.py", str(served.spool), "2^101-1")
    assert said == "2^101-1 = 7432339208719 * 341117531003194129\n"


def test_all_examples_are_run_here():
    tree = ast.parse(Path(__file__).read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not {path.name for path in EXAMPLES.glob("*.py")} - texts
