"""The executed hash: moves with code, parameters and data, and with nothing else."""

import pytest

from publish.outputs import last_state, path_in
from publish.record import data_lines, executed_hash

CODE = '''
def f(x: int = 3) -> int:
    """Docstring."""
    y = [x, "text"]  # comment
    return y[0]


class A:
    """Docstring."""

    z = 1
'''
FIRST = "STEPS = 10"


def of(*cells: str, data: tuple[str, ...] = ()) -> str:
    """Hash of cells."""
    return executed_hash([FIRST, *cells], list(data))


@pytest.mark.parametrize(
    "old, new",
    [
        ("# comment", "# another one"),
        ('"""Docstring."""', '"""Other words,\n    on two lines.\n    """'),
        ('    """Docstring."""\n    y', "    y"),
        ("y = [x, ", "y = [\n        x,\n        "),
        ('"text"', "'text'"),
        ("return y[0]", "return (y[0])"),
    ],
)
def test_does_not_move(old, new):
    assert old in CODE and of(CODE.replace(old, new)) == of(CODE)


@pytest.mark.parametrize(
    "old, new",
    [
        ("x: int = 3", "x: int = 4"),
        ('"text"', '"test"'),
        ('"text"', 'b"text"'),
        ("y[0]", "y[-0]"),
        ("z = 1", "z = 1.0"),
        ("z = 1", "z = True"),
        ("z = 1", "z = None"),
        ("def f", "def g"),
        ("return y[0]", "yield y[0]"),
    ],
)
def test_moves(old, new):
    assert old in CODE and of(CODE.replace(old, new)) != of(CODE)


def test_moves_with_parameters_data_and_order():
    hashes = {
        of(CODE),
        executed_hash(["STEPS = 11", CODE], []),
        executed_hash([CODE, FIRST], []),
        executed_hash([FIRST + "\n" + CODE], []),
        of(CODE, data=("mnist (60000 images)",)),
        of(CODE, data=("digits (1500 images)",)),
        of(CODE, "x = 1"),
    }
    assert len(hashes) == 7


def test_address_of_the_release_moves_nothing():
    assert of('RELEASE_URL = "a"') == of("RELEASE_URL = 'b'") == of("")


def test_the_same_on_every_python():
    """Kept from Python 3.11: a hash that moved with the interpreter would void every run."""
    assert of(CODE).startswith("3300d456516d")
    modern = (
        'f"a{x!r:>{w}}b" "c" f"{y=}"\nlambda a, /, b=1, *c, d: 0\nmatch x:\n    case [1, *_]: 2'
    )
    assert of(modern).startswith("ab8aaa1128bf")


def test_data_lines():
    texts = ["x\ndata set: mnist (10 images)\ny", "data set: a", "data set: mnist (10 images)\n"]
    assert data_lines(texts) == ["mnist (10 images)", "a"]
    assert data_lines(["the data set: no"]) == []


def test_progress_bar_keeps_its_last_state():
    assert last_state("a\n 0%|  |\r 50%|# |\r100%|##|\nend") == "a\n100%|##|\nend"
    assert last_state("\r 50%\r\n") == " 50%\n"
    assert last_state("plain\n\ntext\n") == "plain\n\ntext\n"


@pytest.mark.parametrize(
    "text, found",
    [
        ("saved to /home/USER/x.png", True),
        ("(/home/USER)", True),
        ("'/home/USER'", True),
        ("/home/USERS", False),
        ("x/home/USER/y", False),
        ("https://a.b/home/USER", False),
        ('src="data:image/png;base64,' + "A" * 100 + "+/home/USER/" + "A" * 100 + '"', False),
    ],
)
def test_path_in(text, found):
    assert (path_in(text, ["/srv", "/home/USER"]) == "/home/USER") is found
