"""What homework 2 releases for the plane, its scoring of weights, the pictures of the judge."""

import contextlib
import io
import math

import homework1_master as master
import pytest
import torch
from scipy import stats

from homework2.oracles import figures

HOMEWORK = master.ROOT / "homework2"
CELLS = master.load_master(HOMEWORK / "homework2.py")
WEIGHTS = HOMEWORK / "verify" / "weights"


@pytest.fixture(scope="module")
def space():
    """The name space of the reference."""
    return master.start(CELLS)


def points(space: dict, grade_id: str) -> float:
    """Points that a test cell gives, its last expression or all of them."""
    (cell,) = [c for c in CELLS if c.grade_id == grade_id]
    *body, last = cell.source.replace("### END HIDDEN TESTS", "").strip().rsplit("\n", 1)
    here = dict(space)
    with contextlib.redirect_stdout(io.StringIO()):
        exec("\n".join(body), here)
        value = eval(last, here)
    return cell.points if value is None else value


class Fake:
    """Weights whose `forward` is a function of its inputs."""

    def __init__(self, forward):
        self.forward = forward

    def call(self, method, *args):
        assert method == "forward"
        return self.forward(*args)


def test_petals_have_the_stated_shares_and_widths(space):
    """Shares of 40,000 draws within six standard errors, widths by a chi-square."""
    law = space["five_petals"]()
    x = law.sample(40_000, torch.Generator().manual_seed(0))
    k = torch.cdist(x, law.mean).argmin(1)
    for petal, share in enumerate((0.30, 0.25, 0.20, 0.15, 0.10)):
        here = x[k == petal]
        assert abs(len(here) / 40_000 - share) < 6 * math.sqrt(share * (1 - share) / 40_000)
        squares = float((here - law.mean[petal]).square().sum()) / 0.2**2
        assert abs(squares - 2 * len(here)) < 6 * math.sqrt(4 * len(here))
    assert float(law.mean.norm(dim=1).sub(2).abs().max()) < 1e-6


def test_petal_shares_count_what_lies_within_three_widths(space):
    """Four points by hand: two at a petal, one just outside, one far away."""
    centre = space["five_petals"]().mean[1]
    x = torch.stack([centre, centre + torch.tensor([0.59, 0.0]), centre + 0.61, 0 * centre])
    assert space["petal_shares"](x).tolist() == [0, 0.5, 0, 0, 0]


def test_sliced_w1_of_shifted_points_is_the_mean_of_a_cosine(space):
    """A shift of length 3 moves a projection by 3 |cos|, on average 6 / pi."""
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1)).double()
    found = space["sliced_w1"](x, x.flip(0) + torch.tensor([0.0, 3.0]))
    assert abs(found - 6 / math.pi) < 1e-3


def test_toy_networks_are_what_the_oracles_take_them_for(space):
    """Both against numpy's functions at one point."""
    rng = torch.Generator().manual_seed(2)
    w, bias, x = (torch.randn(*s, generator=rng).double() for s in [(4, 3), (4,), (1, 3)])
    inner = (w @ x[0] + bias).numpy()
    critic = space["ToyCritic"](w, bias, bias)(x[:, :, None])
    expected = sum(b * math.log1p(math.exp(v)) for b, v in zip(bias.tolist(), inner))
    assert abs(float(critic[0]) - expected) < 1e-9
    net = space["ToyNet"](w, bias, w.T, torch.tensor(0.5).double())
    got = net(x, torch.tensor([0.25]).double(), x)[0]
    plain = [sum(w[h, d].item() * math.tanh(v) for h, v in enumerate(inner)) for d in range(3)]
    want = [(p - 0.5 * v + v) * 1.25 for p, v in zip(plain, x[0].tolist())]
    torch.testing.assert_close(got, torch.tensor(want).double())


@pytest.mark.parametrize(
    ("task", "old", "new"),
    [
        ("p2-annealed", "x = x + step * model", "x += step * model"),
        ("p4-solve", "half = x + h / 2 * field", "half = x; half += h / 2 * field"),
    ],
)
def test_a_function_that_writes_into_its_input_is_told_so(space, task, old, new):
    """The message names the argument and the slip, not numbers that the slip has spoilt."""
    here, change = dict(space), {"name": "", "task": task, "old": old, "new": new}
    exec(master.mutate(CELLS, change), here)
    error = master.run_tests(CELLS, here, {f"{task}-test"})[f"{task}-test"]
    assert f"{here[task_name(task)].__name__}: argument 2 was changed in place" in error


def task_name(task: str) -> str:
    """Name of the function that the task asks for."""
    (test,) = [c for c in CELLS if c.grade_id == f"{task}-test"]
    return test.course["tests"][0]


def test_untouched_hands_back_the_value_and_lets_others_pass(space):
    """Arguments that are no tensors, a new tensor, and one that is only looked at."""
    x = torch.ones(2)
    assert space["untouched"]("f", lambda f, v, n: f(v) + n, torch.exp, x, 1).sum() > 6
    with pytest.raises(AssertionError, match="argument 1"):
        space["untouched"]("f", torch.Tensor.exp_, x)


@pytest.mark.parametrize(
    ("t", "came"),
    [(0.5, "a float"), (torch.tensor(0.5), "shape ()"), (torch.ones(3, 1), "shape (3, 1)")],
)
def test_a_network_says_what_time_it_wants(space, t, came):
    """Kills: an index error from inside the set-up cell."""
    net = space["ToyNet"](torch.ones(4, 2), torch.ones(4), torch.ones(2, 4), torch.ones(()))
    with pytest.raises(AssertionError, match=r"shape \(3,\), got") as caught:
        net(torch.ones(3, 2), t)
    assert came in str(caught.value)
    assert net(torch.ones(3, 2), torch.ones(3)).shape == (3, 2)


def test_toy_network_treats_two_axes_row_by_row(space):
    """Images of the hidden test of 4.2: each row by itself, with its time."""
    rng = torch.Generator().manual_seed(11)
    w, bias, out, x = (torch.randn(*s, generator=rng) for s in [(4, 3), (4,), (3, 4), (2, 5, 3)])
    net, t = space["ToyNet"](w, bias, out, torch.tensor(0.5)), torch.tensor([0.2, 0.9])
    rows = torch.stack([net(x[:, r], t, x[:, r]) for r in range(5)], dim=1)
    torch.testing.assert_close(net(x, t, x), rows)


def test_reference_weights_earn_every_point(space, monkeypatch):
    """All three scored tasks of the plane."""
    monkeypatch.chdir(WEIGHTS)
    full = {"p1-wgan-test": 1, "p1-wgan-hidden": 2, "p4-weights-hidden": 1}
    assert {task: points(space, task) for task in full} == full


def test_the_best_gaussian_earns_nothing(space):
    """Mean and covariance right, no petals."""
    x = space["five_petals"]().sample(20_000, torch.Generator().manual_seed(3))
    root = torch.linalg.cholesky(x.T.cov())
    gauss = {**space, "trained": lambda file: Fake(lambda z: x.mean(0) + z @ root.T)}
    end = Fake(lambda x_t, t: x_t / (1 - t[:, None]).clamp(min=0.5))  # keeps the noise as it is
    with pytest.raises(AssertionError, match="less than half"):
        points(gauss, "p1-wgan-test")
    with pytest.raises(AssertionError, match="above every limit"):
        points(gauss, "p1-wgan-hidden")
    with pytest.raises(AssertionError, match="above every limit"):
        points({**space, "trained": lambda file: end}, "p4-weights-hidden")


def test_a_generator_that_drops_the_smallest_petal_loses_both_tests(space):
    """Four petals of five, perfect otherwise."""
    law = space["five_petals"]()
    four = law._replace(log_share=law.log_share - torch.tensor([0, 0, 0, 0, math.inf]))
    draw = lambda z: four.sample(len(z), torch.Generator().manual_seed(4))
    here = {**space, "trained": lambda file: Fake(draw)}
    with pytest.raises(AssertionError, match="less than half"):
        points(here, "p1-wgan-test")
    assert (
        points(
            {
                **space,
                "trained": lambda file: Fake(
                    lambda z: law.sample(len(z), torch.Generator().manual_seed(5))
                ),
            },
            "p1-wgan-hidden",
        )
        == 2
    )


def test_weights_that_are_nan_are_refused(space):
    """NaN keeps every limit if nobody looks."""
    here = {**space, "trained": lambda file: Fake(lambda *a: torch.full((len(a[0]), 2), math.nan))}
    for task in ("p1-wgan-test", "p1-wgan-hidden", "p4-weights-hidden"):
        with pytest.raises(AssertionError):
            points(here, task)


def test_pictures_show_the_law_and_the_network_on_one_scale():
    """A network that is the law: two panels of the same counts within noise, upright."""
    ours = Fake(lambda z: figures.petals(len(z), torch.Generator().manual_seed(6)))
    trained = lambda *asked: {(figures.WGAN, "make_generator"): ours}[asked]
    make = lambda name: torch.Generator().manual_seed(7)
    ((words, picture),) = figures.wgan_sheets(trained, None, None, make)
    assert "generator" in words and picture.shape == (120, 244)
    left, right = 1 - picture[:, :120], 1 - picture[:, 124:]
    assert left.max() == 1 and 0.8 < float(right.sum() / left.sum()) < 1.2
    assert (
        float(left[:, 60:].sum() / left.sum()) > 0.6
    )  # the petals at 0 and 72 degrees: 0.55 + ...
    corner = figures.histogram(torch.tensor([[2.99, 2.99], [9.0, 0.0], [math.nan, 0.0]]))
    assert corner[0, -1] == 1 and corner.sum() == 1


def test_the_picture_of_the_flow_takes_one_step():
    """A network that always predicts one place: half way there, and on at that pace."""
    place = torch.tensor([1.0, -1.0])
    net = Fake(lambda x, t: place.expand(len(x), 2))
    make = lambda name: torch.Generator().manual_seed(8)
    end = lambda x, t: net.call("forward", x, t)
    noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(9))
    half = (noise + place) / 2  # where the first velocity leads in half the time
    torch.testing.assert_close(figures.one_step(end, noise), noise + 2 * (place - half))
    ((_, picture),) = figures.flow_sheets(lambda *asked: net, None, None, make)
    assert picture.shape == (120, 244)


def test_oracle_of_the_line_agrees_with_scipy():
    """Two routes that share nothing."""
    from homework2.oracles import work_on_the_line

    rng = torch.Generator().manual_seed(10)
    x, y = torch.randn(7, generator=rng).double(), torch.randn(5, generator=rng).double()
    a, b = torch.rand(7, generator=rng).double(), torch.rand(5, generator=rng).double()
    expected = stats.wasserstein_distance(x, y, a, b)
    assert abs(float(work_on_the_line(x, a / a.sum(), y, b / b.sum())) - expected) < 1e-12


def test_points_are_those_that_the_statement_prints():
    """Problems 1, 2 and 4: 8 visible, 5 hidden each; assembly tasks hold one point."""
    for problem in ("p1-", "p2-", "p4-"):
        tests = [c for c in CELLS if c.is_test and c.grade_id.startswith(problem)]
        hidden = sum(c.points for c in tests if "BEGIN HIDDEN TESTS" in c.source)
        assert (sum(c.points for c in tests) - hidden, hidden) == (8, 5)
        most = 1 if problem == "p4-" else 0
        assert sum(c.points for c in tests if c.course.get("depends")) == most
