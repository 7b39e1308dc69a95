"""Source jobs: Python text in which `^` is a power and sympy's names are at hand.

`^^` is exclusive or, as in Sage. Strings and comments stay as they are: the text is cut into
tokens, not searched. The value of a last line that is an expression is the job's value. Without
sympy the text runs as plain Python. Raises what the text raises.
"""

from __future__ import annotations

import ast
import importlib
import io
import linecache
import sys
import tokenize
import types
from typing import Any

_SPELLING = {"^": "**", "^^": "^", "^=": "**=", "^^=": "^="}
# From Python 3.12 on the inside of an f-string is tokens too; before, it was one string.
_STRING_STARTS = {
    getattr(tokenize, name, None) for name in ("FSTRING_START", "TSTRING_START")
} - {None}
_STRING_ENDS = {getattr(tokenize, name, None) for name in ("FSTRING_END", "TSTRING_END")} - {None}


_main = types.ModuleType("__main__")


def preload() -> None:
    """Have sympy's names ready in `__main__`-to-be, here and in the children forked from here."""
    if "sympify" in _main.__dict__:
        return
    try:
        sympy = importlib.import_module("sympy")
    except ImportError:
        return
    _main.__dict__.update({name: getattr(sympy, name) for name in sympy.__all__})


def prepare(text: str) -> str:
    """The same text as plain Python, line for line; unchanged where it is no Python at all."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    try:
        carets = _carets(text)
    except (tokenize.TokenError, SyntaxError):
        return text  # compiling it will tell what is wrong
    for row, start, word in reversed(carets):
        line = lines[row]
        lines[row] = line[:start] + _SPELLING[word] + line[start + len(word) :]
    return "\n".join(lines)


def _carets(text: str) -> list[tuple[int, int, str]]:
    """Row, column and spelling of each `^`, `^^`, `^=` and `^^=` outside strings and comments."""
    found: list[tuple[int, int, str]] = []
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        depth += (token.type in _STRING_STARTS) - (token.type in _STRING_ENDS)
        if depth or token.type != tokenize.OP or token.string not in ("^", "^="):
            continue
        row, start = token.start[0] - 1, token.start[1]
        if found and found[-1] == (row, start - 1, "^"):
            found[-1] = (row, start - 1, "^" + token.string)
        else:
            found.append((row, start, token.string))
    return found


def run(text: str, name: str) -> Any:
    """Run `text` as the module `__main__` and return its value; `name` stands in tracebacks.

    Once in a process: the text may change what it finds there.
    """
    text = prepare(text)
    lines = [line + "\n" for line in text.split("\n")]
    linecache.cache[name] = (len(text), None, lines, name)
    tree = ast.parse(text, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    preload()
    # A module in truth, so that multiprocessing finds the functions of the text.
    sys.modules["__main__"] = _main
    exec(compile(tree, name, "exec"), _main.__dict__)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), name, "eval"), _main.__dict__)


def shuffle_anew() -> None:
    """Give a forked child chance of its own: it woke up with its parent's random states."""
    for name, verb in (("sympy.core.random", "seed"), ("numpy.random", "seed")):
        module = sys.modules.get(name)
        if module is not None:
            getattr(module, verb)()
