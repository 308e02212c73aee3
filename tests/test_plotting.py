import matplotlib.pyplot as plt

from lib import plotting


def test_panels_that_share_an_axis_show_the_tallest_bar_of_all():
    figure, panels = plt.subplots(1, 2, sharey=True)
    for axes, value in zip(panels, (20.0, 50.0), strict=True):
        plotting.bars_with_paper(axes, ["l2"], [value], [(value - 1, value + 5)], [value + 2])
    figure.canvas.draw()
    for axes in panels:
        assert axes.get_ylim()[0] == 0.0
        assert axes.get_ylim()[1] >= 55.0
    plt.close(figure)
