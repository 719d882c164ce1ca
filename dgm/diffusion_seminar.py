r"""What the seminar on diffusion models asks for: small functions, each with an oracle.

Levels as in dgm.diffusion: alpha_bar (T,), t = 0 the first *noisy* level. Samplers here take a step
step(x_t, eps_hat, ab_t, ab_s, noise) from level t to the cleaner level s, ab_s = 1 for the data.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from dgm.diffusion import Moments
from dgm.tensors import append_dims


class ChainLaw(NamedTuple):
    """q(x_t | x_0) = N(signal_t x_0, var_t I) at every level."""

    signal: Tensor  # (T,)
    var: Tensor  # (T,)


def chain_law(a: Tensor, b: Tensor) -> ChainLaw:
    """The law of every level of x_t = a_t x_{t-1} + b_t eps_t, eps_t ~ N(0, I) independent.

    a, b (T,), any real numbers: entry 0 leads from the data to the first noisy level.
    """
    var = [b[0] ** 2]
    for a_t, b_t in zip(a[1:], b[1:]):
        var.append(a_t**2 * var[-1] + b_t**2)
    return ChainLaw(a.cumprod(0), torch.stack(var))


class RateParts(NamedTuple):
    """E KL(q(x_t | x_0) || N(0, 1)) in two parts, nats per coordinate."""

    info: Tensor  # mutual information of x_0 and x_t
    gap: Tensor  # KL(q(x_t) || N(0, 1)), x_0 integrated out


def rate_parts(ab: Tensor, var: float) -> RateParts:
    """Both parts of the rate for data x_0 ~ N(0, var), x_t = sqrt(ab) x_0 + sqrt(1 - ab) eps.

    ab in [0, 1), any shape; var > 0. Returns RateParts, each of the shape of ab.
    """
    total = ab * var + 1 - ab  # variance of x_t
    info = 0.5 * (total / (1 - ab)).log()
    return RateParts(info, 0.5 * (total - 1 - total.log()))


def reverse_law(x_t: Tensor, ab_t: Tensor, ab_s: Tensor, mean: Tensor, var: float) -> Moments:
    """q(x_s | x_t), s before t, when the data are N(mean, var I): mean (B, D), variance ().

    x_t (B, D); 0 <= ab_t < ab_s <= 1, (); mean (B, D) or (D,); var >= 0, 0 means x_0 = mean.
    """
    alpha = ab_t / ab_s
    var_s, var_t = (ab * var + 1 - ab for ab in (ab_s, ab_t))
    gain = alpha.sqrt() * var_s / var_t  # Cov(x_s, x_t) / Var(x_t)
    mean_s = ab_s.sqrt() * mean + gain * (x_t - ab_t.sqrt() * mean)
    return Moments(mean_s, var_s - gain * alpha.sqrt() * var_s)


def chain_log_weight(
    x: Tensor, zs: Sequence[Tensor], beta: Tensor, nets: Sequence[Callable], decode: Callable
) -> Tensor:
    """log p(x, z_0 .. z_{T-1}) - log q(z_0 .. z_{T-1} | x), nats, (B,); its mean is the ELBO.

    The encoder is fixed: z_t ~ N(sqrt(1 - beta_t) z_{t-1}, beta_t I), before z_0 stands x. The
    prior of z_{T-1} is N(0, I); nets[t](z_{t+1}) gives mean and standard deviation of p(z_t |
    z_{t+1}), t = 0 .. T-2, decode(z_0) those of p(x | z_0). x (B, D); zs: T of (B, D); beta (T,).
    """
    log_normal = lambda v, mean, std: Normal(mean, std).log_prob(v).sum(-1)
    log_w = log_normal(zs[-1], 0.0, 1.0) + log_normal(x, *decode(zs[0]))
    for z, before, b in zip(zs, [x, *zs], beta):
        log_w = log_w - log_normal(z, (1 - b).sqrt() * before, b.sqrt())
    for z, above, net in zip(zs, zs[1:], nets):
        log_w = log_w + log_normal(z, *net(above))
    return log_w


class ElboWeights(NamedTuple):
    """What a squared error at levels t = 1 .. T-1 costs, nats, (T - 1,) each."""

    eps: Tensor
    x0: Tensor
    v: Tensor


def elbo_weights(alpha_bar: Tensor) -> ElboWeights:
    """w_t with KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) = w_t |error|^2, t = 1 .. T-1.

    p has the posterior's variance and the mean that the posterior has at the network's x0; `error`
    is that of the network in eps, x0 or v. alpha_bar (T,), falling.
    """
    ab = alpha_bar[1:]
    snr = alpha_bar / (1 - alpha_bar)
    x0 = -0.5 * snr.diff()
    return ElboWeights(x0 * (1 - ab) / ab, x0, x0 * (1 - ab))


def convert_output(out: Tensor, x_t: Tensor, ab_t: Tensor, kind: str, to: str) -> Tensor:
    """The network's answer `out` in another coordinate; v = sqrt(ab) eps - sqrt(1 - ab) x0.

    kind, to: "eps", "x0" or "v"; out, x_t (B, *D); ab_t (B,), in [0, 1]. From v nothing is ever
    divided, so it works at ab_t = 0 and at ab_t = 1 too.
    """
    ab = append_dims(ab_t, x_t.ndim)
    a, s = ab.sqrt(), (1 - ab).sqrt()
    if kind == "v":
        x0, eps = a * x_t - s * out, s * x_t + a * out
    elif kind == "eps":
        x0, eps = (x_t - s * out) / a, out
    else:
        x0, eps = out, (x_t - a * out) / s
    return {"x0": x0, "eps": eps, "v": a * eps - s * x0}[to]


def eta_step(
    x_t: Tensor,
    eps_hat: Tensor,
    ab_t: Tensor,
    ab_s: Tensor,
    noise: Tensor,
    eta: float = 0.0,
    large: bool = False,
) -> Tensor:
    """One step from level t to the cleaner level s; Song et al. (2021, DDIM), section 4.1.

    x_t, eps_hat, noise of one shape; ab_t < ab_s <= 1, (). sigma^2 is eta^2 times the posterior's
    variance. With `large` the noise that is *added* has the variance of the forward step from s
    to t, all else stays as it was. At ab_s = 1 no noise is added.
    """
    x0_hat = (x_t - (1 - ab_t).sqrt() * eps_hat) / ab_t.sqrt()
    beta = 1 - ab_t / ab_s  # of the forward step
    var = eta**2 * (1 - ab_s) / (1 - ab_t) * beta
    added = beta if large and ab_s < 1 else var
    return ab_s.sqrt() * x0_hat + (1 - ab_s - var).sqrt() * eps_hat + added.sqrt() * noise


def output_variance(step: Callable, levels: Tensor, var: float) -> Tensor:
    """Exact variance, (), of what a sampler returns for data N(0, var) and the exact network.

    From N(0, 1) by step(x_t, eps_hat, ab_t, ab_s, noise), linear in x_t, eps_hat and noise with
    no constant, from each of `levels` (S + 1,) to the next; the last is 1. No random numbers.
    """
    unit = torch.eye(2, dtype=levels.dtype)  # a unit of x and no noise; no x and a unit of noise
    total = torch.ones_like(levels[0])
    for ab_t, ab_s in zip(levels, levels[1:]):
        eps_hat = (1 - ab_t).sqrt() * unit[0] / (ab_t * var + 1 - ab_t)
        gain, spread = step(unit[0], eps_hat, ab_t, ab_s, unit[1])
        total = gain**2 * total + spread**2
    return total


def extrapolate(x0_hat: Tensor, before: Tensor, ab: Tensor) -> Tensor:
    """x0_hat for the middle of the next step, on the line through the last two estimates.

    ab (3,): alpha_bar where `before` was made, where x0_hat was made, and where the step ends; the
    line is straight in log(ab / (1 - ab)). Where the step ends in the data, ab[2] = 1: x0_hat.
    """
    if ab[2] == 1:
        return x0_hat
    old, new = (ab / (1 - ab)).log().diff()
    return x0_hat + new / (2 * old) * (x0_hat - before)


def label_drop_loss(
    model: Callable,
    x0: Tensor,
    label: Tensor,
    t: Tensor,
    eps: Tensor,
    drop: Tensor,
    alpha_bar: Tensor,
    null: int,
) -> Tensor:
    """Squared error of model(x_t, t, label) in eps, a mean over the D numbers of each image, (B,).

    Where `drop` (B,) bool is true the model sees the label `null` instead. x0, eps (B, *D);
    label, t (B,) int, label is left unchanged; alpha_bar (T,).
    """
    ab = append_dims(alpha_bar[t], x0.ndim).to(x0.dtype)
    x_t = ab.sqrt() * x0 + (1 - ab).sqrt() * eps
    out = model(x_t, t, label.where(~drop, torch.full_like(label, null)))
    return (out - eps).square().flatten(1).mean(1)


def guided_eps(model: Callable, scale: float, null: int) -> Callable:
    """The function (x_t, t, label) -> (1 + scale) eps_hat(label) - scale eps_hat(null).

    Ho and Salimans (2022), section 3. scale = 0 is the conditional model, scale = -1 the other.
    """

    def guided_model(x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        with_label = model(x_t, t, label)
        return with_label + scale * (with_label - model(x_t, t, torch.full_like(label, null)))

    return guided_model
