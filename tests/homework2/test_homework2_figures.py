"""Problem 3 beside the notebook: the judge's sheet of faces, reported numbers, half precision."""

import re
import tomllib

import homework1_master as master
import pytest
import torch

from homework2.oracles import figures

HOMEWORK = master.ROOT / "homework2"
CELLS = master.load_master(HOMEWORK / "homework2.py")


@pytest.fixture(scope="module")
def space():
    """The name space of the reference."""
    return master.start(CELLS)


class Fake:
    """Weights whose `forward` is a function of its inputs."""

    def __init__(self, forward):
        self.forward = forward

    def call(self, method, *args):
        assert method == "forward"
        return self.forward(*args)


def sheet(space, baseline=True):
    """The sheet of a sampler that returns zeros and of a baseline that adds 0.25; its faces."""
    nets = {figures.FACES: Fake(lambda both, features: torch.zeros_like(both[:, :3]))}
    if baseline:
        nets[figures.BASELINE] = Fake(lambda both, features: torch.full_like(both[:, :3], 0.25))

    def trained(file, build):
        assert build == "make_toy_net"
        if file not in nets:
            raise AssertionError("no weights")
        return nets[file]

    make = lambda name: torch.Generator().manual_seed(len(name))
    released = {**space, "homework_rng": make}
    ((words, picture),) = figures.face_sheets(trained, None, None, make, released)
    assert words.startswith(figures.FACES)
    faces = space["held_out_crops"](6, 32, make("figures"), "toy")
    tiles = picture[:, :, : 9 * 34].unfold(1, 32, 34).unfold(2, 32, 34)  # 3, rows, columns, ...
    return picture, tiles.permute(1, 2, 0, 3, 4), faces


def test_a_row_holds_one_face_in_nine_versions(space):
    """Small, bicubic, regression, four samples, mean, true; four samples differ; white gaps."""
    picture, tiles, faces = sheet(space)
    assert picture.shape == (3, 6 * 34 - 2, 9 * 34 - 2) and tiles.shape[:2] == (6, 9)
    torch.testing.assert_close(tiles[:, 8], faces)
    small = space["low_res"](faces, 4)
    torch.testing.assert_close(tiles[:, 0, :, ::4, ::4], small)
    torch.testing.assert_close(tiles[:, 0, :, 3::4, 3::4], small)
    both = space["network_input"](2 * faces - 1, 2 * small - 1)
    torch.testing.assert_close(2 * tiles[:, 1] - 1, both[:, 3:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tiles[:, 2], tiles[:, 1] + 0.125)
    torch.testing.assert_close(tiles[:, 7], tiles[:, 3:7].mean(1))
    away = (tiles[:, 3:7] - tiles[:, 1:2]).abs().mean((2, 3, 4))  # a guess of deviation 0.055
    assert float(away.max()) < 0.07
    assert float(tiles[:, 3:7].var(1).min(1).values.mean()) > 1e-5
    assert float(picture[:, 32:34].min()) == 1 == float(picture[:, :, 32:34].min())


def test_without_a_baseline_its_column_is_grey(space):
    """The samples are drawn all the same."""
    _, tiles, faces = sheet(space, baseline=False)
    assert float((tiles[:, 2] - 0.5).abs().max()) == 0
    torch.testing.assert_close(tiles[:, 8], faces)


SAID = """128 held-out toy faces, DDIM with 50 calls of the network
answer            PSNR, dB    SSIM   misfit of small copy   MMD of patches
bicubic              25.61   0.681                0.0143           0.0414
regression            0.125   0.871                0.0036           0.0138
one sample            0.125   0.607                 0.125           0.0033
mean of 4            27.90   0.770                0.0073           0.0086
mean of 4 against one sample: +0.125 dB
spread of 4 samples 0.0530, error of the regression 0.0323, one over the other 0.125
sliced W1 to fresh points = 0.125, of two samples of the law 0.012
reflow       sliced W1 at S = 1 ... 32: 0.125 0.080; mean |x1 - x0|^2 = 1.26
"""
PRINTED = {
    "p1-wgan-hidden": "sliced W1 to fresh points = 0.125",
    "p4-weights-hidden": "sliced W1 of one midpoint step = 0.125",
    "p3-baseline-hidden": "toy: PSNR of your regression network 0.125 dB, of the grader's 30.1 dB",
    "p3-samples-hidden": "toy: regression 30.01 dB, simple guess 22.9 dB, one sample 0.125 dB, "
    "mean of 4 +0.125 dB, misfit 0.125, spread 0.125",
}


def test_figures_and_reports_name_cells_of_the_master():
    """Figures stand in cells that a person marks; a report's patterns fit what is printed."""
    text = (HOMEWORK / "homework2.py").read_text(encoding="utf-8")
    for name in figures.FIGURES:
        (line,) = [x for x in text.splitlines() if f'"grade_id": "{name}"' in x]
        assert '"grade": true, "solution": true' in line
    reports = tomllib.loads((HOMEWORK / "oracles/reports.toml").read_text(encoding="utf-8"))
    assert {r["test"] for r in reports["report"]} == set(PRINTED)
    for report in reports["report"]:
        assert f'"grade_id": "{report["test"]}"' in text
        assert re.findall(report["claimed"], SAID)[-1].lstrip("+") == "0.125", report["name"]
        assert re.findall(report["measured"], PRINTED[report["test"]])[-1].lstrip("+") == "0.125"


def test_lines_that_reports_read_are_printed_by_the_master():
    """The table's rows and the words around the numbers stand in the source."""
    text = (HOMEWORK / "homework2.py").read_text(encoding="utf-8")
    for words in (
        'held-out {SETTING.name} faces, DDIM with 50 calls of the network")\nprint("answer',
        '{:16s}  {:8.2f}  {:6.3f}  {:20.4f}  {:15.4f}".format(name, *numbers)',
        'print(f"mean of 4 against one sample: {gain.mean():+.2f} dB")',
        "one over the other {spread / error:.2f}",
        "{kind.name}: PSNR of your regression network {found:.2f}",
        'sliced W1 at S = 1 ... 32: "',
    ):
        assert text.count(words) == 1, words


def gradients(net, call, scale):
    """Gradients of a small loss, all in one row."""
    rng = torch.Generator().manual_seed(1)
    images, target = torch.randn(2, 2, 6, 16, 16, generator=rng)
    out = call(images, torch.randn(2, 16, generator=rng))
    assert out.dtype == torch.float32
    net.zero_grad()
    (scale * (out - target[:, :3]).square().mean()).backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def test_half_precision_keeps_small_gradients(space):
    """Oracle: single precision. Gradients of 1e-8 would be 0 in float16 without the factor."""
    rng, net = torch.Generator().manual_seed(0), space["make_toy_net"]()
    for p in net.parameters():
        p.data += 0.03 * torch.randn(p.shape, generator=rng)
    exact = gradients(net, net, 1e-4)

    def plain(images, features):
        with torch.autocast("cpu", torch.float16):
            return net(images, features).float()

    lost = (gradients(net, plain, 1e-4) - exact).norm() / exact.norm()
    half = (gradients(net, space["in_half"](net, "cpu"), 1e-4) - exact).norm() / exact.norm()
    assert float(half) < 0.02 < 0.2 < float(lost)
    with torch.no_grad():  # sampling
        assert (
            space["in_half"](net, "cpu")(torch.ones(1, 6, 16, 16), torch.ones(1, 16))
            .isfinite()
            .all()
        )


def test_a_gradient_that_overflows_changes_nothing(space):
    """It is 0 and not NaN, so that clipping and Adam go on."""
    net = space["make_toy_net"]()
    torch.nn.init.ones_(net.leave.weight)
    got = gradients(net, space["in_half"](net, "cpu"), 1e9)
    assert got.isfinite().all() and float((got == 0).float().mean()) > 0.5
