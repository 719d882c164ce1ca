"""`# show`, `# task` and the set-up cell: hand-built notebooks before and after."""

from textwrap import dedent

import pytest

from publish.binding import check_names

SHOW = """
    from minilib.maths import Gauss

    # %%
    from minilib.maths import log_prob  # show

    # %%
    print(log_prob(0.0, Gauss(0.0)))
"""
SETUP = '''
# @title Set-up

import math
from typing import NamedTuple

TWO_PI = 2 * math.pi  # the whole circle

# half of log 2 pi, part of every Gaussian density
LOG_ROOT = 0.5 * math.log(TWO_PI)


class Gauss(NamedTuple):
    """A Gaussian on the line."""

    mu: float
    sigma: float = 1.0


def standardise(x: float, g: Gauss) -> float:
    """(x - mu) / sigma."""
    return (x - g.mu) / g.sigma
'''.strip()
SHOWN = '''
def log_prob(x: float, g: Gauss) -> float:
    """log N(x; mu, sigma^2), nats."""
    # one term a line

    z = standardise(x, g)
    return -0.5 * z**2 - LOG_ROOT - math.log(g.sigma)  # the normaliser last
'''.strip()


def texts(source) -> list[str]:
    """Sources of the code cells."""
    return [cell.source for cell in source.code]


def test_show_puts_the_definition_in_its_place_and_its_needs_into_the_setup(mini):
    setup, shown, _ = texts(mini.inlined(SHOW))
    assert (setup, shown) == (SETUP, SHOWN)


def test_built_notebook_runs_and_gives_what_the_library_gives(mini):
    """Oracle: the closed form; the cells run one after another in one empty namespace."""
    from math import log, pi

    source = mini.inlined("""
        from minilib.fits import Mean, total

        # %%
        from minilib.maths import Gauss, log_prob  # show

        # %%
        value = total([1.0, 2.0], Gauss(0.5, 2.0))
        mean = Mean().add(3.0)
    """)
    space: dict = {}
    for text in texts(source):
        exec(compile(text, "cell", "exec"), space)
    exact = sum(-0.5 * ((x - 0.5) / 2) ** 2 - 0.5 * log(2 * pi * 4) for x in (1.0, 2.0))
    assert space["value"] == pytest.approx(exact, abs=1e-12) and space["mean"] == 3.0


def test_every_emitted_line_names_its_origin(mini):
    source = mini.inlined(SHOW)
    for cell in source.code:
        for row, (shown, line) in zip(cell.source.split("\n"), cell.origins, strict=True):
            if row.strip() and shown.startswith("minilib"):
                assert (mini.root / shown).read_text().split("\n")[line - 1] == row
    setup = next(iter(source.code))
    at = setup.source.split("\n").index("class Gauss(NamedTuple):")
    assert setup.origins[at] == ("minilib/maths.py", 11)


def test_shown_later_is_not_in_the_setup(mini):
    setup, *_ = texts(
        mini.inlined("""
        from minilib.fits import total

        # %%
        from minilib.maths import Gauss, standardise  # show

        # %%
        from minilib.maths import log_prob  # show

        # %%
        print(total([1.0]))
    """)
    )
    # STANDARD = Gauss(0.0) runs in the set-up cell, so Gauss is needed there; log_prob is not
    assert "class Gauss" in setup and "def total" in setup
    assert "def log_prob" not in setup and "def standardise" not in setup
    assert "LOG_ROOT = " in setup  # nothing shows it


def test_used_before_it_is_shown_is_in_the_setup_too(mini):
    setup, _, shown = texts(
        mini.inlined("""
        from minilib.maths import log_prob, Gauss

        # %%
        print(log_prob(1.0, Gauss(0.0)))

        # %%
        from minilib.maths import log_prob  # show
    """)
    )
    assert "def log_prob" in setup and "def standardise" in setup and "def log_prob" in shown


def test_used_through_another_before_it_is_shown(mini):
    """`total` calls log_prob, which is shown only after total was used."""
    setup, *_ = texts(
        mini.inlined("""
        from minilib.fits import total

        # %%
        print(total([1.0]))

        # %%
        from minilib.maths import log_prob  # show
    """)
    )
    assert "def log_prob" in setup


def test_shown_in_an_order_that_cannot_run_is_mended(mini):
    """`total` has the default STANDARD = Gauss(0.0): both are needed when it is defined."""
    source = mini.inlined("""
        # %%
        from minilib.fits import total  # show

        # %%
        from minilib.maths import Gauss  # show
    """)
    setup = texts(source)[0]
    assert setup.index("class Gauss") < setup.index("STANDARD = ")
    check_names(source)


def test_several_names_and_lines_around(mini):
    cells = texts(
        mini.inlined("""
        import random

        # %%
        # before
        from minilib.maths import (  # show
            Gauss,
            standardise,
        )

        g = Gauss(1.0)
    """)
    )
    assert cells[1].startswith("# before\n\n\nclass Gauss") and cells[1].endswith(
        "\n\n\ng = Gauss(1.0)"
    )
    assert cells[1].index("class Gauss") < cells[1].index("def standardise")
    assert "minilib" not in "".join(cells)


def test_imports_are_merged_sorted_and_stand_once(mini):
    mini.write("minilib/a.py", "import zlib\nimport os.path\nfrom json import loads, dumps as d\n"
               "import yaml\nA = zlib, os, loads, d, yaml\n")  # fmt: skip
    setup, *_ = texts(
        mini.inlined("""
        import sys
        from json import loads
        import nbformat as nb
        from minilib.a import A
        print(sys, loads, nb)
    """)
    )
    block = setup.removeprefix("# @title Set-up\n\n").split("\n\n")
    assert block[0].split("\n") == [
        "import os.path", "import sys", "import zlib", "from json import dumps as d, loads"
    ]  # fmt: skip
    assert block[1].split("\n") == ["import nbformat as nb", "import yaml"]
    assert block[2:] == ["A = zlib, os, loads, d, yaml", "print(sys, loads, nb)"]


def test_what_stands_before_the_imports_stays_before_them(mini):
    setup, *_ = texts(
        mini.inlined("""
        OPTION = 1
        import sys
        from minilib.maths import Gauss
        print(sys, Gauss)
    """)
    )
    assert setup.index("OPTION = 1") < setup.index("import sys") < setup.index("class Gauss")
    assert setup.endswith("print(sys, Gauss)")


def test_task_keeps_signature_and_docstring(mini):
    source = mini.inlined("""
        from minilib.maths import Gauss

        # %%
        from minilib.maths import log_prob  # task
    """)
    cell = list(source.code)[1]
    expected = '''
        def log_prob(x: float, g: Gauss) -> float:
            """log N(x; mu, sigma^2), nats."""
            ### BEGIN SOLUTION
            # one term a line

            z = standardise(x, g)
            return -0.5 * z**2 - LOG_ROOT - math.log(g.sigma)  # the normaliser last
            ### END SOLUTION
    '''
    assert cell.source == dedent(expected).strip()
    assert cell.nbgrader == {"grade_id": "task-log_prob", "solution": True}
    assert "log_prob" not in list(source.code)[0].source


def test_task_class_has_its_methods_cut(mini):
    cell = list(mini.inlined("# %%\nfrom minilib.fits import Mean  # task\n").code)[1]
    rows = cell.source.split("\n")
    assert rows[0] == "class Mean:" and rows[1] == '    """A running mean."""'
    assert [r.strip() for r in rows].count("### BEGIN SOLUTION") == 2
    add = rows.index("    def add(self, x: float) -> float:")
    assert rows[add + 1 : add + 5] == [
        '        """Take in x; returns the mean so far."""',
        "        ### BEGIN SOLUTION",
        "        self.n, self.s = self.n + 1, self.s + x",
        "        return self.s / self.n",
    ]


def test_package_with_reexports(mini):
    mini.write("minilib/plots/__init__.py", "from minilib.plots.core import colour\n")
    mini.write("minilib/plots/core.py", "def colour():\n    return 'blue'\n")
    assert "def colour" in texts(mini.inlined("from minilib.plots import colour\n"))[0]


def test_setting_replaces_a_constant(mini):
    mini.write("minilib/w.py", 'RELEASE_URL = ""  # the builder writes it\n')
    setup = texts(mini.inlined("from minilib.w import RELEASE_URL\n"))[0]
    assert "RELEASE_URL = 'https://raw.githubusercontent.com/someone/course/main'" in setup


def test_decorators_and_order_survive(mini):
    """`early` stands on line 4 of its module, what it needs at once on line 8 of another."""
    mini.write(
        "minilib/a.py", "from minilib.z import late\n\n\n@late\ndef early():\n    return 1\n"
    )
    gap = "\n" * 7
    mini.write(
        "minilib/z.py", f"from functools import cache{gap}@cache\ndef late(f):\n    return f\n"
    )
    setup = texts(mini.inlined("from minilib.a import early\n"))[0]
    assert setup.endswith(
        "from functools import cache\n\n\n@cache\ndef late(f):\n    return f\n\n\n"
        "@late\ndef early():\n    return 1"
    )
