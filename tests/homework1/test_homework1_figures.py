"""What the grader draws from weights of homework 1: densities, samples, sheets of images."""

import math
import re
import tomllib

import torch
from homework1_master import HOMEWORK

from homework1.oracles import figures


class Linear:
    """Networks of a flow as linear maps of the masked point: (8, 4, 2) weights, (8, 4) biases."""

    def __init__(self, scale):
        rng = torch.Generator().manual_seed(0)
        self.weight = scale * torch.randn(8, 4, 2, generator=rng)
        self.bias = scale * torch.randn(8, 4, generator=rng)

    def call(self, method, layer, x):
        assert method == "outputs" and x.dtype == torch.float32
        return x @ self.weight[layer].T + self.bias[layer]


def plane(lim, n):
    """Centres of an n x n grid on [-lim, lim]^2, (n * n, 2), and the area of a cell."""
    ticks = (torch.arange(n) + 0.5) / n * 2 * lim - lim
    return torch.cartesian_prod(ticks, ticks), (2 * lim / n) ** 2


def quarter(x):
    """0 to 3: right of 0.5, above 0.2."""
    return 2 * (x[:, 0] > 0.5).int() + (x[:, 1] > 0.2).int()


def test_a_flow_that_does_nothing_has_the_density_of_its_base():
    """Oracle: the logistic density written out."""
    x, _ = plane(3, 7)
    expected = (-x.double() - 2 * torch.log1p((-x.double()).exp())).sum(-1).exp()
    torch.testing.assert_close(figures.flow_density(Linear(0), x), expected)


def test_density_and_samples_of_a_flow_belong_together():
    """Shares of the samples in four quadrants against integrals of the density, six SE."""
    nets = Linear(0.15)
    x, area = plane(40, 1000)
    p = figures.flow_density(nets, x) * area
    assert abs(float(p.sum()) - 1) < 2e-3
    drawn = figures.flow_samples(nets, torch.Generator().manual_seed(1))
    for quadrant in range(4):
        share = float(p[quarter(x) == quadrant].sum())
        seen = float((quarter(drawn) == quadrant).double().mean())
        error = math.sqrt(share * (1 - share) / len(drawn))
        assert share > 0.05 and abs(share - seen) < 6 * error + 2e-3, quadrant


def test_the_ring_has_mass_one_at_its_radius():
    """Oracle: an integral over a fine grid; the mean radius is 2."""
    x, area = plane(4, 800)
    p = figures.ring_density(x) * area
    assert abs(float(p.sum()) - 1) < 1e-4
    assert abs(float((p * x.double().norm(dim=-1)).sum()) - 2) < 1e-3


def test_pictures_stand_upright():
    """x_1 to the right and x_2 upwards, in densities and in histograms; points outside are out."""
    x, _ = plane(figures.LIM, figures.CELLS)
    corner = figures.upright((x[:, 0] > 2.9) & (x[:, 1] > 2.9))
    assert corner[0, -1] and not corner[-1, -1] and not corner[0, 0]
    points = torch.tensor([[2.99, 2.99], [-2.99, -2.99], [9.0, 0.0], [float("nan"), 0.0]])
    counts = figures.histogram(points)
    assert (counts[0, -1], counts[-1, 0], counts.sum()) == (1, 1, 2)


def test_a_sheet_goes_row_by_row():
    """Image 3 of a sheet of two columns stands in the second row on the right."""
    x = torch.arange(6.0)[:, None].expand(6, 784)
    sheet = figures.tiled(x, 2)
    assert sheet.shape == (84, 56)
    assert sheet[::28, ::28].tolist() == [[0, 1], [2, 3], [4, 5]]


class Spy:
    """In the network's place: random means as codes, black images, and what it was asked."""

    def __init__(self, rng):
        self.rng, self.seen = rng, {}

    def call(self, method, x):
        self.seen[method] = x
        mu = 10 * torch.randn(10, 40, generator=self.rng)
        return (mu, mu) if method == "encode" else torch.full((len(x), 784), -100.0)


def sheets_of(spy, images):
    """The sheets, and the codes that were decoded: from the prior, means, paths."""
    trained = lambda *asked: {("homework1_vae_digits.safetensors", "make_vae"): spy}[asked]
    make = lambda name: torch.Generator().manual_seed(3)
    sheets = figures.vae_sheets(trained, lambda n, shifted: images[:n], lambda: "digits", make)
    return sheets, spy.seen["decode"].split([64, 10, 27])


def test_samples_reconstructions_and_paths_are_decoded_from_the_right_codes():
    """Prior draws, means of the last images, and great circles between two means."""
    rng = torch.Generator().manual_seed(2)
    spy, images = Spy(rng), torch.rand(290, 1, 28, 28, generator=rng).round()
    sheets, (draws, mu, paths) = sheets_of(spy, images)
    assert [tuple(s.shape) for _, s in sheets] == [(224, 224), (56, 280), (84, 252)]
    last = images[-10:].flatten(1)
    torch.testing.assert_close(spy.seen["encode"], last)
    torch.testing.assert_close(sheets[1][1][:28], figures.tiled(last, 10))
    assert abs(float(draws.mean())) < 6 / math.sqrt(draws.numel())
    assert abs(float(draws.var()) - 1) < 6 * math.sqrt(2 / draws.numel())
    assert float(mu.var()) > 50
    for path, (i, j) in zip(paths.split(9), ((0, 1), (2, 4), (3, 8))):
        torch.testing.assert_close(path[[0, -1]], mu[[i, j]])
        assert float(path.norm(dim=-1).min()) > 0.9 * float(min(mu[i].norm(), mu[j].norm()))


def test_figures_and_reports_name_cells_of_the_master():
    """Figures stand in cells that a person marks; a report's patterns fit what is printed."""
    text = (HOMEWORK / "homework1.py").read_text(encoding="utf-8")
    for name in figures.FIGURES:
        (line,) = [x for x in text.splitlines() if f'"grade_id": "{name}"' in x]
        assert '"grade": true, "solution": true' in line
    reports = tomllib.loads((HOMEWORK / "oracles/reports.toml").read_text(encoding="utf-8"))
    said = """KL(p || p_theta) = 0.038 +- 0.004 nats on fresh points
KL(p || p_theta) = 0.038 nats, standard error 0.004
ring: exact -1.949, ELBO -0.900, k = 100 -0.038 (standard error 0.010), rate 4.1 nats
pillow: exact -2.500, ELBO -0.001, k = 100 +0.038 (standard error 0.001), rate 0.002 nats
exact minus bound: 0.038 nats, standard error 0.004
rate 0.0010 nats, exact minus bound 0.0380 nats
{'-ELBO': 0.038, 'rate': 25.9, '-bound, k = 500': 85.9}
mnist: -bound 88.90 nats (k = 50), -ELBO 92.00, unshifted 0.038"""
    for report in reports["report"]:
        assert f'"grade_id": "{report["test"]}"' in text
        for pattern in (report["claimed"], report["measured"]):
            assert {abs(float(v)) for v in re.findall(pattern, said)} == {0.038}, pattern
