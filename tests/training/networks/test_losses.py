import math

import pytest
import torch

from training.networks.losses import Auxiliary, Critic


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(1)


def linear_critic(tiny, slope: torch.Tensor, inputs: int, *changes: str) -> Critic:
    """A critic that is the scalar product with `slope`."""
    critic = Critic(tiny("factordis", *changes), inputs)
    layer = torch.nn.Linear(len(slope), 1, bias=False)
    layer.weight.data = slope[None]
    critic.network = layer
    return critic


def test_bins_are_equally_wide_and_joint(tiny):
    auxiliary = Auxiliary(tiny("faderdis", "joint_bins=true"))
    u = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [-0.79, -0.81, 0.01], [1.3, -2.0, 0.0]])
    assert auxiliary.classes(u)[:, 0].tolist() == [0, 999, 1 + 0 + 500, 9 + 0 + 500]
    assert auxiliary.network[-1].out_features == 1000
    assert Auxiliary(tiny()).classes(u)[2].tolist() == [1, 0, 5]


@pytest.mark.parametrize(("joint", "chance"), [("true", math.log(1000)), ("false", 3 * math.log(10))])
def test_a_classifier_that_knows_nothing_scores_chance(tiny, generator, joint, chance):
    auxiliary = Auxiliary(tiny("faderdis", f"joint_bins={joint}"))
    for parameter in auxiliary.parameters():
        parameter.data.zero_()
    u, z = torch.rand(64, 3) * 2 - 1, torch.randn(64, 20)
    loss = auxiliary.loss(z, u, z, lambda z, u: z, generator)
    assert loss.item() == pytest.approx(chance, rel=1e-5)
    assert auxiliary.penalty(z, u, z, lambda z, u: z, generator).item() == pytest.approx(-chance, rel=1e-5)


def test_the_gradient_penalty_is_that_of_the_slope(tiny, generator):
    """z = 0 and u constant: p and q are the same, only the penalty is left."""
    x, u, z = torch.zeros(32, 5), torch.ones(32, 3), torch.zeros(32, 20)
    slope = torch.zeros(28)
    slope[0] = 3.0
    critic = linear_critic(tiny, slope, 5)
    assert critic.loss(x, u, z, lambda z, u: x, generator).item() == pytest.approx(10 * (3 - 1) ** 2)
    slope[0] = 1.0
    assert critic.loss(x, u, z, lambda z, u: x, generator).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("sees", ["spectra", "reconstructions"])
def test_the_critic_sees_that_z_follows_u(tiny, generator, sees):
    """E_p - E_q of C = sum of z u is the covariance of z and u: 1 for z = u, 0 for independent ones."""

    class Product(torch.nn.Module):
        def forward(self, s):
            return s[:, 5:6] * s[:, 8:9]

    critic = Critic(tiny("factordis", f"critic_sees={sees}"), 5)
    critic.network = Product()
    u = torch.randn(4000, 3, generator=generator)
    x, free = torch.zeros(4000, 5), torch.randn(4000, 20, generator=generator)
    decode = lambda z, u: x  # noqa: E731
    critic.weight = 0.0
    tied = torch.cat([u[:, :1], free[:, 1:]], dim=1)
    for z, distance in ((tied, 1.0), (free, 0.0)):
        assert critic.penalty(x, u, z, decode, generator).item() == pytest.approx(distance, abs=0.1)
        assert critic.loss(x, u, z, decode, generator).item() == pytest.approx(-distance, abs=0.1)


def test_the_scrambled_samples_are_decoded_at_the_scrambled_parameters(tiny, generator):
    critic = Critic(tiny("factordis", "critic_sees=spectra"), 3)
    u, z, x = torch.randn(50, 3), torch.randn(50, 20), torch.randn(50, 3)
    joint, factored = critic._samples(x, u, z, lambda z, u: 2 * u, generator)
    assert torch.equal(joint, torch.cat([x, u, z], dim=1))
    assert torch.equal(factored[:, :3], 2 * factored[:, 3:6])
    assert torch.equal(factored[:, 6:], z)
    assert set(factored[:, 3].tolist()) == set(u[:, 0].tolist())
    assert not torch.equal(factored[:, 3:6], u)
