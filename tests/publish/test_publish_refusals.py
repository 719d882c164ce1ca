"""What the inliner refuses, with the line of the source or of the library that is wrong."""

import re

import pytest

from publish.binding import check_imports, check_names
from publish.errors import PublishError
from publish.inline import inline

MATHS, CELL = "from minilib.maths import", "# %%\n"


@pytest.mark.parametrize(
    "text, said",
    [
        ("from minilib.maths import Gauss as G\n", "01_x.py:6: `Gauss as G`: .* drop `as`"),
        ("from minilib.maths import nothing\n", "01_x.py:6: `minilib.maths` defines no `nothing`"),
        ("from minilib.none import x\n", "01_x.py:6: there is no module `minilib.none`"),
        ("from minilib.maths import *\n", "01_x.py:6: starred import"),
        ("import minilib.maths as m\n", "01_x.py:6: `import minilib.maths`: write `from"),
        ("def f():\n    from minilib.maths import Gauss\n", "01_x.py:7: .* top level of its cell"),
        ("from minilib.maths import Gauss\nGauss = 3\n", "01_x.py:7: the cell binds `Gauss`"),
        ("from minilib.maths import LOG_ROOT\n\n# %%\nmath = 1\n", "01_x.py:9: .* `import math`"),
        ("%matplotlib inline\n", "01_x.py:6: does not parse"),
        (f"{CELL}{MATHS} Gauss # show\n\n{CELL}{MATHS} Gauss # show\n",
         "01_x.py:10: `Gauss` is shown a second time; first at lectures/01_x.py:7"),
        ("# %%\nfrom minilib.maths import LOG_ROOT  # task\n", "maths.py:7: .* no function body"),
        (f"from minilib.fits import total\n\n{CELL}total([])\n\n{CELL}{MATHS} log_prob  # task\n",
         "01_x.py:9: this cell uses `log_prob` before the cell of its task .*01_x.py:12"),
        (f"{MATHS} (\n    Gauss,  # show\n    log_prob,\n)\n", "01_x.py:7: this mark stands on no"),
        ("x = 1  # task\n", "01_x.py:6: this mark stands on no import"),
        (f"import numpy as math\n{MATHS} LOG_ROOT\n", "`import math` clashes with"),
    ],
)  # fmt: skip
def test_refused(mini, text, said):
    with pytest.raises(PublishError) as caught:
        mini.inlined(text)
    assert re.search(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("from . import maths\nX = 1\n", "m.py:1: relative import"),
        ("from __future__ import annotations\nX = 1\n", "m.py:1: .*__future__"),
        ("import math\nif math:\n    Y = 1\nX = 1\n", "m.py:2: only imports, functions"),
        ("X = 1\nprint(X)\n", "m.py:2: only imports, functions"),
        ("X = 1\nX = 2\n", "m.py:2: `X` is defined twice"),
        ("def X():\n    return unknown\n", "m.py:1: `X` uses `unknown`, which"),
        ("X = __file__\n", "m.py:1: `X` uses `__file__`"),
        ("import minilib.maths\nX = 1\n", "m.py:1: write `from minilib.maths import name`"),
        (f"{MATHS} Gauss as X\n", "m.py:1: write `from minilib.maths import name`"),
        ("def X():\n    import minilib.maths\n", "m.py:2: import the library at the top"),
        ("X = (\n", "m.py:1: does not parse"),
        (f"{MATHS} gone\ndef X():\n    return gone\n", "m.py:1: .* defines no `gone`"),
    ],
)  # fmt: skip
def test_library_that_cannot_be_inlined(mini, text, said):
    mini.write("minilib/m.py", text)
    with pytest.raises(PublishError) as caught:
        mini.inlined("from minilib.m import X\n")
    assert re.search("minilib/" + said, str(caught.value)), str(caught.value)


def test_one_name_in_two_modules(mini):
    mini.write("minilib/b.py", "def helper():\n    return 1\n\n\ndef b():\n    return helper()\n")
    mini.write("minilib/c.py", "def helper():\n    return 2\n\n\ndef c():\n    return helper()\n")
    with pytest.raises(
        PublishError, match=r"`helper` is defined in minilib/b.py:1 and in .*c.py:1"
    ):
        mini.inlined("from minilib.b import b\nfrom minilib.c import c\n")


def test_circle_of_modules(mini):
    mini.write("minilib/b.py", "from minilib.c import c\n\n\ndef b():\n    return c()\n")
    mini.write("minilib/c.py", "from minilib.b import b\n\n\ndef c():\n    return b()\n")
    with pytest.raises(PublishError, match="in a circle: minilib.b > minilib.c > minilib.b"):
        mini.inlined("from minilib.b import b\n")


def test_no_setup_cell(mini):
    source = mini.source("# %%\nfrom minilib.maths import Gauss  # show\n")
    with pytest.raises(PublishError, match="01_x.py:2: .* no cell tagged `setup`"):
        inline(source, mini.course.library())


def test_unbound_names(mini):
    ok = mini.source("# %%\ndef f():\n    return later\n\n# %%\nlater = 1\ndisplay(f())\n")
    check_names(ok)
    with pytest.raises(PublishError, match="01_x.py:3: `y` is not bound: import or define"):
        check_names(mini.source("# %%\nx = 1\nprint(y)\n"))
    with pytest.raises(PublishError, match="01_x.py:2: `y` is not bound, which only a later cell"):
        check_names(mini.source("# %%\nprint(y)\n\n# %%\ny = 1\n"))


def test_no_import_of_ours_is_left(mini):
    check_imports(mini.source("# %%\nimport torch\n"))
    with pytest.raises(PublishError, match="01_x.py:3: the notebook imports `homework1.oracles`"):
        check_imports(mini.source("# %%\nx = 1\nfrom homework1.oracles import kl\n"))
    hidden = "# %%\n### BEGIN HIDDEN TESTS\nfrom homework1.{} import kl\n### END HIDDEN TESTS\n"
    check_imports(mini.source(hidden.format("oracles")))
    with pytest.raises(PublishError, match="imports `homework1.other`"):
        check_imports(mini.source(hidden.format("other")))
