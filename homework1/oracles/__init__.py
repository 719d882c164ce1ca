"""Expected values of the hidden tests, by routes of their own. Never released.

Imports numpy, scipy, scikit-learn and torch only: a shared bug must not mark itself right.
"""

from homework1.oracles.flows import (
    gated_coupling,
    gated_flow,
    log_sigmoid_reference,
    logistic_log_density,
)
from homework1.oracles.mixtures import (
    diagonal_log_joint,
    em_by_sklearn,
    log_sum_exp,
)
from homework1.oracles.sampling import (
    ising_gradient,
    ising_states,
    langevin_variance,
    quadratic_mala_log_ratio,
)
from homework1.oracles.vae import (
    bernoulli_log_pmf,
    condition_joint_gaussian,
    factor_model,
    grouped_log_mean_exp,
    kl_of_normals,
    normal_log_pdf,
    toy_evidence,
    toy_loss_gradients,
)

__all__ = [
    "log_sigmoid_reference",
    "gated_coupling",
    "gated_flow",
    "logistic_log_density",
    "log_sum_exp",
    "diagonal_log_joint",
    "em_by_sklearn",
    "langevin_variance",
    "quadratic_mala_log_ratio",
    "ising_states",
    "ising_gradient",
    "kl_of_normals",
    "bernoulli_log_pmf",
    "normal_log_pdf",
    "factor_model",
    "grouped_log_mean_exp",
    "condition_joint_gaussian",
    "toy_loss_gradients",
    "toy_evidence",
]
