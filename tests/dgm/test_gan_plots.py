"""Figures of the lecture on GANs: what is drawn where."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from dgm.gan import non_saturating_loss, saturating_loss
from dgm.gan_plots import belief_on_plane, draw_belief, draw_game_on_line, draw_push, pushes


def test_belief_has_its_rows_along_the_second_axis():
    """Oracle: sigmoid(x_1 - 10 x_2) at the pixel centres."""
    got = belief_on_plane(lambda x: x[:, 0] - 10 * x[:, 1], lim=2.0, n=4)
    at = torch.tensor([-1.5, -0.5, 0.5, 1.5])
    torch.testing.assert_close(got, (at[None] - 10 * at[:, None]).sigmoid())


def test_pushes_go_up_the_logit():
    """Oracle: for the logit w.x the push is (1 - D) w, or D w for the saturating loss."""
    x, w = torch.randn(5, 2, dtype=torch.float64), torch.tensor([2.0, -1.0]).double()
    d = (x @ w).sigmoid()[:, None]
    torch.testing.assert_close(pushes(lambda v: v @ w, x, non_saturating_loss), (1 - d) * w)
    torch.testing.assert_close(pushes(lambda v: v @ w, x, saturating_loss), d * w)


def test_game_in_the_plane():
    """The picture holds the belief, all particles, and arrows of which the longest is `length`."""
    fig, ax = plt.subplots()
    x, push = torch.randn(9, 2), torch.tensor([[3.0, 4.0]]).repeat(9, 1)
    draw_push(draw_belief(ax, torch.zeros(4, 4), lim=2.0), x, push, shown=3, length=0.5)
    arrows, dots = ax.collections[1], ax.collections[0]
    assert len(dots.get_offsets()) == 9 and ax.get_xlim() == (-2, 2)
    np.testing.assert_allclose(arrows.U, 0.3, rtol=1e-5)
    np.testing.assert_allclose(arrows.V, 0.4, rtol=1e-5)
    assert len(arrows.U) == 3
    assert ax.images[0].get_clim() == (0, 1) and ax.images[0].origin == "lower"
    plt.close(fig)


def test_game_on_the_line():
    """Oracle: the dotted line is p / (p + q), zero where neither is."""
    fig, ax = plt.subplots()
    at, p = torch.linspace(0, 1, 5), torch.tensor([0.0, 1.0, 2.0, 3.0, 1.0])
    q = torch.tensor([0.0, 1.0, 1.0, 1.0, 3.0])
    draw_game_on_line(ax, at, p, q, torch.full((5,), 0.5))
    torch.testing.assert_close(
        torch.tensor(ax.lines[1].get_ydata()), torch.tensor([0, 0.5, 2 / 3, 0.75, 0.25])
    )
    assert (ax.lines[0].get_ydata() == 0.5).all()
    plt.close(fig)
