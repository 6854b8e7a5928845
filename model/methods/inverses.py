"""Inverses of many small positive definite matrices."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dtrtri

from model.spectra.grid import Array


def inverse(matrices: Array) -> Array:
    """Inverses of positive definite matrices (..., K, K)."""
    root = inverse_root(matrices)
    return np.asarray(np.matmul(np.swapaxes(root, -1, -2), root))


def inverse_root(matrices: Array) -> Array:
    """Lower triangular L (..., K, K) with L' L the inverse of the positive definite `matrices` (..., K, K)."""
    roots = np.empty_like(matrices)
    for index in np.ndindex(matrices.shape[:-2]):
        factor, failed = dpotrf(matrices[index], lower=1)
        if failed:
            raise np.linalg.LinAlgError("a covariance that is not positive definite")
        roots[index], _ = dtrtri(factor, lower=1)
    return roots
