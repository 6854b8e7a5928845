"""The page of a model that was trained on an observed survey: losses, siblings left out, what is left of u."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.methods.basis import design
from model.methods.gaussdis import GaussDis
from training.evaluation.siblings import always, by_model, by_p_same, scores
from training.evaluation.siblings_report import SCORES, p_same_figure, scores_table
from training.fitting.train_observed import Trained
from training.networks.run_report import draw_losses
from training.reports.html_page import page, provenance
from training.reports.markdown import table
from training.surveys.survey import Survey

LEFT_DEGREE = 2
"""Degree of the polynomials of u that latents are predicted with."""

REASONS = 5
"""Examples of stars that were not used."""


def observed_report(identity: str, trained: Trained, start: GaussDis, survey: Survey, folder: Path) -> str:
    """The HTML page of a training run; pictures go into the run's `folder`."""
    losses = np.array(trained.losses)
    (folder / "losses.png").write_bytes(draw_losses({"density": (np.arange(len(losses)), losses)}))
    sections = [
        f"# Training of {identity}",
        _stars(trained, survey),
        "## Losses",
        "![Losses of single steps (thin) and their running mean](losses.png)",
        *_siblings(trained, start, folder),
        "## What is left of the parameters",
        _left(trained, start),
        "## Domain",
        _domain(trained),
        provenance(),
    ]
    return page("\n\n".join(sections), lambda name: (folder / name).read_bytes())


def _stars(trained: Trained, survey: Survey) -> str:
    used = trained.model.card.training["observed"]
    lines = [
        f"- {survey.path.name}: {len(survey)} stars; {used['stars']} were fitted to, {used['siblings']} "
        f"of them in {used['groups']} groups",
        f"- started from {used['from']}",
        f"- not used: {len(trained.unusable)}",
    ]
    examples = list(trained.unusable.items())[:REASONS]
    return "\n".join(lines + [f"    - {star_id}: {reason}" for star_id, reason in examples])


def _siblings(trained: Trained, start: GaussDis, folder: Path) -> list[str]:
    """Scores of the start and of the model on siblings left out, and the figure of their p_same."""
    rows, members = {}, trained.left_out
    if not len(members.group):
        return ["## Siblings", "The survey has no siblings: nothing here says whether `p_same` is right."]
    picture = ""
    for name, model in (("start", start), ("trained", trained.model)):
        distances = always(*by_model(members, model))
        rows[f"{name}, by distance"], same = scores(members, distances)
        rows[f"{name}, by p_same"], _ = scores(members, by_p_same(distances))
        if same is not None:
            picture = p_same_figure(folder, name, members, same)
    text = (
        f"{len(members.group)} siblings of {len(np.unique(members.group))} groups that the model was not "
        "fitted to. They correct one number, the size of the misfit."
    )
    return ["## Siblings left out", text, scores_table(rows), SCORES, picture]


def _left(trained: Trained, start: GaussDis) -> str:
    """How well polynomials of u predict latents, before and after."""
    rows = []
    for name, model in (("start", start), ("trained", trained.model)):
        parameters = np.stack([s.parameters.values(model.parameter_names) for s in trained.sample])
        latents = np.stack([found.latent for found in model.infer(trained.sample)])
        monomials = design(parameters, model.ranges, LEFT_DEGREE)
        residual = latents - monomials @ np.linalg.lstsq(monomials, latents, rcond=None)[0]
        freedom = (len(latents) - 1) / (len(latents) - monomials.shape[1])
        explained = 1 - freedom * residual.var(axis=0) / latents.var(axis=0)
        rows.append([name, f"{explained.mean():.3f}", f"{explained.max():.3f}"])
    head = ("", "mean of all latents", "the worst latent")
    text = (
        f"The fraction of the variance of latents that polynomials of degree {LEFT_DEGREE} of Teff, log g and "
        f"[Fe/H] predict, of {len(trained.sample)} stars."
    )
    return f"{text}\n\n{table(head, rows)}"


def _domain(trained: Trained) -> str:
    outside = sum(not star.in_domain for star in trained.model.embed(trained.sample))
    return f"{outside} of {len(trained.sample)} stars are outside the domain of the model."
