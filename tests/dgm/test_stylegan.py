"""StyleGAN's parts: statistics, loops over examples, and what each part may not change."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dgm.stylegan import (
    EqualLinear,
    MappingNetwork,
    StyleLayer,
    StyleSynthesis,
    adain,
    batch_std_channel,
    fade_in,
    mix_styles,
    modulated_conv,
    pixel_norm,
    truncate,
    upsample,
)


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.fixture
def synthesis():
    """A small generator of double precision, all of its parameters moved from where they start."""
    torch.manual_seed(0)
    made = StyleSynthesis(5, widths=(6, 4, 3), base=4, out=2).double()
    for p in made.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return made


def _noise(synthesis, b, seed=0):
    return [_draw(*s, seed=seed + k) for k, s in enumerate(synthesis.noise_shapes(b))]


def test_pixel_norm_leaves_the_direction():
    """Oracle: unit mean square along the channels, and the direction of x."""
    x = _draw(3, 7, 2, 2)
    y = pixel_norm(x)
    torch.testing.assert_close(y.square().mean(1), torch.ones(3, 2, 2).double())
    torch.testing.assert_close(F.normalize(y, dim=1), F.normalize(x, dim=1))


def test_equal_linear_starts_with_the_variance_of_its_input():
    """Oracle: He's scale whatever `slow`; Adam's step of size lr moves the effective weight by
    lr times slow over root d_in; the bias starts where it should."""
    torch.manual_seed(0)
    x = torch.randn(2_000, 400)
    for slow in (1.0, 0.01):
        layer = EqualLinear(400, 300, bias=2.0, slow=slow)
        y = layer(x) - 2.0
        torch.testing.assert_close(layer(torch.zeros(1, 400)), torch.full((1, 300), 2.0))
        se = 6 * math.sqrt(2 * (1 / 400 + 1 / 300 + 1 / 2_000))  # of the variance of a product
        assert abs(y.var().item() - 1) < se
        before = layer(torch.eye(400)).detach()
        layer.weight.data += 1e-2
        moved = layer(torch.eye(400)) - before
        torch.testing.assert_close(
            moved, torch.full_like(moved, 1e-2 * slow / 20), rtol=0.05, atol=1e-6
        )


def test_mapping_forgets_the_length_of_z():
    """Oracle: z and 3 z are one point of the sphere; different directions differ."""
    torch.manual_seed(0)
    mapping, z = MappingNetwork(6).double(), _draw(4, 6)
    torch.testing.assert_close(mapping(3 * z), mapping(z), rtol=1e-6, atol=1e-6)
    assert (mapping(z)[0] - mapping(z)[1]).abs().max() > 0.1


def test_adain_gives_the_statistics_of_the_style():
    """Oracle: mean and standard deviation of the output, each map of each example."""
    x, scale, shift = 5 + 3 * _draw(2, 3, 6, 6), _draw(2, 3, seed=1).exp(), _draw(2, 3, seed=2)
    y = adain(x, scale, shift)
    torch.testing.assert_close(y.mean((2, 3)), shift)
    torch.testing.assert_close(y.std((2, 3), correction=0), scale)


@pytest.mark.parametrize("demodulate", [False, True])
def test_modulated_conv_is_a_loop_over_examples(demodulate):
    """Oracle: torch's convolution, one example and one set of weights at a time."""
    x, weight, style = _draw(3, 4, 5, 5), _draw(2, 4, 3, 3, seed=1), _draw(3, 4, seed=2)
    y = modulated_conv(x, weight, style, demodulate)
    for n in range(3):
        w = weight * style[n][None, :, None, None]
        if demodulate:
            w = w / w.flatten(1).norm(dim=1)[:, None, None, None]
        torch.testing.assert_close(y[n], F.conv2d(x[n], w, padding=1), rtol=1e-6, atol=1e-7)


def test_demodulation_makes_the_size_of_the_style_void():
    """Oracle: twice the style, the same output; white input gives maps of variance 1."""
    x, weight, style = _draw(8, 6, 24, 24), _draw(5, 6, 3, 3, seed=1), _draw(8, 6, seed=2)
    y = modulated_conv(x, weight, style)
    torch.testing.assert_close(modulated_conv(x, weight, 2 * style), y, rtol=1e-6, atol=1e-7)
    inner = y[:, :, 1:-1, 1:-1]  # the border sees the padding
    assert abs(inner.var().item() - 1) < 0.1  # 19,360 values, neighbours correlated


def test_noise_enters_only_by_its_strength():
    """Oracle: at the start no noise at all; then the value before the activation moves by it."""
    layer, x, w = StyleLayer(3, 2, 4).double(), _draw(2, 3, 4, 4), _draw(2, 4, seed=1)
    a, b = _draw(2, 1, 4, 4, seed=2), _draw(2, 1, 4, 4, seed=3)
    torch.testing.assert_close(layer(x, w, a), layer(x, w, b))
    layer.strength.data += 0.5

    def before(y):
        y = y / math.sqrt(2)
        return torch.where(y < 0, y / 0.2, y)

    moved = before(layer(x, w, a)) - before(layer(x, w, b))
    torch.testing.assert_close(moved, (0.5 * (a - b)).expand(-1, 2, -1, -1))


def test_synthesis_sums_the_pictures_of_all_levels(synthesis):
    """Oracle: the first level alone, upsampled, is the whole where the later ones are silenced."""
    w, noise = _draw(2, 6, 5), _noise(synthesis, 2)
    assert synthesis(w, noise).shape == (2, 2, 16, 16)
    for layer in synthesis.to_image[1:]:
        layer.weight.data.zero_(), layer.bias.data.zero_()
    low = synthesis(w, noise, levels=1)
    torch.testing.assert_close(synthesis(w, noise), upsample(upsample(low)))


def test_each_layer_reads_its_own_style(synthesis):
    """Oracle: gradients. The picture of the first level depends on the first two styles only."""
    w, noise = _draw(1, 6, 5).requires_grad_(), _noise(synthesis, 1)
    (grad,) = torch.autograd.grad(synthesis(w, noise, levels=1).square().sum(), w)
    assert (grad[0, :2].abs().amax(1) > 1e-9).all() and not grad[0, 2:].any()
    (grad,) = torch.autograd.grad(synthesis(w, noise).square().sum(), w)
    assert (grad[0].abs().amax(1) > 1e-9).all()
    for layer in [*synthesis.first, *synthesis.to_image]:
        layer.style.weight.data.zero_()  # now only the second layers of each level listen
    (grad,) = torch.autograd.grad(synthesis(w, noise).square().sum(), w)
    assert not grad[0, ::2].any() and (grad[0, 1::2].abs().amax(1) > 1e-9).all()


def test_mixing_takes_coarse_layers_from_the_first():
    """Oracle: written out layer by layer, with both ends."""
    a, b = _draw(2, 5), _draw(2, 5, seed=1)
    for crossover in (0, 2, 6):
        mixed = mix_styles(a, b, 6, crossover)
        assert mixed.shape == (2, 6, 5)
        for k in range(6):
            assert torch.equal(mixed[:, k], a if k < crossover else b)


def test_truncation_and_growth_are_lines():
    """Oracle: their ends, and the standard deviation of truncated w."""
    w, mean = _draw(500, 3), torch.full((3,), 2.0).double()
    torch.testing.assert_close(truncate(w, mean, 0.0), mean.expand(500, 3))
    torch.testing.assert_close(truncate(w, mean, 1.0), w)
    torch.testing.assert_close(truncate(w, mean, 0.3).std(0), 0.3 * w.std(0))
    low, high = _draw(1, 1, 2, 2), _draw(1, 1, 4, 4, seed=1)
    doubled = torch.from_numpy(np.kron(low[0, 0].numpy(), np.ones((2, 2))))
    torch.testing.assert_close(fade_in(low, high, 0.0)[0, 0], doubled)
    torch.testing.assert_close(fade_in(low, high, 1.0), high)


def test_batch_std_channel_sees_collapse():
    """Oracle: numpy's standard deviation over the batch; nothing for equal examples."""
    x = _draw(4, 3, 2, 2)
    y = batch_std_channel(x)
    assert y.shape == (4, 4, 2, 2) and torch.equal(y[:, :3], x)
    oracle = torch.tensor(x.numpy().std(0).mean())
    torch.testing.assert_close(y[:, 3], oracle.expand(4, 2, 2), rtol=1e-6, atol=1e-6)
    assert batch_std_channel(x[:1].expand(4, -1, -1, -1))[:, 3].abs().max() < 1e-3
