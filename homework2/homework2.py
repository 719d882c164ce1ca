# %% [markdown]
# # Homework 2: models without a likelihood, and faces
#
# {{ badge }}
#
# You build, piece by piece, models that are trained without a likelihood: by transport, by scores, by denoising, by
# velocities. Where an exact answer exists, your functions are held against it.
#
# | problem | about | points |
# |---|---|---|
# | 1 | optimal transport: on the line, between weighted points, and as a game (WGAN) | 15 |
# | 2 | score matching three ways, and annealed Langevin dynamics | 15 |
# | 3 | a conditional diffusion model that makes faces larger | 55 |
# | 4 | flow matching: paths, couplings, a reflow, steps against quality | 15 |
#
# **How it works.** A task is one small function with its contract in the docstring. Replace `raise NotImplementedError`
# by your code, then run the test cell under it: it says what is wrong and where to look. The points stand beside every
# task as *visible + hidden*: a hidden test checks the same contract on other inputs, in the corners that the docstring
# names. What you train you hand in as weight files, and the grader evaluates them anew: a number that you report earns
# nothing by itself. Figures and answers in words are marked by a person against the rubric printed beside them.
#
# **Conventions** (some differ from the lectures, on purpose)
#
# - A network is called `model(x, t, cond)`, with one number `t` per example, `(B,)`, and `cond` None where there is no
#   condition. What `t` means (a step, a noise level, a time) each problem says.
# - Letters of shapes: `B` batch, `N` and `M` points, `D` data dimensions, `*D` any number of data axes, `S` steps.
# - A function works for every size, on the device and in the number type of its inputs, and leaves its inputs unchanged.
# - Noise is an argument: no graded function draws random numbers.
# - **No graded function calls another one**, except where a task says *put together*. So one slip costs you once.

# %% tags=["setup"] cellView="form"
# Set-up: run me first. Imports, named tuples, data, checks; nothing here needs an answer from you.
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.checks import banded, check_close, check_named, check_that, test_rng, vjp
from dgm.draws import normal, uniform
from dgm.handin import pack_submission
from dgm.plots import DATA, MODEL, plot_points, show_images
from dgm.training import Ema, Fit, fit, minibatches, progress
from dgm.weights import save_weights

HOMEWORK = "homework2"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# --- problems 1, 2 and 4 ---------------------------------------------------------------------------


class PathPoint(NamedTuple):
    """A point on a conditional path and the path's velocity there."""

    x_t: Tensor  # (B, *D)
    u_t: Tensor  # (B, *D)


# --- problem 3 -------------------------------------------------------------------------------------

# --- weights ---------------------------------------------------------------------------------------


class LocalWeights:
    """A weight file in its network, called as the grader calls it."""

    def __init__(self, module: nn.Module):
        self.module = module.eval()

    @torch.no_grad()
    def call(self, method: str, *args: Tensor) -> Tensor | tuple:
        """The module's method on these inputs, without gradients."""
        return getattr(self.module, method)(*args)


# weight file -> the released function that makes its network
BUILD: dict[str, Callable] = {}


def trained(file: str) -> LocalWeights:
    """The weights that you saved, in the released network. (The grader has its own `trained`.)"""
    from safetensors.torch import load_file

    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is not here: run the training cell that saves it.")
    module = BUILD[file]()
    module.load_state_dict(load_file(file))
    return LocalWeights(module)


# %% tags=["parameters"]
SEED = 0
FOLDER = "."  # where checkpoints live; a folder of your Drive survives a disconnect of Colab

# %% [markdown]
# # Problem 1: optimal transport and the Wasserstein GAN (15 points)

# %% [markdown]
# # Problem 2: score matching (15 points)

# %% [markdown]
# # Problem 3: a conditional diffusion model for faces (55 points)

# %% [markdown]
# # Problem 4: flow matching (15 points)

# %% [markdown]
# ## Hand in
#
# Run the last cell. It looks for answers that are missing, runs the visible tests in a new Python (which knows nothing that
# you have since changed or deleted), checks your weight files and packs the notebook with them into one zip, which you hand
# in. In Colab a running notebook is not a file: the cell asks Colab for it, then looks on your Drive; if both fail it says
# so, and you add the notebook by File > Download > Download .ipynb: hand in both files side by side.

# %% tags=["train"] cellView="form"
pack_submission(HOMEWORK, BUILD)
