"""Oracles: integrals on a grid, a linear decoder's Gaussian, direct recomputation."""

import matplotlib
import torch
from matplotlib.figure import Figure
from torch.distributions import MultivariateNormal

from dgm.vae import VAE, GaussianVAE, elbo, iw_bound
from dgm.vae_plots import draw_codes, draw_field, draw_gaussians, draw_posterior, draw_tradeoff
from dgm.vae_tools import (
    ToyFlow,
    grid_log_density,
    mean_bounds,
    mistaken_reports,
    plane_density,
)

matplotlib.use("Agg")


def seeded(seed: int = 0) -> torch.Generator:
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def test_toy_flow_is_normalised():
    """Oracle: its density sums to one on a fine grid; a wrong log-determinant does not."""
    seeded()
    flow = ToyFlow(hidden=8)
    for p in flow.parameters():
        p.data.mul_(1.5)  # far from the identity
    axis = torch.linspace(-12, 12, 601)
    with torch.no_grad():
        mass = (
            flow.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
        )
    assert abs(mass.item() - 1) < 5e-3


def test_grid_log_density():
    """Oracle: a decoder W z + b gives N(b, W W' + s2 I) exactly."""
    seeded()
    vae = GaussianVAE(2, 2, (4,))
    vae.decoder = torch.nn.Linear(2, 2)
    vae.decoder.weight.data = torch.tensor([[0.8, 0.3], [-0.2, 0.5]])
    vae.logvar_x.data.fill_(-2.0)
    W, b = vae.decoder.weight.data, vae.decoder.bias.data
    exact = MultivariateNormal(b, W @ W.T + torch.tensor(-2.0).exp() * torch.eye(2))
    x = exact.sample((40,))
    got = grid_log_density(vae, x, 201, lim=6.0)
    torch.testing.assert_close(got, exact.log_prob(x), rtol=0, atol=1e-4)


def test_plane_density():
    """Oracle: the point-by-point sum, for a decoder that treats x1 and x2 differently."""
    seeded()
    vae = GaussianVAE(2, 2, (6,))
    vae.decoder[-1].bias.data = torch.tensor([0.5, -1.0])
    vae.logvar_x.data.fill_(-1.0)
    axis = torch.linspace(-2, 2, 7)
    expected = grid_log_density(vae, torch.cartesian_prod(axis, axis), 61).exp()
    torch.testing.assert_close(plane_density(vae, axis, 61), expected)


def test_mean_bounds():
    """Oracle: iw_bound on each group of S rows, by hand; the rows are drawn in chunks."""
    rng = seeded()
    chunks = [torch.randn(4, 3, generator=rng) for _ in range(3)]
    feed = iter(chunks)
    got = mean_bounds(lambda: next(feed), (1, 2, 6, 12), 3)
    rows = torch.cat(chunks)
    for S in (1, 2, 6, 12):
        by_hand = torch.stack([iw_bound(rows[i : i + S]) for i in range(0, 12, S)]).mean().item()
        assert abs(got[S] - by_hand) < 1e-5


def test_mistaken_reports():
    """The honest entry is the ELBO; each mistake recomputed from the terms of `elbo`."""
    rng = seeded()
    vae = VAE(12, 3, (8,))
    grey = torch.rand(5, 12, generator=rng)
    x, eps = (grey > 0.5).float(), torch.randn(5, 3, generator=rng)
    told = mistaken_reports(vae, x, grey, eps)
    nelbo = lambda e, enc, v: (lambda t: (t.kl - t.recon).mean())(elbo(v, enc, vae.decode, e))
    terms = elbo(x, vae.encode, vae.decode, eps)
    mu, logvar = vae.encode(x)
    wrong = elbo(x, lambda v: (mu, 2 * logvar), vae.decode, eps).recon  # std = exp(logvar)
    expected = {
        "honest": nelbo(eps, vae.encode, x),
        "z = mean": nelbo(0 * eps, vae.encode, x),
        "std = exp(logvar)": (terms.kl - wrong).mean(),
        "KL.mean over K": (terms.kl / 3 - terms.recon).mean(),
        "grey-level BCE": nelbo(eps, vae.encode, grey),
    }
    assert told.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(told[name] - value.item()) < 1e-4, name


def test_drawings_put_things_where_they_are():
    """Ellipses at one and two std, the field's axes, a mark beside every point."""
    ax = Figure().subplots()
    draw_gaussians(ax, torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.25]]))
    assert [(tuple(p.center), p.width, p.height) for p in ax.patches] == [
        ((1.0, 2.0), 1.0, 0.5),
        ((1.0, 2.0), 2.0, 1.0),
    ]
    axis = torch.linspace(-3, 3, 5)
    x1 = torch.cartesian_prod(axis, axis)[:, 0]
    drawn = draw_field(Figure().subplots(), x1).images[0].get_array()
    assert (drawn[0] == axis.numpy()).all()  # x1 grows along a row of the picture
    ax = draw_tradeoff(Figure().subplots(), [(0, 1), (2, 3)], ["a", "b"])
    assert [(t.xy, t.get_text()) for t in ax.texts] == [((0, 1), "a"), ((2, 3), "b")]
    ax = draw_codes(Figure().subplots(), torch.rand(6, 2), torch.arange(6), torch.zeros(2, 2))
    assert [len(c.get_offsets()) for c in ax.collections] == [6, 2]
    density = torch.zeros(5, 5)
    density[4, 2] = 0.5  # at z1 = 3, z2 = 0
    ax = draw_posterior(Figure().subplots(), axis, density, torch.zeros(1, 2), torch.ones(1, 2))
    outline = max((path for c in ax.collections for path in c.get_paths()), key=lambda p: len(p))
    assert outline.vertices[:, 0].mean() > 1.5 and abs(outline.vertices[:, 1].mean()) < 0.5
