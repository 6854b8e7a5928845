"""GaussDis fitted to noisy, masked spectra with errors of labels, by maximum marginal likelihood.

The coefficients y (K,) of star i at its most probable labels u (`model.methods.latent_fit`) are taken as

    y_i = R(z, u_i) + B' phi(u_i) + s + m_i + n_i,
    z ~ N(0, P),  s ~ N(0, V),  m_i ~ N(0, l_i^2 exp(b . u_i) W),  n_i ~ N(0, C_i),

where R is the response of the model that the fit starts from, phi (A,) are polynomials of u, l_i is the
strength of the star's lines (`model.methods.scatter`), both it and b . u_i at the known labels, and C_i the
covariance of noise, masked pixels, continuum, scatter and, by the slopes at u, of the errors of labels. The
members of a group share the latent z and s; a single star is a group of its own. The fit integrates over z, s
and m about the most probable latent, and climbs the gradient of the likelihood by B, P, V, W and b at once. B
is in units of what stars differ by, the others in units of the noise: the gradient has one scale in all
directions then.

The start says how spectra of one chemistry change with u. A correction of that is not fitted: single stars
cannot tell it from latents that turn with u, and a few dozen groups do not determine it. P is nowhere above 1,
the chemistry that the start was trained on: a latent of little effect would take up what the instrument does.

Beyond its constant B is fitted to siblings. Single stars would have the mean latent the same at all u, which
it is not: chemistry follows [Fe/H], and a star's labels have errors. Without groups B is constant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from model.methods.basis import design, exponents
from model.methods.gaussdis import GaussDis
from model.methods.measured_stars import Measured
from model.methods.scatter import line_strength
from model.spectra.grid import Array
from training.fitting.gaussdis import with_offset, with_tensors
from training.random_streams import Stream, generator

OFFSET_DEGREE = 2
"""Degree in u of the correction B."""

OFFSET_SD, GROWTH_SD = 0.07, 0.3
"""Standard deviations of the priors of B beyond its constant, and of b."""

OWN, SHARED = 1e-4, 1e-5
"""Variances that W and V are expected to have."""

FREEDOM = 20.0
"""Degrees of freedom of the inverse-Wishart priors of W and V."""

MOST_ALONE = 10_000
"""Single stars count as no more than these, and siblings, together, as much as they: few siblings among many
single stars would have no say in what stars share, which is what the model is for."""

FIRST_EXCESS = 0.3
"""Root of the first excess of the population's precision over 1."""

STEPS = 400
STARS, GROUPS = 128, 6
"""Single stars and groups of each step."""

SAMPLE = 2000
"""Stars whose mean response to latents is what stars differ by."""

STEP_SIZE, LAST_STEP_SIZE = 0.02, 6e-4
MOMENTS = (0.9, 0.98)
CHECKPOINT_EVERY = 50
JITTER = 1e-6


class Linear(NamedTuple):
    """Stars of a batch about their latents, where coefficients are linear in them.

    Attributes
    ----------
    residual : Tensor (N, K)
        Coefficients less the start's response at latent 0 of the linear approximation.
    slope : Tensor (N, D, K)
        Derivatives of the start's response by the latent.
    covariance : Tensor (N, K, K)
        C_i.
    terms : Tensor (N, A)
        Polynomials phi of the most probable labels.
    growing : Tensor (N, U)
        Those of first degree of the known labels.
    strength : Tensor (N,)
        Strength l of the lines.
    """

    residual: Tensor
    slope: Tensor
    covariance: Tensor
    terms: Tensor
    growing: Tensor
    strength: Tensor


@dataclass(frozen=True)
class Groups:
    """The rows of stars by group: `alone`, those without siblings, and `siblings`, an array for each group."""

    alone: NDArray[np.int64]
    siblings: list[NDArray[np.int64]]

    @classmethod
    def of(cls, group: NDArray[np.int64]) -> Groups:
        """Of the number (N,) of each star's group."""
        order = np.argsort(group, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
        alone = [rows[0] for rows in members if len(rows) == 1]
        return cls(np.array(alone, np.int64), [rows for rows in members if len(rows) > 1])


class Correction(nn.Module):
    """B, b and the roots of P^-1 - I, V and W; polynomials orthonormal."""

    root: Tensor
    spread: Tensor
    usual_own: Tensor
    usual_shared: Tensor

    def __init__(self, start: GaussDis, stars: Measured, siblings: bool = True) -> None:
        super().__init__()
        self.start = start
        unit = np.eye(stars.coefficients.shape[1])
        typical = stars.covariances.mean(axis=0, dtype=np.float64) + OWN * unit
        root = _root(typical)
        count = len(exponents(len(start.ranges), OFFSET_DEGREE)) if siblings else 1
        monomials = design(self._within(stars.parameters), start.ranges, OFFSET_DEGREE)
        self._orthonormal = np.linalg.inv(np.linalg.qr(monomials)[1]) * np.sqrt(len(monomials))
        white = np.linalg.inv(root) @ np.linalg.inv(root)
        own, shared = OWN * white, SHARED * white
        latents = start.card.latent_dim
        some = self._within(stars.parameters[:: max(len(stars.parameters) // SAMPLE, 1)])
        slopes = start.response.by_latents(np.zeros((len(some), latents)), some)
        differ = np.einsum("ndk,ndl->kl", slopes, slopes) / len(some)
        self.register_buffer("root", torch.tensor(root))
        self.register_buffer("spread", torch.tensor(_root(typical + differ)))
        self.register_buffer("usual_own", torch.tensor(own))
        self.register_buffer("usual_shared", torch.tensor(shared))
        self.offset = nn.Parameter(torch.tensor(np.zeros((count, len(unit)))))
        self.own = nn.Parameter(torch.tensor(np.linalg.cholesky(own)))
        self.shared = nn.Parameter(torch.tensor(np.linalg.cholesky(shared)))
        self.growth = nn.Parameter(torch.tensor(np.zeros(len(start.ranges))))
        self.excess = nn.Parameter(torch.tensor(FIRST_EXCESS * np.eye(latents)))

    def model(self) -> GaussDis:
        """The start, corrected."""
        with torch.no_grad():
            offset = (self.offset @ self.spread).cpu().numpy()
            own, shared = (
                (self.root @ lower @ lower.T @ self.root).cpu().numpy()
                for lower in (self.own.tril(), self.shared.tril())
            )
            root = torch.linalg.inv(self._precision_root()).mT
            population = torch.linalg.cholesky(root @ root.mT).cpu().numpy()
            growth = self.growth.cpu().numpy()
        mean = self._orthonormal[:, : len(offset)] @ offset
        model = with_offset(self.start, np.zeros(len(self.start.grid)), mean)
        growth = self._orthonormal[: len(growth) + 1, 1 : len(growth) + 1] @ growth
        arrays = {
            "misfit": np.exp(growth[0]) * own,
            "misfit_growth": growth[1:],
            "shared": shared,
            "population": population,
        }
        return with_tensors(model, model.card, **arrays)

    def about(self, model: GaussDis, stars: Measured, latents: Array) -> tuple[Linear, Array]:
        """Linearise about the latents (N, D) that fit best under `model`, which is `self.model()`.

        `latents`, in the frame where the population is the unit Gaussian, are those to start from. Returns the
        new ones as well.
        """
        noise = stars.covariances.astype(np.float64)
        fitted = model.fit(stars._replace(covariances=noise + model.shared), latents)
        latents, labels, response = fitted.latents @ model.population.T, fitted.parameters, self.start.response
        slope = response.by_latents(latents, labels)
        at_zero = response(latents, labels) - np.einsum("nd,ndk->nk", latents, slope)
        covariance = noise + self.start.scattered(latents, stars.parameters) + fitted.by_errors
        arrays = fitted.coefficients - at_zero, slope, covariance, self._terms(labels)
        growing = self._terms(stars.parameters)[:, 1 : len(self.growth) + 1]
        strength = line_strength(self.start.basis, stars.parameters)
        parts = (torch.tensor(values, device=self.root.device) for values in (*arrays, growing, strength))
        return Linear(*parts), fitted.latents

    def log_likelihood(self, stars: Linear, group: Tensor | None = None, times: float = 1.0) -> Tensor:
        """Log likelihoods (G,) of groups, up to a constant; of each star (N,) where no group (N,) is given.

        Stars without group have no gradient by B but for its constant. The gradient by P of groups that count
        several `times` counts once.
        """
        offset = self.offset if group is not None else torch.cat([self.offset[:1], self.offset[1:].detach()])
        residual = stars.residual - stars.terms[:, : len(offset)] @ (offset @ self.spread)
        root = self._precision_root()
        root = root.detach() + (root - root.detach()) / times
        slope = torch.linalg.solve_triangular(root, stars.slope, upper=False)
        own, shared = self.root @ self.own.tril(), self.root @ self.shared.tril()
        misfit = stars.strength**2 * (stars.growing @ self.growth).exp()
        covariance = stars.covariance + misfit[:, None, None] * (own @ own.T)
        if group is None:
            lower = torch.linalg.cholesky(covariance + shared @ shared.T + slope.mT @ slope)
            return -0.5 * (_whitened(lower, residual[:, :, None]).square().sum((1, 2)) + _log_volume(lower))
        lower = torch.linalg.cholesky(covariance)
        common = torch.cat([slope, shared.T.expand(len(slope), -1, -1)], dim=1)
        white = _whitened(lower, torch.cat([common.mT, residual[:, :, None]], dim=2))
        common, residual = white[:, :, :-1], white[:, :, -1]
        count, size = int(group.max()) + 1, common.shape[2]
        information = torch.eye(size, device=group.device, dtype=common.dtype).repeat(count, 1, 1)
        information = information.index_add(0, group, common.mT @ common)
        pull = residual.new_zeros(count, size, 1).index_add(0, group, common.mT @ residual[:, :, None])
        of_group = torch.linalg.cholesky(information)
        each = residual.square().sum(1) + _log_volume(lower)
        whole = residual.new_zeros(count).index_add(0, group, each) + _log_volume(of_group)
        return -0.5 * (whole - _whitened(of_group, pull).square().sum((1, 2)))

    def log_prior(self, times: float = 1.0) -> Tensor:
        """Log density of the priors, up to a constant; that of B counts several `times`, as siblings do."""
        total = (
            -0.5 * times * (self.offset[1:] / OFFSET_SD).square().sum()
            - 0.5 * (self.growth / GROWTH_SD).square().sum()
        )
        for lower, usual in ((self.own, self.usual_own), (self.shared, self.usual_shared)):
            jitter = JITTER * torch.eye(len(lower), device=self.root.device, dtype=self.root.dtype)
            root = torch.linalg.cholesky(lower.tril() @ lower.tril().T + jitter)
            spread = torch.cholesky_solve(usual, root).trace()
            total = total - 0.5 * FREEDOM * (_log_volume(root) + spread)
        return total

    def _precision_root(self) -> Tensor:
        """The triangular root (D, D) of the precision of the population, which is nowhere below 1."""
        unit = torch.eye(len(self.excess), device=self.root.device, dtype=self.root.dtype)
        root: Tensor = torch.linalg.cholesky(unit + self.excess.tril() @ self.excess.tril().T)
        return root

    def _terms(self, parameters: Array) -> Array:
        return np.asarray(
            design(self._within(parameters), self.start.ranges, OFFSET_DEGREE) @ self._orthonormal
        )

    def _within(self, parameters: Array) -> Array:
        return np.clip(parameters, *self.start.ranges.T)


def fit(
    start: GaussDis,
    stars: Measured,
    group: NDArray[np.int64],
    *,
    device: torch.device,
    state: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[GaussDis, list[float]]:
    """Fit a correction of a model.

    Parameters
    ----------
    start : GaussDis
        The model to start from, without misfit and population.
    stars : Measured
        N stars; their `covariances` may be in single precision.
    group : array of int (N,)
        The number of each star's group, single stars with groups of their own.
    device : torch.device
        Where the likelihood is computed. The latents are fitted on the processor.
    state : dict, optional
        What `save` got, to go on from there.
    save : callable, optional
        Called now and then.

    Returns
    -------
    model : GaussDis
        The corrected model.
    losses : list of float
        Minus the log density of each step, per star.
    """
    run = _Run(start, stars, group, device)
    if state is not None:
        run.restore(state)
    steps = range(len(run.losses), STEPS)
    bar = tqdm(steps, initial=len(run.losses), total=STEPS, desc="fit", file=sys.stderr, disable=None)
    for _ in bar:
        run.step()
        bar.set_postfix(loss=f"{run.losses[-1]:.2f}")
        if save is not None and len(run.losses) % CHECKPOINT_EVERY == 0:
            save(run.state())
    return run.correction.model(), run.losses


class _Run:
    """A fit on its way: correction, optimiser, the latents that stars had when last drawn, and the losses."""

    def __init__(
        self, start: GaussDis, stars: Measured, group: NDArray[np.int64], device: torch.device
    ) -> None:
        self._stars, self._rows, self._device = stars, Groups.of(group), device
        self.correction = Correction(start, stars, bool(self._rows.siblings)).to(device)
        self._optimiser = torch.optim.Adam(self.correction.parameters(), lr=STEP_SIZE, betas=MOMENTS)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, STEPS, LAST_STEP_SIZE)
        self._alone = min(len(self._rows.alone), MOST_ALONE)
        siblings = sum(map(len, self._rows.siblings))
        self._together = max(self._alone, siblings)
        self._times = self._together / max(siblings, 1)
        self._latents = np.zeros((len(group), start.card.latent_dim))
        self.losses: list[float] = []

    def step(self) -> None:
        """Climb by the gradient of some stars' and groups' log density."""
        loss = -self._log_density() / (self._alone + self._together)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        self.losses.append(float(loss.detach()))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        modules = {name: getattr(self, f"_{name}").state_dict() for name in ("optimiser", "schedule")}
        correction, latents = self.correction.state_dict(), torch.tensor(self._latents)
        return {"correction": correction, **modules, "latents": latents, "losses": self.losses}

    def restore(self, state: dict[str, Any]) -> None:
        """The reverse of `state`."""
        self.correction.load_state_dict(state["correction"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._latents, self.losses = state["latents"].numpy(), list(state["losses"])

    def _log_density(self) -> Tensor:
        """Log density of all stars, estimated from some; siblings count `_times`."""
        draw, rows = generator(Stream.ADAPTATION, len(self.losses)), self._rows
        model, total = self.correction.model(), self.correction.log_prior(self._times)
        if len(rows.alone):
            some = draw.choice(rows.alone, min(STARS, len(rows.alone)), replace=False)
            found = self.correction.log_likelihood(self._about(model, some))
            total = total + found.mean() * self._alone
        if rows.siblings:
            chosen = draw.choice(len(rows.siblings), min(GROUPS, len(rows.siblings)), replace=False)
            members = [rows.siblings[number] for number in chosen]
            own = np.repeat(np.arange(len(chosen)), [len(group) for group in members])
            linear = self._about(model, np.concatenate(members))
            found = self.correction.log_likelihood(linear, torch.tensor(own, device=self._device), self._times)
            total = total + found.sum() * self._times * len(rows.siblings) / len(chosen)
        return total

    def _about(self, model: GaussDis, some: NDArray[np.int64]) -> Linear:
        """Some stars about the latents that fit them best, which are kept."""
        stars = Measured(*(array[some] for array in self._stars))
        linear, self._latents[some] = self.correction.about(model, stars, self._latents[some])
        return linear


def _whitened(lower: Tensor, values: Tensor) -> Tensor:
    white: Tensor = torch.linalg.solve_triangular(lower, values, upper=False)
    return white


def _log_volume(lower: Tensor) -> Tensor:
    """Log determinants of the matrices L L' of triangular L (..., K, K)."""
    volume: Tensor = 2 * torch.diagonal(lower, dim1=-2, dim2=-1).log().sum(-1)
    return volume


def _root(covariance: Array) -> Array:
    """The symmetric square root (K, K) of a covariance."""
    variances, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(variances)) @ axes.T)
