"""Every lecture lights one leaf and its ancestors; another number is refused."""

import matplotlib
import pytest
from matplotlib.figure import Figure

from dgm.family import FAMILY, draw_family_tree

matplotlib.use("Agg")


def lit(lecture: int) -> list[str]:
    """Names drawn on a blue box."""
    ax = draw_family_tree(Figure().subplots(), lecture)
    return [t.get_text() for t in ax.texts if t.get_color() == "white"]


def test_lit_branch_is_the_path_to_the_leaf():
    assert lit(4) == [
        "generative\nmodels",
        "explicit density",
        "bound or\nunnormalised",
        "VAE\n(4)",
    ]
    assert lit(7) == ["generative\nmodels", "implicit density", "adversarial", "WGAN\n(7)"]


def test_all_ten_lectures_have_one_leaf():
    assert sorted(number for _, number, _, _ in FAMILY if number) == list(range(1, 11))


@pytest.mark.parametrize("number", [0, 11, -1])
def test_unknown_lecture_is_refused(number):
    with pytest.raises(ValueError, match="from 1 to 10"):
        draw_family_tree(Figure().subplots(), number)
