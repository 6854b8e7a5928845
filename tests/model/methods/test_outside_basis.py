"""What a basis does not explain of spectra with masked pixels."""

import numpy as np

from model.methods.outside_basis import FILLS, squares_outside


def test_masked_pixels_are_filled_from_the_good_ones():
    generator = np.random.default_rng(3)
    components = np.linalg.qr(generator.normal(size=(60, 5)))[0].T
    residual, good = generator.normal(size=(8, 60)), generator.random((8, 60)) > 0.2
    good[0] = True
    residual[~good] = 0.0
    found = squares_outside(
        residual @ components.T, np.square(residual).sum(axis=1), components.T.astype(np.float32), good
    )
    for own, mask, square in zip(residual, good, found, strict=True):
        filled = own
        for _ in range(FILLS):
            rebuilt = filled @ components.T @ components
            filled = np.where(mask, own, rebuilt)
        np.testing.assert_allclose(square, np.square(own - rebuilt)[mask].sum(), rtol=1e-5)
