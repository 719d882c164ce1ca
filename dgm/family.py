"""The family tree of generative models that opens every lecture."""

from matplotlib.axes import Axes

# name, lecture, centre (x, y) in the unit square, parent
FAMILY = (
    ("generative\nmodels", 0, (0.50, 0.92), None),
    ("explicit density", 0, (0.27, 0.70), 0),
    ("implicit density", 0, (0.85, 0.70), 0),
    ("exact\nlikelihood", 0, (0.10, 0.46), 1),
    ("bound or\nunnormalised", 0, (0.36, 0.46), 1),
    ("transport\nof noise", 0, (0.62, 0.46), 1),
    ("adversarial", 0, (0.87, 0.46), 2),
    ("GMM", 1, (0.035, 0.16), 3),
    ("flows", 3, (0.135, 0.16), 3),
    ("EBM", 2, (0.245, 0.16), 4),
    ("VAE", 4, (0.345, 0.16), 4),
    ("score", 8, (0.455, 0.16), 4),
    ("diffusion", 9, (0.56, 0.16), 5),
    ("flow\nmatching", 10, (0.675, 0.16), 5),
    ("GAN", 5, (0.775, 0.16), 6),
    ("domain\ntransfer", 6, (0.87, 0.16), 6),
    ("WGAN", 7, (0.965, 0.16), 6),
)


def draw_family_tree(ax: Axes, lecture: int) -> Axes:
    """Draw the tree with the branch of `lecture` (1-10) lit, the rest grey.

    Raises ValueError for a number that no leaf carries.
    """
    leaves = [i for i, (_, number, _, _) in enumerate(FAMILY) if number == lecture]
    if not leaves or lecture == 0:
        raise ValueError(f"lecture is a number from 1 to 10, not {lecture!r}")
    lit, node = set(), leaves[0]
    while node is not None:
        lit.add(node)
        node = FAMILY[node][3]
    for i, (name, number, (x, y), parent) in enumerate(FAMILY):
        on = i in lit
        if parent is not None:
            px, py = FAMILY[parent][2]
            color = "royalblue" if on else "lightgrey"
            ax.plot([px, x], [py, y], color=color, lw=2.5 if on else 1, zorder=2 if on else 1)
        label = f"{name}\n({number})" if number else name
        box = {"boxstyle": "round", "fc": "royalblue" if on else "white", "ec": "grey"}
        color = "white" if on else "dimgrey"
        ax.text(x, y, label, ha="center", va="center", fontsize=8, color=color, bbox=box, zorder=3)
    ax.set(xlim=(-0.02, 1.02), ylim=(0, 1.05))
    ax.axis("off")
    return ax
