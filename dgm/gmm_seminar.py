"""What the seminar on Gaussian mixtures asks for: small functions, each with an oracle.

Beyond the lecture: the gradient in free coordinates, a sampler without a label, a KL estimate that
is never negative, the nearest Gaussian to two, the bound as a parabola. The seminar's second half,
data with holes, is in dgm.gmm_holes.
Letters as in dgm.gmm: N examples, D data dimension, K components.
"""

import warnings
from math import atan2, degrees
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from dgm.gmm import GMM, gmm_log_prob


class FreePull(NamedTuple):
    """Gradient of a mean log-likelihood in free coordinates, spherical components."""

    logits: Tensor  # (K,), the weights are their softmax
    mu: Tensor  # (K, D)
    log_sigma: Tensor  # (K,)


def free_pull(x: Tensor, r: Tensor, pi: Tensor, mu: Tensor, log_sigma: Tensor) -> FreePull:
    """Gradient of mean_n log p(x_n), p = sum_k pi_k N(mu_k, sigma_k^2 I), pi = softmax(logits).

    x (N, D); r (N, K) responsibilities; pi (K,); mu (K, D); log_sigma (K,). Returns FreePull.
    """
    d = x[:, None] - mu  # (N, K, D)
    precision = (-2 * log_sigma).exp()  # (K,)
    push = r * (d.square().sum(-1) * precision - x.shape[1])  # of log sigma, (N, K)
    pull = (r[..., None] * d).mean(0) * precision[:, None]
    return FreePull(r.mean(0) - pi, pull, push.mean(0))


def mixture_quantile(u: Tensor, pi: Tensor, mu: Tensor, sigma: Tensor, steps: int = 60) -> Tensor:
    """The x with F(x) = u, F the distribution function of sum_k pi_k N(mu_k, sigma_k^2).

    u (N,), float64, in (0, 1); pi, mu, sigma (K,). Returns (N,), by `steps` halvings of an interval
    that holds the answer.
    """
    ends = mu + sigma * torch.special.ndtri(u)[:, None]  # quantiles of the components, (N, K)
    low, high = ends.amin(1), ends.amax(1)
    for _ in range(steps):
        mid = 0.5 * (low + high)
        below = (pi * torch.special.ndtr((mid[:, None] - mu) / sigma)).sum(1) < u
        low, high = torch.where(below, mid, low), torch.where(below, high, mid)
    return 0.5 * (low + high)


def kl_terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Terms whose mean over x ~ p is KL(p || q), each of them >= 0, also after rounding.

    log_p, log_q (N,): log-densities at draws of p, nats. Returns (N,). With w = q / p a term is
    w - 1 - log w, and Gibbs' inequality is what says that it is not negative.
    """
    d = log_q - log_p
    return d.expm1() - d


class Merged(NamedTuple):
    """Two components made one, and what that costs at most."""

    pi: Tensor  # weight, (...,)
    mu: Tensor  # (..., D)
    cov: Tensor  # (..., D, D)
    cost: Tensor  # sum_i pi_i KL(N_i || merged), (...,), nats


def merge_pair(pi: Tensor, mu: Tensor, cov: Tensor) -> Merged:
    """The Gaussian q with the least KL(p || q), p the normalised pair; Runnalls (2007).

    pi (..., 2) weights, not summing to 1; mu (..., 2, D); cov (..., 2, D, D). Returns Merged, with
    the sum of the two weights as its weight.
    """
    share = pi / pi.sum(-1, keepdim=True)
    mean = (share[..., None] * mu).sum(-2)
    d = mu - mean[..., None, :]  # (..., 2, D)
    total = (share[..., None, None] * (cov + d[..., :, None] * d[..., None, :])).sum(-3)
    cost = 0.5 * (pi * (torch.logdet(total)[..., None] - torch.logdet(cov))).sum(-1)
    return Merged(pi.sum(-1), mean, total, cost)


def greedy_reduce(theta: GMM, K: int) -> GMM:
    """Merge the cheapest pair again and again until K components are left."""
    pi, mu, cov = theta.log_pi.exp(), theta.mu, theta.cov
    while len(pi) > K:
        pairs = torch.combinations(torch.arange(len(pi)))  # (P, 2)
        best = int(merge_pair(pi[pairs], mu[pairs], cov[pairs]).cost.argmin())
        new = merge_pair(*(v[pairs[best]] for v in (pi, mu, cov)))
        rest = torch.ones(len(pi), dtype=torch.bool)
        rest[pairs[best]] = False
        pi, mu, cov = (torch.cat([v[rest], a[None]]) for v, a in zip((pi, mu, cov), new))
    return GMM(pi.log(), mu, cov)


class Touch(NamedTuple):
    """The parabola height - (m - top)^2 / 2, a lower bound of L that touches it."""

    top: Tensor  # ()
    height: Tensor  # (), nats


def touching_parabola(x: Tensor, m: Tensor) -> Touch:
    """ELBO in m' of the law half N(-m', 1), half N(m', 1), with q the posterior at m.

    x (N,), m (). The mean over x of the ELBO is height - (m' - top)^2 / 2. Returns Touch.
    """
    top = (x * (m * x).tanh()).mean()  # the mean of x (2 r - 1)
    pair = GMM(
        torch.full((2,), 0.5).to(x).log(), torch.stack([-m, m])[:, None], x.new_ones(2, 1, 1)
    )
    at_m = gmm_log_prob(x[:, None], pair).mean()  # the bound touches here
    return Touch(top, at_m + 0.5 * (m - top).square())


def draw_components(ax: Axes, theta: GMM, color: str, ls: str = "-") -> Axes:
    """Each component of a mixture in the plane as its ellipse of one standard deviation."""
    for m, cov in zip(theta.mu, theta.cov):
        size, axes = torch.linalg.eigh(cov)  # ascending
        angle = degrees(atan2(axes[1, 1], axes[0, 1]))
        width, height = (2 * size.sqrt().flip(0)).tolist()
        ax.add_patch(Ellipse(m, width, height, angle=angle, fc="none", ec=color, ls=ls, lw=1.3))
    return ax


def sklearn_gmm(x: Tensor, K: int, kind: str, floor: float, steps: int, seed: int) -> GMM:
    """scikit-learn's mixture, started by k-means. x (N, D); kind "full" or "tied"; floor >= 0."""
    model = GaussianMixture(
        K, covariance_type=kind, reg_covar=floor, max_iter=steps, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of steps was asked for
        model.fit(x.numpy())
    pi, mu, cov = (torch.from_numpy(v) for v in (model.weights_, model.means_, model.covariances_))
    return GMM(pi.log(), mu, cov if cov.ndim == 3 else cov.expand(K, -1, -1))
