import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import seaborn as sns
from matplotlib.colors import to_rgba

from replication import plotting

OURS = (
    "axes.spines.right", "axes.spines.top", "axes.titlesize", "figure.constrained_layout.use",
    "figure.dpi", "savefig.dpi", "image.cmap", "backend",
)  # fmt: skip


def test_the_style_is_seaborns_but_for_what_it_says():
    with mpl.rc_context():
        mpl.rcdefaults()
        sns.set_theme(style="whitegrid", context="notebook", font_scale=0.9)
        theirs = mpl.rcParams.copy()
        mpl.rcdefaults()
        plotting.use_style()
        for name in set(theirs) - set(OURS):
            ours, wanted = mpl.rcParams[name], theirs[name]
            if name == "axes.prop_cycle":
                ours, wanted = ([to_rgba(c["color"]) for c in cycle] for cycle in (ours, wanted))
            elif isinstance(wanted, float):
                wanted = pytest.approx(wanted)
            elif name == "patch.edgecolor":
                ours, wanted = to_rgba(ours), to_rgba(wanted)
            assert ours == wanted, name


def test_panels_that_share_an_axis_show_the_tallest_bar_of_all():
    figure, panels = plt.subplots(1, 2, sharey=True)
    for axes, value in zip(panels, (20.0, 50.0), strict=True):
        plotting.bars_with_paper(axes, ["l2"], [value], [(value - 1, value + 5)], [value + 2])
    figure.canvas.draw()
    for axes in panels:
        assert axes.get_ylim()[0] == 0.0
        assert axes.get_ylim()[1] >= 55.0
    plt.close(figure)
