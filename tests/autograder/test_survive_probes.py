"""The spy's probes are real ones, and answers of odd kinds are told by name."""

import json
import os
import subprocess
import sys

import pytest
from boxed import needs_sandbox
from probes import MARK, probe_code
from tiny import answer, locked, run, scores, shown
from zoo_keeper import Listeners

from autograder.judge.case import Budget

ALL = {
    "gradebook",
    "solutions",
    "others",
    "secret",
    "loopback",
    "datagram",
    "names",
    "home",
    "packages",
    "beside",
    "system",
}


def test_probes_work_outside(place, root, desk):
    """Where nothing guards, they succeed: this very code, no student's, on a throwaway course.

    Network cards are left out: the machine of this test may itself have none.
    """
    from small_homework import solved

    desk.hand_in("ada", solved())
    for name in ("home", "packages"):
        (root / name).mkdir()
    ears = Listeners()
    code = probe_code(root, *ears.ports) + "\nimport json; print(json.dumps(tries()))"
    more = {"SPY_HOME": str(root / "home"), "SPY_PACKAGES": str(root / "packages")}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=os.environ | more, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) - {"cards"} == ALL
    assert sorted(ears.calls) == ["tcp", "udp"]
    assert (root / MARK).exists() and (root / "packages" / MARK).exists()


ODD = {
    "nan": ("return 2 * x + float('nan')", "values differ"),
    "single": ("return (2 * x).float()", "torch.float32"),
    "device": ("return (2 * x).to('meta')", "meta"),
    "sparse": ("return (2 * x).to_sparse()", "sparse"),
    "broadcast": ("return (2 * x)[:1]", "shape (1, 3)"),
}
FINE = {
    "view": ("return torch.cat([x, x]).reshape(2, 4, 3).sum(0).T.contiguous().T", ""),
    "expanded": ("return (2 * x)[None].expand(2, 4, 3)[1]", ""),
    "inplace": ("x *= 2\n    return x", "your function changed its argument x in place"),
}
TEST = """
x = torch.randn(4, 3, generator=test_rng("x"), dtype=torch.float64)
check({name}(x), 2 * x)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One notebook with a function of each kind."""
    cells = []
    for name, (body, _) in {**ODD, **FINE}.items():
        cells.append(answer(f"def {name}(x):\n    {body}", name))
        cells.append(locked(f"{name}-test", TEST.format(name=name), tests=[name]))
    return run(cells, tmp_path_factory.mktemp("odd"), budget=Budget(call=5))


class TestReal:
    """In the real sandbox."""

    pytestmark = needs_sandbox()

    def test_odd_tensors_are_named(self, done):
        """NaN, number type, device, layout, shape: no points, and the message says what came."""
        found = scores(done[1])
        for name, (_, says) in ODD.items():
            assert found[f"{name}-test"] == 0 and says in shown(done[1], f"{name}-test"), name

    def test_odd_but_right_tensors_count(self, done):
        """Views and expanded tensors; a change in place is told and costs nothing."""
        found = scores(done[1])
        for name, (_, says) in FINE.items():
            assert found[f"{name}-test"] == 2.0 and says in shown(done[1], f"{name}-test"), name
