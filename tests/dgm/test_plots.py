"""Plots: what is on the axes is what was handed in, in place, in scale and in the house colours."""

import base64
import io
import re
import subprocess

import imageio_ffmpeg
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from dgm import film
from dgm.plots import (
    CRITIC,
    DATA,
    MODEL,
    animate,
    film_strip,
    plot_density,
    plot_density_pair,
    plot_field,
    plot_losses,
    plot_points,
    show_images,
)


@pytest.fixture
def ax():
    """A fresh ax; closed afterwards."""
    fig, made = plt.subplots()
    yield made
    plt.close(fig)


def _shifted_gaussian(x):
    """N((1, -0.5), 0.3^2 I)."""
    return -(x - torch.tensor([1.0, -0.5])).square().sum(-1) / 0.18


def test_density_is_drawn_where_it_lies(ax):
    """The brightest pixel is at the mode; first coordinate to the right, second upwards."""
    assert plot_density(ax, _shifted_gaussian, lim=2.0, n=80) is ax
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    row, column = np.unravel_index(image.get_array().argmax(), (80, 80))
    assert image.origin == "lower" and image.get_cmap().name == "viridis"
    assert left + (column + 0.5) * (right - left) / 80 == pytest.approx(1.0, abs=0.03)
    assert bottom + (row + 0.5) * (top - bottom) / 80 == pytest.approx(-0.5, abs=0.03)
    assert ax.get_xlim() == ax.get_ylim() == (-2, 2)


def test_pair_shares_the_scale_of_the_exact_density():
    """A flatter learned density looks flatter: both scales run from 0 to the exact maximum."""
    fig, axes = plt.subplots(1, 2)
    flat = lambda x: _shifted_gaussian(x) - 1
    assert plot_density_pair(axes, _shifted_gaussian, flat, lim=2.0) is axes
    limits = [a.images[0].get_clim() for a in axes]
    assert limits[0] == limits[1] and limits[0][1] == pytest.approx(1, abs=0.01)
    assert axes[1].images[0].get_array().max() == pytest.approx(np.exp(-1), abs=0.01)
    assert [a.get_title() for a in axes] == ["exact", "learned"]
    plt.close(fig)


def test_points_keep_place_and_colour(ax):
    """Offsets are the points; data's colour unless told; a model's points take its colour."""
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plot_points(plot_points(ax, x), x + 1, MODEL, label="model", s=9)
    first, second = ax.collections
    np.testing.assert_allclose(first.get_offsets(), x.detach())
    np.testing.assert_allclose(second.get_offsets(), x.detach() + 1)
    assert to_rgba(DATA)[:3] == tuple(first.get_facecolor()[0][:3])
    assert to_rgba(MODEL)[:3] == tuple(second.get_facecolor()[0][:3])
    assert second.get_sizes() == [9] and second.get_label() == "model"
    assert len({DATA, MODEL, CRITIC}) == 3


def test_field_arrows_start_and_point_right(ax):
    """Arrows sit on the grid and have the field's components, without regard to gradients."""
    weight = torch.tensor([[0.0, 2.0], [-1.0, 0.0]], requires_grad=True)
    plot_field(ax, lambda x: x @ weight, lim=1.0, n=3)
    (arrows,) = ax.collections
    grid = torch.cartesian_prod(torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 3))
    np.testing.assert_allclose(arrows.get_offsets(), grid)
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], 1), grid @ weight.detach())


def test_losses_and_their_running_mean(ax):
    """The pale curve is the losses; the strong one their mean over 1/50 of the steps."""
    values = torch.randn(500, generator=torch.Generator().manual_seed(0)).tolist()
    plot_losses(ax, values, label="train")
    pale, mean = ax.lines
    np.testing.assert_allclose(pale.get_ydata(), values)
    oracle = np.convolve(values, np.ones(10) / 10, mode="valid")
    np.testing.assert_allclose(mean.get_ydata(), oracle, atol=1e-12)
    assert mean.get_label() == "train" and ax.get_xlabel() == "step"


def test_losses_of_a_short_run(ax):
    """Fewer than 50 steps: the mean is the losses."""
    plot_losses(ax, [3.0, 2.0, 1.0])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [3, 2, 1])


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_images_in_reading_order(ax, channels):
    """Image k stands in row k // columns, column k % columns; what is missing stays white."""
    shape = (7, 4, 5) if channels is None else (7, channels, 4, 5)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    show_images(ax, x, columns=3, border=1)
    sheet = np.asarray(ax.images[0].get_array())
    assert sheet.shape[:2] == (3 * 5 - 1, 3 * 6 - 1)
    for k in range(7):
        top, left = 5 * (k // 3), 6 * (k % 3)
        expected = x[k] if channels is None else x[k].permute(1, 2, 0).squeeze(-1)
        np.testing.assert_allclose(sheet[top : top + 4, left : left + 5], expected)
    assert (sheet[10:, 6:] == 1).all() and (sheet[4] == 1).all()
    assert ax.images[0].get_clim() == (0, 1) and not ax.axison


def test_film_strip_shows_first_and_last():
    """Evenly spaced frames, one on each ax, the ends among them."""
    fig, axes = plt.subplots(1, 4)
    seen = []
    assert film_strip(axes, lambda ax, k: seen.append((ax, k)), frames=31) is axes
    assert seen == list(zip(axes, [0, 10, 20, 30]))
    plt.close(fig)


def _draw(ax, k):
    """A black square that grows with k."""
    ax.set(xlim=(0, 10), ylim=(0, 10))
    ax.fill_between([0, k], 0, 10, color="black")
    ax.set_axis_off()


def _frames(page: str) -> np.ndarray:
    """Decode the video of a page with ffmpeg: (T, H, W) grey."""
    data = base64.b64decode(re.search(r"data:video/mp4;base64,([^\"]+)", page)[1])
    width = int(re.search(r'width="(\d+)"', page)[1])
    command = f"{imageio_ffmpeg.get_ffmpeg_exe()} -loglevel error -i - -f rawvideo -pix_fmt gray -"
    raw = subprocess.run(command.split(), input=data, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, width // 2 * 2, width)


def test_video_has_every_frame():
    """Oracle: ffmpeg decodes as many frames as were drawn, darker and darker."""
    page = animate(_draw, 6, size=(2, 2), dpi=50).data
    frames = _frames(page)
    assert frames.shape == (6, 100, 100)
    dark = (frames < 128).mean((1, 2))
    np.testing.assert_allclose(np.diff(dark), 0.1, atol=0.02)
    assert page.startswith("<video controls") and not plt.get_fignums()


@pytest.mark.parametrize("ffmpeg", [True, False])
def test_the_same_drawing_gives_the_same_page(ffmpeg, monkeypatch):
    """No time stamp, no random id, with ffmpeg and without; other drawings, other pages."""
    if not ffmpeg:
        monkeypatch.setattr(film, "_ffmpeg", lambda: None)
    pages = [animate(_draw, 3, size=(1, 1), dpi=40).data for _ in range(2)]
    assert pages[0] == pages[1] != animate(_draw, 2, size=(1, 1), dpi=40).data


def test_player_without_ffmpeg(monkeypatch):
    """matplotlib's own player with all frames as pictures inside the page."""
    monkeypatch.setattr(film, "_ffmpeg", lambda: None)
    page = animate(_draw, 4, size=(1, 1), dpi=40).data
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    shown = [plt.imread(io.BytesIO(base64.b64decode(p.replace("\\\n", "")))) for p in pictures]
    assert len(shown) == 4 and shown[0].mean() > shown[3].mean()


@pytest.mark.parametrize("ffmpeg", [True, False])
def test_cap_is_kept(ffmpeg, monkeypatch):
    """Noise cannot be packed: refused with its size, the cap and the mend; no figure stays open."""
    if not ffmpeg:
        monkeypatch.setattr(film, "_ffmpeg", lambda: None)
    noise = lambda ax, k: ax.imshow(np.random.default_rng(k).random((40, 40)))
    with pytest.raises(ValueError, match=r"takes \d+ characters .*9000 are allowed.*fewer frames"):
        animate(noise, 12, size=(2, 2), dpi=60, cap=9000)
    assert not plt.get_fignums()


def test_player_drops_frames_until_it_fits(monkeypatch):
    """Without ffmpeg a cap below the whole film is met: fewer frames, then smaller pictures."""
    monkeypatch.setattr(film, "_ffmpeg", lambda: None)
    sizes = lambda page: [
        plt.imread(io.BytesIO(base64.b64decode(p.replace("\\\n", "")))).shape[0]
        for p in re.findall(r"data:image/png;base64,([^\"]+)", page)
    ]
    noise = lambda ax, k: ax.imshow(np.random.default_rng(k).random((40, 40)))
    best = len(animate(noise, 8, size=(2, 2), dpi=60).data)
    for cap, shown in ((best, 8 * [120]), (best - 1, 4 * [120]), (best // 4, 2 * [72])):
        page = animate(noise, 8, size=(2, 2), dpi=60, cap=cap).data
        assert len(page) <= cap and sizes(page) == shown
    assert re.search(r"new Animation\(frames, img_id, slider_id, (\S+),", page)[1] == "333"


def test_quality_falls_until_it_fits():
    """A cap between the sizes at best and least quality is met by a coarser film."""
    noise = lambda ax, k: ax.imshow(np.random.default_rng(k).random((40, 40)))
    best = len(animate(noise, 6, size=(2, 2), dpi=60).data)
    assert len(animate(noise, 6, size=(2, 2), dpi=60, cap=best * 3 // 4).data) <= best * 3 // 4
