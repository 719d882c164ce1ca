"""Random numbers for checks: type, shape, law, and which generator they come from."""

import pytest
import torch
from scipy.stats import kstest

from dgm.draws import normal, uniform


@pytest.mark.parametrize(("draw", "law"), [(normal, "norm"), (uniform, "uniform")])
def test_law_shape_and_generator(draw, law):
    """Oracle: Kolmogorov's test against scipy's law, p-value above 2e-9 (six standard errors)."""
    x = draw(torch.Generator().manual_seed(0), 40, 50)
    assert x.shape == (40, 50) and x.dtype == torch.float64
    assert kstest(x.flatten(), law).pvalue > 2e-9
    torch.testing.assert_close(draw(torch.Generator().manual_seed(0), 40, 50), x, rtol=0, atol=0)
    assert not torch.equal(draw(torch.Generator().manual_seed(1), 40, 50), x)
