"""Small operations on tensors that several topics share."""

from torch import Tensor, linalg


def append_dims(a: Tensor, ndim: int) -> Tensor:
    """a (B,) with axes of length 1 behind, so that it broadcasts against an ndim-axes batch."""
    return a.reshape(a.shape + (1,) * (ndim - a.ndim))


def psd_root(a: Tensor) -> Tensor:
    """The symmetric square root of a symmetric positive semi-definite matrix (D, D)."""
    values, vectors = linalg.eigh(a)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
