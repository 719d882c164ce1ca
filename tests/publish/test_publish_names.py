"""Bound and free names, against what Python's own compiler loads and stores."""

import builtins
import dis
import inspect
import statistics
import textwrap
import tokenize
import types

import pytest

from publish.names import line_of, scan


@pytest.mark.parametrize(
    "text, bound, eager, lazy",
    [
        ("x = y", {"x"}, {"y"}, set()),
        ("def f(a=b):\n    c = a\n    return c + d + f(1)", {"f"}, {"b"}, {"d"}),
        ("class A(B):\n    z: C = 1\n    w = z\n    def m(self):\n        return D", {"A"},
         {"B", "C"}, {"D"}),
        ("[i * k for i in r]", set(), {"k", "r"}, set()),
        ("a = {k: [w for w in v] for k, v in {u for u in s}}", {"a"}, {"s"}, set()),
        ("{u + m for u in s}", set(), {"m", "s"}, set()),
        ("i = [(last := i) for i in r]", {"i", "last"}, {"r"}, set()),
        ("f = lambda: [u for u in g if h]", {"f"}, set(), {"g", "h"}),
        ("f = lambda v: v + u", {"f"}, set(), {"u"}),
        ("for i in s:\n    pass\nwith o() as p:\n    q, *t = i", {"i", "p", "q", "t"}, {"s", "o"},
         set()),
        ("import a.b\nfrom c import d as e", {"a", "e"}, set(), set()),
        ("def g():\n    global n\n    n = len([])", {"g", "n"}, set(), set()),
        ("def g():\n    def h():\n        return v\n    return h", {"g"}, set(), {"v"}),
        ("@deco\ndef g(x: T) -> U: ...", {"g"}, {"deco", "T", "U"}, set()),
        ("if (m := k) > 0:\n    print(m)", {"m"}, {"k"}, set()),
        ("print(y)\ndef f():\n    return y", {"f"}, {"y"}, set()),
    ],
)  # fmt: skip
def test_hand_made(text, bound, eager, lazy):
    names = scan(text)
    assert (names.bound, names.eager, names.lazy) == (bound, eager, lazy)


def _loaded(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Names that a code object and those inside it load from outside, and the top level stores."""
    loads, stores = set(), set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            loads.add(step.argval)
        elif step.opname == "STORE_NAME":
            stores.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            found, own = _loaded(inner)
            loads |= found - own  # a class body stores names of its own
    return loads, stores


@pytest.mark.parametrize(
    "module", [inspect, statistics, textwrap, tokenize], ids=lambda m: m.__name__
)
def test_functions_of_the_standard_library(module):
    """Oracle: the instructions that the compiler emits for the same text."""
    tried = 0
    for item in vars(module).values():
        if inspect.isfunction(item) and item.__module__ == module.__name__:
            text = textwrap.dedent(inspect.getsource(item))
            loads, stores = _loaded(compile(text, "<text>", "exec"))
            assert scan(text).free == loads - stores - set(dir(builtins)), item
            assert scan(text).bound == stores
            tried += 1
    assert tried >= 3


def test_line_of_a_name():
    assert line_of("a = 1\nb = (a +\n     zeta)\n", "zeta") == 3
    assert line_of("x = 1\ndef f():\n    pass\n", "f") == 2
    assert line_of("x = 1", "nowhere") == 1


def test_syntax_error_is_raised():
    with pytest.raises(SyntaxError):
        scan("%matplotlib inline")
