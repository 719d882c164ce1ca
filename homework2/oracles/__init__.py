"""Expected values of the hidden tests, by routes of their own. Never released.

Imports numpy, scipy, scikit-learn and torch only: a shared bug must not mark itself right.
"""

from homework2.oracles.diffusion import (
    condition_on_noisy,
    cosine_levels,
    gaussian_faces,
    least_velocity_loss,
    perfect_velocity,
    sampler_moments,
)
from homework2.oracles.flow_matching import (
    linear_midpoint,
    one_step,
    parabola,
    partners,
    velocity_errors,
)
from homework2.oracles.scores import (
    curved_energy_loss,
    denoising_by_hand,
    exact_trace_loss,
    langevin_on_a_line,
    score_of_rounds,
)
from homework2.oracles.transport import penalised_value, plan_by_lumps, work_on_the_line

__all__ = [
    "work_on_the_line",
    "plan_by_lumps",
    "penalised_value",
    "curved_energy_loss",
    "exact_trace_loss",
    "denoising_by_hand",
    "score_of_rounds",
    "langevin_on_a_line",
    "cosine_levels",
    "condition_on_noisy",
    "gaussian_faces",
    "perfect_velocity",
    "least_velocity_loss",
    "sampler_moments",
    "parabola",
    "velocity_errors",
    "partners",
    "linear_midpoint",
    "one_step",
]
