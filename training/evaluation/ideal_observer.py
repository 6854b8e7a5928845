"""The ideal observer of a synthetic survey, whose posteriors follow from the emulator and the abundances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.errors import InputError
from model.similarity.likelihood_ratio import Likelihood
from model.spectra.grid import Array
from training.emulator.emulator import Emulator
from training.random_streams import Stream, generator
from training.surveys.survey import Survey

_NEGLIGIBLE = 1e-10


def emulator_labels(survey: Survey, emulator: Emulator) -> Array:
    """The emulator's labels (N, 21) of a survey's stars. Raises InputError without known abundances."""
    labels = np.zeros((len(survey), len(emulator.labels)))
    labels[:, [emulator.labels.index(name) for name in ("teff", "logg", "fe_h")]] = survey.parameters
    names, values = survey.abundances()
    if unknown := sorted(set(names) - set(emulator.labels)):
        raise InputError(f"{survey.path}: the emulator does not have {', '.join(unknown)}")
    labels[:, [emulator.labels.index(name) for name in names]] = values
    return labels


def varied(labels: Array, emulator: Emulator) -> list[int]:
    """The columns of `labels` (N, 21) that are of chemistry and vary: [Fe/H] first, then [X/Fe]."""
    spread = np.ptp(labels, axis=0) > 1e-9
    return [i for i, name in enumerate(emulator.labels) if spread[i] and name not in ("teff", "logg")]


@dataclass(frozen=True)
class Prior:
    """The distribution of a survey's abundances: `mean` (E,), and `axes` (E, D) that turn N(0, I) into it."""

    mean: Array
    axes: Array

    @classmethod
    def of(cls, abundances: Array) -> Prior:
        """The Gaussian of some true abundances (N, E), without the directions in which they do not vary."""
        scale = abundances.std(axis=0)
        variance, vectors = np.linalg.eigh(np.cov((abundances / scale).T))
        varying = variance > _NEGLIGIBLE * variance[-1]
        return cls(abundances.mean(axis=0), scale[:, None] * vectors[:, varying] * np.sqrt(variance[varying]))

    def latents(self, abundances: Array) -> Array:
        """The latents (N, D) of abundances (N, E)."""
        return np.asarray(np.linalg.lstsq(self.axes, (abundances - self.mean).T)[0].T)

    def information(self, fisher: Array) -> Array:
        """Fisher information (N, D, D) on the latents, from that on the abundances (N, E, E)."""
        return np.asarray(self.axes.T @ fisher @ self.axes)


@dataclass(frozen=True)
class IdealObserver:
    """The latents of a survey's stars, and the information that its spectra have on them.

    Attributes
    ----------
    latents : array (N, D)
        True latents, of prior N(0, I).
    strength : array (N, D)
        Eigenvalues of their Fisher information at unit noise.
    directions : array (N, D, D)
        Its eigenvectors.
    """

    latents: Array
    strength: Array
    directions: Array

    @classmethod
    def of(cls, abundances: Array, fisher: Array) -> IdealObserver:
        """From true abundances and the information on them.

        Parameters
        ----------
        abundances : array (N, E)
            True abundances, dex.
        fisher : array (N, E, E)
            Fisher information on them at unit noise.

        Returns
        -------
        IdealObserver
            The observer.
        """
        prior = Prior.of(abundances)
        strength, directions = np.linalg.eigh(prior.information(fisher))
        return cls(prior.latents(abundances), np.maximum(strength, 0.0), directions)

    def draw(self, snr: float) -> Likelihood:
        """Draw the posteriors of all stars, for one draw of the noise.

        Parameters
        ----------
        snr : float
            S/N per pixel.

        Returns
        -------
        Likelihood
            Posteriors of N latents.

        Notes
        -----
        With information F a star's posterior is N(m, (F + I)^-1), m = (F + I)^-1 (F z + F^(1/2) e), z the true
        latent and e standard normal.
        """
        strength = snr**2 * self.strength
        noise = generator(Stream.IDEAL_POSTERIORS).standard_normal(strength.shape)
        truth = np.einsum("nij,ni->nj", self.directions, self.latents)
        observed = (strength * truth + np.sqrt(strength) * noise) / (1 + strength)
        means = np.einsum("nij,nj->ni", self.directions, observed)
        covariances = (self.directions / (1 + strength)[:, None]) @ self.directions.swapaxes(1, 2)
        return Likelihood.of(means, covariances)
