r"""Wasserstein GANs: the critic's loss, three ways to keep it 1-Lipschitz, and a round of the game.

W1(p, q) = sup over 1-Lipschitz f of E_p f - E_q f (Kantorovich and Rubinstein). A critic returns
real numbers (B,); losses are per example, to minimise.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dgm.tensors import append_dims


def wasserstein_value(f_real: Tensor, f_fake: Tensor) -> Tensor:
    """E_p f - E_q f, (): at most W1 for a 1-Lipschitz critic; Arjovsky et al. (2017), eq. 2."""
    return f_real.mean() - f_fake.mean()


def input_gradient(critic: Callable, x: Tensor) -> Tensor:
    """grad_x f(x) at each example, (B, *D), as part of the graph: losses may train through it."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]


def between(x_real: Tensor, x_fake: Tensor, u: Tensor) -> Tensor:
    """u x_real + (1 - u) x_fake, one u for each *example*; x_* (B, *D), u (B,) in [0, 1]."""
    w = append_dims(u, x_real.ndim)
    return w * x_real + (1 - w) * x_fake


def gradient_penalty(
    critic: Callable, x: Tensor, one_sided: bool = False, bound: float = 1.0
) -> Tensor:
    """(|grad f| - bound)^2 at x, (B,); Gulrajani et al. (2017), eq. 3.

    The norm is over all numbers of one example. `one_sided` punishes norms above the bound only
    (Petzka et al., 2018): a potential need not have slope 1 everywhere.
    """
    excess = input_gradient(critic, x).flatten(1).norm(dim=1) - bound
    return (excess.clamp(min=0) if one_sided else excess).square()


@torch.no_grad()
def clip_weights(critic: nn.Module, c: float) -> None:
    """Every parameter into [-c, c]; Arjovsky et al. (2017), alg. 1. In place."""
    for p in critic.parameters():
        p.clamp_(-c, c)


def critic_loss_gp(
    critic: Callable,
    x_real: Tensor,
    x_fake: Tensor,
    u: Tensor,
    lam: float = 10.0,
    one_sided: bool = False,
) -> Tensor:
    """f(fake) - f(real) + lam times the penalty between them, (B,); Gulrajani et al. (2017), eq. 3.

    x_* (B, *D), the fakes without their graph; u (B,).
    """
    x_fake = x_fake.detach()  # the generator is not trained here
    penalty = gradient_penalty(critic, between(x_real, x_fake, u), one_sided)
    return critic(x_fake) - critic(x_real) + lam * penalty


def lipschitz_bound(critic: nn.Module) -> float:
    """Product of the linear layers' spectral norms: a bound if the activations are 1-Lipschitz.

    By the triangle inequality it is loose; exact only where the singular vectors line up.
    """
    bound = 1.0
    for layer in critic.modules():
        if isinstance(layer, nn.Linear):
            bound *= torch.linalg.matrix_norm(layer.weight.detach(), 2).item()
    return bound
