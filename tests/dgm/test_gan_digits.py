"""The small StyleGAN as one module and its discriminator: what each input may change."""

import pytest
import torch

from dgm.gan_digits import DigitCritic, StyleGan, StyleInput
from dgm.stylegan import mix_styles


@pytest.fixture
def generator():
    """A small generator whose noise strengths and biases have moved from zero."""
    torch.manual_seed(0)
    made = StyleGan(8, (6, 5, 4), 2).requires_grad_(False)
    for p in made.parameters():
        p += 0.2 * torch.randn_like(p)
    return made


def test_generator_is_mapping_mixing_synthesis(generator):
    """Oracle: the three parts called one after the other; z_fine rules from the crossover on."""
    given = generator.draw(3, torch.Generator().manual_seed(1))._replace(crossover=2)
    w, w_fine = generator.mapping(given.z), generator.mapping(given.z_fine)
    by_hand = generator.synthesis(torch.stack([w, w, *[w_fine] * 4], 1), given.noise)
    picture = generator(given)
    assert picture.shape == (3, 1, 28, 28)
    torch.testing.assert_close(picture, by_hand)
    whole = given._replace(crossover=6)
    other = generator(whole._replace(z_fine=given.z_fine + 1))
    torch.testing.assert_close(generator(whole), other)
    styles = mix_styles(w, w, 6, 6)
    torch.testing.assert_close(generator(whole), generator.synthesis(styles, given.noise))


def test_draws(generator):
    """Crossovers 1 .. L - 1 equally often when mixing is asked for, else L; fresh normal noise."""
    rng = torch.Generator().manual_seed(2)
    at = torch.tensor([generator.draw(1, rng, 0.5).crossover for _ in range(3000)])
    shares = torch.bincount(at, minlength=7) / 3000
    expected = torch.tensor([0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5])
    assert ((shares - expected).abs() <= 6 * (expected * (1 - expected) / 3000).sqrt()).all()
    given = generator.draw(200, rng)
    assert given.crossover == 6 and isinstance(given, StyleInput)
    assert not torch.equal(given.z, given.z_fine)
    for part in (given.z, given.z_fine, *given.noise):
        n = part.numel()
        assert abs(part.mean()) < 6 / n**0.5 and abs(part.var() - 1) < 6 * (2 / n) ** 0.5
    assert [tuple(n.shape) for n in given.noise] == generator.synthesis.noise_shapes(200)


def test_digit_critic_sees_the_batch_and_the_place():
    """One logit an image; it hears of the spread of the batch and of every pixel."""
    torch.manual_seed(0)
    critic = DigitCritic(4)
    x = torch.randn(4, 1, 28, 28, requires_grad=True)
    logits = critic(x)
    assert logits.shape == (4,)
    (slope,) = torch.autograd.grad(logits.sum(), x)
    assert (slope.abs().sum((0, 1)) > 0).all()
    same = x[:1].expand(4, -1, -1, -1)
    torch.testing.assert_close(critic(same), critic(same)[:1].expand(4))
    assert (critic(same)[0] - logits[0]).abs() > 1e-6  # the same image among others


def test_digit_critic_is_that_of_the_notebook():
    """Oracle: the forward pass written out with the layers of the critic."""
    torch.manual_seed(0)
    critic, x = DigitCritic(4).double(), torch.randn(3, 1, 28, 28, dtype=torch.float64)
    bent = lambda v: torch.where(v > 0, v, 0.2 * v)
    h = bent(critic.first(x))
    for k in range(2):
        h = bent(critic.conv[k](h)) + critic.skip[k](h)
        h = h.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    spread = (h.var(0, correction=0) + 1e-8).sqrt().mean().expand(3, 1, 7, 7)
    h = bent(critic.last(torch.cat([h, spread], 1))).flatten(1)
    torch.testing.assert_close(critic(x), critic.logit(bent(critic.hidden(h)))[:, 0])
