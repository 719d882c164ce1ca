"""Animations as inline HTML: an mp4 in the page, or matplotlib's own player without ffmpeg.

The same drawing gives the same bytes: no time stamps, no random ids.
"""

import base64
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation


def animate(
    draw: Callable,
    frames: int,
    size: tuple[float, float] = (4.0, 4.0),
    fps: int = 12,
    dpi: int = 90,
    cap: int = 500_000,
) -> "HTML":  # noqa: F821  (IPython is imported only where there is a notebook)
    """Inline HTML5 video of draw(ax, k), k = 0 .. frames - 1, each on a cleared ax.

    size in inches; `cap` bounds the length of the HTML in characters: quality falls until it fits
    (without ffmpeg: fewer frames, then a lower dpi), else ValueError. Returns an IPython HTML
    object; put a `film_strip` of `draw` beside it.
    """
    from IPython.display import HTML

    fig, ax = plt.subplots(figsize=size, dpi=dpi, layout="constrained")

    def redraw(k: int) -> list:
        ax.clear()
        draw(ax, k)
        return []

    try:
        if _ffmpeg() is None:
            page = _js_player(fig, redraw, frames, fps, cap)
        else:
            page = _video(np.stack([_pixels(fig, redraw, k) for k in range(frames)]), fps, cap)
    finally:
        plt.close(fig)
    return HTML(page)


def _pixels(fig, redraw: Callable, k: int) -> np.ndarray:
    """Frame k as (H, W, 3) bytes with even H and W, as the codec wants."""
    redraw(k)
    fig.canvas.draw()
    rgb = np.array(fig.canvas.buffer_rgba())[..., :3]  # a copy: the canvas is drawn over
    return rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2]


def _ffmpeg() -> str | None:
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


def _video(pixels: np.ndarray, fps: int, cap: int) -> str:
    """Video tag around an mp4 of pixels (T, H, W, 3)."""
    for crf in (23, 28, 33, 38):
        film = base64.b64encode(_mp4(pixels, fps, crf)).decode()
        page = (
            f'<video controls loop muted width="{pixels.shape[2]}">'
            f'<source type="video/mp4" src="data:video/mp4;base64,{film}"></video>'
        )
        if len(page) <= cap:
            return page
    raise ValueError(
        f"the animation takes {len(page)} characters at the lowest quality, {cap} are allowed: "
        "take fewer frames, a smaller size or a lower dpi"
    )


def _mp4(pixels: np.ndarray, fps: int, crf: int) -> bytes:
    """H.264 in a fragmented mp4, which can be written to a pipe; one thread and no metadata."""
    t, h, w, _ = pixels.shape
    source = f"-f rawvideo -pix_fmt rgb24 -s {w}x{h} -r {fps} -i -"
    code = f"-c:v libx264 -preset slow -crf {crf} -pix_fmt yuv420p -threads 1"
    form = (
        "-map_metadata -1 -fflags +bitexact -flags:v +bitexact -movflags frag_keyframe+empty_moov"
    )
    command = [_ffmpeg(), "-loglevel", "error", *f"{source} {code} {form} -f mp4 -".split()]
    done = subprocess.run(command, input=pixels.tobytes(), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"ffmpeg failed: {done.stderr.decode(errors='replace')[-300:]}")
    return done.stdout


def _js_player(fig, redraw: Callable, frames: int, fps: int, cap: int) -> str:
    """Pictures and buttons: all frames or every k-th, at the finest of a few sizes that fit."""
    dpi = fig.dpi
    for every, share in ((1, 1.0), (2, 1.0), (4, 1.0), (4, 0.6), (8, 0.4)):
        fig.set_dpi(share * dpi)
        page = _js_page(fig, redraw, range(0, frames, every), max(1, fps // every))
        if len(page) <= cap:
            return page
    raise ValueError(
        f"the animation takes {len(page)} characters without ffmpeg, {cap} are allowed: "
        "install imageio-ffmpeg, or take fewer frames, a smaller size or a lower dpi"
    )


def _js_page(fig, redraw: Callable, shown: range, fps: int) -> str:
    """matplotlib's player of the frames `shown`, with an id made of its content."""
    film = FuncAnimation(fig, redraw, frames=shown, init_func=lambda: [])
    page = film.to_jshtml(fps=fps, embed_frames=True, default_mode="loop")
    random_id = re.search(r"_anim_img([0-9a-f]{32})", page)[1]
    content = hashlib.sha256(page.replace(random_id, "").encode()).hexdigest()
    return page.replace(random_id, content[:32])
