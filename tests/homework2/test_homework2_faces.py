"""How problem 3's weights are scored: two routes to one number, useless networks, limits."""

import math

import homework1_master as master
import pytest
import torch
import torch.nn.functional as F

from homework2.oracles import faces as oracle
from homework2.oracles import realism

CELLS = master.load_master(master.ROOT / "homework2" / "homework2.py")


@pytest.fixture(scope="module")
def space():
    """The name space of the reference."""
    return master.start(CELLS)


@pytest.fixture(scope="module")
def net(space):
    """A trunk with weights at random everywhere, also where training starts at zero."""
    rng = torch.Generator().manual_seed(0)
    net = space["make_toy_net"]().requires_grad_(False).eval()
    for p in net.parameters():
        p += 0.03 * torch.randn(p.shape, generator=rng)
    return net


def small_faces(n, size=32):
    """Random small faces and noise for 6 levels."""
    rng = torch.Generator().manual_seed(1)
    y = torch.rand(n, 3, size // 4, size // 4, generator=rng) * 2 - 1
    return y, torch.randn(6, n, 3, size, size, generator=rng)


def test_trunks_are_as_small_as_they_say(space):
    """At most 1.5 million parameters; a file of them is below 10 MB."""
    counts = [
        sum(p.numel() for p in space[name]().parameters())
        for name in ("make_toy_net", "make_face_net")
    ]
    assert counts[0] < 400_000 and counts[1] < 1_500_000
    assert 4 * max(counts) < 10e6


def test_sampler_of_the_grader_and_of_the_reference_agree(space, net):
    """Euler's method in x / alpha against DDIM by the notebook's functions."""
    y, noise = small_faces(3)

    def model(x_t, lam, y):
        both = space["network_input"](x_t, y)
        guess, scale = space["simple_velocity"](x_t, lam, both[:, 3:])
        v = guess + scale * net(both, space["level_features"](lam, 16))
        return space["face_from"](v, x_t, lam, "v")

    levels = 4 + space["level_at"](torch.linspace(1, 0, 6), 5.0, -13.0)
    expected = space["draw_faces"](model, y, levels, noise, space["ddim_move"])
    found = oracle.drawn(net, y, noise[0], steps=6)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert float(expected.std()) > 0.1


def test_enlarging_by_the_kernel_and_by_torch_agree():
    """Oracle: F.interpolate, which image programs agree with."""
    y, _ = small_faces(2)
    want = F.interpolate(y, size=(32, 32), mode="bicubic", antialias=True).clamp(-1, 1)
    torch.testing.assert_close(oracle.enlarge(y, 32), want, rtol=1e-4, atol=1e-5)


def test_decibels_and_discrepancy_agree_with_the_reference(space):
    """The grader's measures and the notebook's, on the same images."""
    rng = torch.Generator().manual_seed(2)
    x = torch.rand(4, 3, 16, 16, generator=rng) * 2 - 1
    near = x + 0.4 * torch.randn(x.shape, generator=rng)
    assert math.isclose(
        oracle.decibels(x, near), float(space["psnr"](x, near).mean()), rel_tol=1e-5
    )
    a, b = (torch.randn(n, 5, generator=rng, dtype=torch.float64) for n in (7, 9))
    want = float(space["kernel_discrepancy"](a, b))
    faces = [realism.third_moments(v.numpy()[:, None]) for v in (a, b)]  # of one patch each
    assert math.isclose(realism.discrepancy(*faces), want, rel_tol=1e-4)
    rows = torch.randn(4, 6, 5, generator=rng, dtype=torch.float64).numpy()
    one, three = realism.third_moments(rows[:1]), realism.third_moments(rows[1:], chunk=2)
    kernel = [((rows[0] @ row.T / 5 + 1) ** 3).mean() for row in rows]
    assert math.isclose(one.total @ three.total, sum(kernel[1:]), rel_tol=1e-5)
    assert math.isclose(one.own, kernel[0], rel_tol=1e-9) and three.n == 3


def perfect(got):
    """Scores of a sampler that is exactly right."""
    changes = {
        "simple": got.regression - 7.5,
        "one": got.regression - 3.01,
        "gain": 2.04,
        "misfit": 0.001,
        "spread": 1.0,
    }
    return got._replace(**changes)


@pytest.fixture(scope="module")
def blurred(space):
    """Scores of a "sampler" that always answers the enlarged face, and of that as regression."""
    x = 2 * space["held_out_crops"](8, 32, torch.Generator().manual_seed(3), "toy") - 1
    y = space["low_res"](x, 4)

    seen = []

    def blur(images, features):  # undoes the noise that the Gaussian guess would leave
        return seen[-1]

    guess = oracle.guess

    def remember(network, x_t, condition, level):
        noise = math.exp(-level)
        shrunk = 0.11**2 / (0.11**2 + noise)
        left = shrunk * (x_t * math.sqrt(1 + noise) - condition)
        seen.append(left / math.sqrt(shrunk * noise))
        return guess(network, x_t, condition, level)

    oracle.guess = remember
    try:
        zero = lambda images, features: torch.zeros_like(images[:, :3])
        yield oracle.scores(blur, zero, x, y, torch.Generator().manual_seed(4))
    finally:
        oracle.guess = guess


def test_a_blurred_face_earns_nothing(blurred):
    """No gain by averaging and no spread, and its error is the regression's: it is no sample."""
    assert math.isclose(blurred.one, blurred.regression, abs_tol=0.05)
    assert abs(blurred.gain) < 0.05 and blurred.spread < 0.05
    assert oracle.points_of(blurred) == 0


def test_limits_hold_theory_and_exclude_what_is_useless(blurred):
    """A right sampler has all points; each limit alone costs its own."""
    right = perfect(blurred)
    assert oracle.points_of(right) == 4
    for change in (
        *({"gain": 1.0}, {"gain": 3.3}, {"misfit": 0.015}, {"spread": 0.4}, {"spread": 1.6}),
        {"spread": math.nan},
    ):
        assert oracle.points_of(right._replace(**change)) == 3, change
    top, low = right.regression, right.simple
    for one in (top + 0.2, top - 0.9, low, low + 0.6, math.nan):
        assert oracle.points_of(right._replace(one=one)) == 0


def test_a_network_that_returns_zeros_earns_nothing(space):
    """The simple guess alone has spread and gain: it must not be paid."""
    net = oracle.grader_network(space["TOY"].regression, space["FACE_NETS"])
    x = 2 * space["held_out_crops"](8, 32, torch.Generator().manual_seed(3), "toy") - 1
    zero = lambda images, features: torch.zeros_like(images[:, :3])
    got = oracle.scores(zero, net, x, space["low_res"](x, 4), torch.Generator().manual_seed(4))
    assert math.isclose(got.one, got.simple, abs_tol=1e-3) and oracle.points_of(got) == 0


@pytest.fixture(scope="module")
def album(space):
    """Faces, their small copies, other real faces, the grader's regression network, its answers."""
    rng = torch.Generator().manual_seed(5)
    x, real = (2 * space["held_out_crops"](n, 32, rng, "toy") - 1 for n in (96, 192))
    net, y = oracle.grader_network(space["TOY"].regression, space["FACE_NETS"]), F.avg_pool2d(x, 4)
    return x, y, real, net, oracle.regressed(net, y, 32)


def noise_adder(answers, y, std, grey):
    """A network whose samples are the answers and noise of this strength: its exact denoiser."""
    place = {oracle.enlarge(y[i : i + 1], 32).numpy().tobytes(): a for i, a in enumerate(answers)}

    def network(images, features):
        x_t, up = images[:, :3], images[:, 3:]
        level = float(torch.atan2(features[0, 0], features[0, 8])) * 32 / math.pi
        noise, mean = (
            math.exp(-level),
            torch.stack([place[u.numpy().tobytes()] for u in up[:, None]]),
        )
        seen = x_t * math.sqrt(1 + noise)
        off, many = seen - mean, 1  # many: numbers that are one and the same noise
        if grey:
            off, many = off.mean(1, keepdim=True), 3
        face = mean + std**2 / (std**2 + noise / many) * off
        shrunk = oracle.SPREAD**2 / (oracle.SPREAD**2 + noise)
        return (up + shrunk * (seen - up) - face) / math.sqrt(shrunk * noise)

    return network


@pytest.mark.parametrize(("strength", "grey"), [(0.0, False), (1.4, False), (1.05, True)])
def test_a_blurred_face_with_noise_does_not_look_real(album, strength, grey):
    """Kills: a limit that only the blurred face itself must keep (noise is nearer than blur)."""
    x, y, real, net, answers = album
    error = float((x - answers).square().mean().sqrt())
    cheat = noise_adder(answers, y, max(strength * error, 1e-3), grey)
    got = oracle.drawn(cheat, y[:4], torch.randn(4, 3, 32, 32))
    assert abs(float((got - answers[:4]).std()) - strength * error) < 0.2 * error
    found, blurred, noisy = realism.realism(
        cheat, net, x, real, y, torch.Generator().manual_seed(6)
    )
    assert found > realism.SHARE * noisy and noisy < 0.9 * blurred
    assert (found < blurred) == bool(strength)


@pytest.mark.slow
def test_real_faces_and_samples_of_the_reference_look_real(space, album):
    """Other photographs of the same kind lie below the limit; so do the reference's samples."""
    x, y, real, net, answers = album
    error = float((x - answers).square().mean().sqrt())
    others = realism.with_noise(answers, error, torch.Generator().manual_seed(7))
    far, same, *rest = map(realism.third_moments, realism.whitened_patches(real, x, *others))
    assert realism.discrepancy(far, same) < 0.5 * min(realism.discrepancy(far, v) for v in rest)
    own = oracle.grader_network(space["TOY"].sampler, space["FACE_NETS"])
    found, _, noisy = realism.realism(own, net, x, real, y, torch.Generator().manual_seed(8))
    assert found <= realism.SHARE * noisy


def test_an_output_of_another_shape_is_refused():
    """One image for all must not broadcast."""
    y, noise = small_faces(2)
    with pytest.raises(AssertionError, match="expected images"):
        oracle.drawn(lambda images, features: images[:1, :3], y, noise[0], 2)
    with pytest.raises(AssertionError, match="expected images"):
        oracle.regressed(lambda images, features: None, y, 32)


def test_points_are_those_that_the_statement_prints():
    """Problem 3: 33 visible, 14 hidden, 8 by a person; its assembly tasks hold 4."""
    tests = [c for c in CELLS if c.is_test and c.grade_id.startswith("p3-")]
    hidden = sum(c.points for c in tests if "BEGIN HIDDEN TESTS" in c.source)
    assert (sum(c.points for c in tests) - hidden, hidden) == (33, 14)
    assert sum(c.points for c in tests if c.course.get("depends")) == 4
