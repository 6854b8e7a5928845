"""An entry to the benchmark: a plain conditional variational autoencoder, trained on a CPU in minutes.

python docs/examples/conditional_vae.py train.h5 test.h5 mine.npz [STEPS]
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.random_streams import Stream
from training.surveys.survey import Survey, add_noise

COMPONENTS, LATENTS, WIDTH, BATCH, SNR = 100, 20, 256, 256, 100.0


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, outputs)
    )


def scaled(survey: Survey) -> torch.Tensor:  # u: Teff, log g and [Fe/H]
    return torch.tensor((survey.parameters - (4500, 2.25, -0.1)) / (500, 0.75, 0.3), dtype=torch.float32)


def projected(survey: Survey, axes: np.ndarray, mean: np.ndarray, snr: float) -> torch.Tensor:
    blocks = survey.blocks(f"S/N {snr:g}")  # the benchmark's noise, block by block
    noisy = (add_noise(flux, snr, Stream.EVALUATION_NOISE, rows.start) for rows, flux in blocks)
    return torch.from_numpy(np.concatenate([(flux - mean) @ axes for flux in noisy]))


torch.manual_seed(1)
train, test = (Survey.open(Path(name)) for name in sys.argv[1:3])
flux = train.flux(slice(0, 5000))
mean = flux.mean(axis=0)
axes = np.ascontiguousarray(torch.pca_lowrank(torch.from_numpy(flux - mean), COMPONENTS, niter=4)[2].numpy())
x, u = projected(train, axes, mean, np.inf), scaled(train)
scale = (x.var(dim=0) + SNR**-2).sqrt()
encoder, decoder = network(COMPONENTS + 3, 2 * LATENTS), network(LATENTS + 3, COMPONENTS)
optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
steps = int(sys.argv[4]) if len(sys.argv) > 4 else 30_000
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
for _ in range(steps):
    rows = torch.randint(len(x), (BATCH,))
    noisy = x[rows] + torch.randn(BATCH, COMPONENTS) / SNR
    middle, log_sd = encoder(torch.cat([noisy / scale, u[rows]], dim=1)).chunk(2, dim=1)
    z = middle + log_sd.exp() * torch.randn_like(middle)
    residual = (decoder(torch.cat([z, u[rows]], dim=1)) * scale - noisy) * SNR
    kl = (middle**2 + (2 * log_sd).exp()) / 2 - log_sd
    loss = (residual**2).sum(dim=1).mean() / 2 + kl.sum(dim=1).mean()
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([*encoder.parameters(), *decoder.parameters()], 100.0)
    optimiser.step()
    decay.step()
with torch.no_grad():
    latents = {}
    for snr in (np.inf, 100.0, 50.0, 30.0):
        inputs = torch.cat([projected(test, axes, mean, snr) / scale, scaled(test)], dim=1)
        latents[f"latent_{snr:g}"] = encoder(inputs)[:, :LATENTS].numpy()
np.savez(sys.argv[3], star_id=np.array(test.star_id), **latents)
