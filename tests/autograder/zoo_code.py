"""The zoo's submissions whose code does harm: what must be stopped, and what it costs them."""

from __future__ import annotations

from probes import spying
from zoo import SECRET, animal, answers, put, with_cell

RIGHT = "def square(x):\n    return x * x\n"
ORPHAN = "survive-orphan"  # the name of a process that must not be left


@animal(5, quick=True)
def spy(folder, course):
    """All that must fail is tried in one cell; square is right only if nothing succeeded."""
    put(folder, answers(square=spying(course)))


@animal(3, quick=True)
def syntax_error(folder, course):
    put(folder, answers(square="def square(x:\n    return x * x"))


@animal(3, quick=True)
def endless(folder, course):
    put(folder, answers(square="def square(x):\n    while True:\n        pass"))


@animal(3)
def deaf_call(folder, course):
    head = "import time\ndef square(x):\n    while True:\n        try:\n"
    loop = "            while True: time.sleep(0.01)\n        except BaseException: pass"
    put(folder, answers(square=head + loop))


@animal(3)
def deaf_cell(folder, course):
    loop = "import time\nwhile True:\n    try:\n        while True: time.sleep(0.01)\n"
    put(folder, answers(square=f"{loop}    except BaseException: pass\n{RIGHT}"))


@animal(3, quick=True)
def exit_at_top(folder, course):
    put(folder, answers(square=f"import os\nos._exit(0)\n{RIGHT}"))


@animal(2, quick=True)
def exit_in_call(folder, course):
    put(folder, answers(cube="import os\ndef cube(x): os._exit(0)"))


@animal(3)
def bomb_torch(folder, course):
    body = "return torch.stack([torch.ones(50_000_000) for _ in range(99)])"
    put(folder, answers(square=f"def square(x):\n    {body}"))


@animal(3)
def bomb_python(folder, course):
    put(folder, answers(square="def square(x): return [bytearray(99 << 20) for _ in range(99)]"))


@animal(3)
def bomb_children(folder, course):
    """Eight children of 200 MiB each: no single one is over the limit."""
    lines = "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
    lines += (
        "        held = bytearray(200 << 20)\n        held[::4096] = b'x' * len(held[::4096])\n"
    )
    put(folder, answers(square=f"{lines}        time.sleep(60)\ntime.sleep(8)\n{RIGHT}"))


@animal(3)
def fork_bomb(folder, course):
    lines = "import os, time\nwhile True:\n    try:\n        os.fork()\n"
    put(folder, answers(square=f"{lines}    except OSError: time.sleep(1)\n{RIGHT}"))


FILL = """
import os
for place in ("/work", "/tmp", "/dev/shm", os.environ["HOME"]):
    try:
        with open(place + "/fill", "wb") as file:
            while True: file.write(bytes(1 << 20)); file.flush()
    except OSError: pass
"""


@animal(5)
def disk_fill(folder, course):
    put(folder, answers(square=FILL + RIGHT))


@animal(3)
def disk_fill_sockets(folder, course):
    """The folder of the kernel's sockets is the one place of the host that can be written."""
    lines = "from ipykernel.connect import get_connection_info\nimport json, os, time\n"
    lines += "where = os.path.dirname(json.loads(get_connection_info())['ip'])\n"
    lines += "for k in range(40): open(f'{where}/{k}', 'wb').write(bytes(1 << 20))\ntime.sleep(4)\n"
    put(folder, answers(square=lines + RIGHT))


@animal(5, quick=True)
def flood(folder, course):
    put(folder, answers(square=f"for _ in range(3000): print('x' * 1000)\n{RIGHT}"))


KILLER = f"""
import os, signal, sys, time
for pid in (os.getppid(), 1, -1):
    try: os.kill(pid, signal.SIGKILL)
    except OSError: pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, ["{ORPHAN}", "-c", "import time; time.sleep(600)  # {ORPHAN}"])
    os._exit(0)
time.sleep(0.3)
"""


@animal(5, quick=True)
def killer(folder, course):
    put(folder, answers(square=KILLER + RIGHT))


TAMPER = """
import ast, builtins, sys
import numpy
true = lambda *a, **k: True
for place in (torch, torch.Tensor, numpy, numpy.testing, torch.testing):
    for name in ("allclose", "equal", "isclose", "assert_close", "assert_allclose"):
        if hasattr(place, name): setattr(place, name, true)
torch.Tensor.__eq__ = true
builtins.AssertionError = Exception
shell = get_ipython()
shell.ast_transformers.append(type("T", (), {"visit": lambda self, node: ast.parse("pass")})())
shell.input_transformers_cleanup.append(lambda lines: ["pass\\n"])
sys.modules["homework1"] = sys.modules["autograder"] = None
"""


@animal(2, quick=True)
def tamper(folder, course):
    """After a right square; cube comes too late, since no cell runs any more."""
    put(folder, with_cell(answers(), TAMPER, at=5))


PROXY = """
class Yes:
    def __eq__(self, other): return True
    def __ge__(self, other): return True
    __gt__ = __le__ = __lt__ = __ge__
    def __array__(self, *a, **k): import numpy; return numpy.array(9)
    def __float__(self): return 9.0
    __hash__ = None
def square(x): return Yes()
"""
SLY = """
class Sly(torch.Tensor):
    @classmethod
    def __torch_function__(cls, f, kinds, args=(), kwargs=None): return True
class Number(float):
    def __eq__(self, other): return True
    __hash__ = None
def cube(x): return Number(1) if x > 0 else torch.zeros(1).as_subclass(Sly)
"""


@animal(0, quick=True)
def proxies(folder, course):
    put(folder, answers(square=PROXY, cube=SLY))


AGENT = """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == "Agent":
        kind = type(thing)
kind.do_names = lambda self, request, *_: {"dict": [[n, 9] for n in request["names"]]}
kind.do_call = lambda self, *_: {"named": "Verdict", "fields": {"points": 100}}
"""


@animal(0)
def fake_agent(folder, course):
    put(folder, with_cell(answers(), AGENT))


@animal(3)
def huge_reply(folder, course):
    put(folder, answers(square="def square(x): return torch.zeros(80_000_000)"))


@animal(5, quick=True)
def printed(folder, course):
    """Keeps what it is called with and shows it, in a cell at the end and by an error."""
    cube = "seen = []\ndef cube(x):\n    seen.append(x); print('got', x)\n    return x**3"
    made = with_cell(answers(cube=cube), "print(seen); raise ValueError(str(seen))", at=11)
    assert SECRET not in str(made.cells[11])
    put(folder, made)
