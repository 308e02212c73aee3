from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from poisoning.models.linear import LinearModel
from replication import plotting

# Machado, Oliveira & Fernandes 2009, "A physiologically-based model for simulation of color vision
# deficiency", severity 1, for linear RGB.
SEEN = {
    "by three kinds of cones": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868],
                        [0.114503, 0.786281, 0.099216],
                        [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968],
                        [0.280085, 0.672501, 0.047413],
                        [-0.011820, 0.042940, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779],
                        [-0.078411, 0.930809, 0.147602],
                        [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
# IEC 61966-2-1: linear RGB to XYZ, relative to its white.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
XYZ /= XYZ.sum(axis=1, keepdims=True)

FAMILIES = ("CLASSES", "ATTACKS", "DEFENSES", "GRADIENTS", "POLICIES", "PENALTIES",
            "POISONS", "VERDICTS", "SETS", "OTHERS")  # fmt: skip


def colours_of(family):
    found = getattr(plotting, family)
    return found.values() if isinstance(found, dict) else found


def linear(colour):
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(colour, seen):
    """CIELAB of a colour as it is seen."""
    x, y, z = XYZ @ np.clip(seen @ linear(colour), 0.0, 1.0)
    fx, fy, fz = (np.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def contrast(colour):
    """The ratio of WCAG 2 against white."""
    return 1.05 / (XYZ[1] @ linear(colour) + 0.05)


@pytest.fixture(autouse=True)
def styled():
    with plt.rc_context():
        plotting.use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("family", FAMILIES)
def test_colours_that_meet_can_be_told_apart(family, seen):
    colours = {*colours_of(family), plotting.PAPER, plotting.CLEAN}
    for one, other in combinations(sorted(colours), 2):
        difference = np.linalg.norm(lab(one, SEEN[seen]) - lab(other, SEEN[seen]))
        assert difference >= plotting.LEAST_DIFFERENCE, (one, other)


def test_the_difference_of_colours_is_that_of_cielab():
    plain = SEEN["by three kinds of cones"]
    np.testing.assert_allclose(lab("white", plain), [100, 0, 0], atol=1e-6)
    np.testing.assert_allclose(lab("#ff0000", plain), [53.24, 80.09, 67.20], atol=0.1)
    red, green = (lab(colour, SEEN["deutan"]) for colour in ("#c00000", "#407000"))
    assert np.linalg.norm(red - green) < plotting.LEAST_DIFFERENCE


@pytest.mark.parametrize("family", FAMILIES)
def test_colours_stand_out_from_the_page(family):
    assert min(map(contrast, colours_of(family))) >= 3.0  # WCAG 2.1, 1.4.11
    assert contrast(plotting.CLEAN) >= 3.0
    assert contrast(plotting.PAPER) >= 7.0


def picture():
    figure, panels = plotting.canvas(1, 2)
    frame = pd.DataFrame(
        {
            "defense": ["svd", "none", "l2"],
            "test error": [0.24, 0.27, 0.25],
            "±": [0.01, np.nan, 0.3],
        }
    )
    x = plotting.errors(panels[0, 0], frame, color=plotting.OURS, label="ours", written=True)
    plotting.published(panels[0, 0], x[:1], [22.5])
    plotting.without_attack(panels[0, 0], 3.1)
    repeats = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 5.0]])
    plotting.band(panels[0, 1], [1, 2, 3], repeats, color=plotting.GREEN, label="mean")
    plotting.curve(panels[0, 1], [1, 2, 3], [1, 1, 2], [0.1, np.nan, 0.1], label="ours")
    panels[0, 1].set(xlabel="examples", ylabel="test error (%)", title="growth")
    plotting.finish(figure, "the error rises from 3.1 to 24 %", "Enron. " + plotting.repeated(6))
    return figure


def test_a_figure_made_by_these_functions_can_be_read():
    figure = picture()
    assert plotting.faults(figure) == []
    plotting.stamp(figure, "stand-in data")
    assert plotting.faults(figure) == []


def test_defenses_stand_in_one_order_by_the_names_of_readers():
    axes = picture().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["no defense", "L2", "SVD"]
    assert [round(bar.get_height()) for bar in axes.patches] == [27, 25, 24]


def test_an_interval_of_an_error_ends_at_zero():
    axes = plt.subplots()[1]
    plotting.bars(axes, [2.0], [5.0])
    ((low, high),) = axes.collections[0].get_segments()
    assert (low[1], high[1]) == (0.0, 7.0)
    plotting.bars(axes, [-0.2], [0.5], floor=-1.0)
    ((low, high),) = axes.collections[-1].get_segments()
    assert (low[1], high[1]) == pytest.approx((-0.7, 0.3))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: f.set_figwidth(9.0), "9 inches wide"),
        (lambda f: f.axes[0].legend(), "legend lies inside"),
        (lambda f: f.axes[1].set_title("growth", fontsize=6.5), "'growth' is 9.0 pixels high"),
        (lambda f: f.text(0.99, 0.5, "too long for its place"), "'too long for its place' is cut"),
        (lambda f: f.axes[0].set_xticks([0, 0.2], ["no defense", "L2 and slab"]),
         "'no defense' and 'L2 and slab' overlap"),
        (lambda f: plotting.published(f.axes[0], [1], [np.subtract(*f.axes[0].get_ylim()) / -2]) or
         f.axes[0].text(1, np.subtract(*f.axes[0].get_ylim()) / -2, "hidden"),
         "'hidden' lies under a marker"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told(spoil, told):
    figure = picture()
    spoil(figure)
    assert any(told in fault for fault in plotting.faults(figure))


def test_labels_of_ticks_that_are_not_drawn_do_not_count():
    figure = picture()
    figure.axes[1].set_xticks([1.0, 2.0, 1e9], ["one", "two", "far away"])
    figure.axes[1].set_xlim(0, 3)
    assert plotting.faults(figure) == []


def test_a_png_carries_its_text_and_its_faults(tmp_path):
    figure = picture()
    plotting.save(figure, tmp_path / "good.png")
    with Image.open(tmp_path / "good.png") as image:
        assert image.text == {"Description": plotting.describe(figure)}
        assert image.width == plotting.WIDTH * 150
    figure.text(0.99, 0.5, "too long for its place")
    plotting.save(figure, tmp_path / "bad.png")
    with Image.open(tmp_path / "bad.png") as image:
        assert image.text["Warning"] == "'too long for its place' is cut off."


def test_the_alternative_text_says_what_is_shown():
    figure = picture()
    assert plotting.describe(figure) == (
        "The error rises from 3.1 to 24 %. test error (%). growth: test error (%) against "
        "examples. Series: ours, mean, paper, no attack. Enron. Mean of 6 splits and its 95 % "
        "interval."
    )
    assert plotting.describe(figure, finding=False).startswith("test error (%).")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (3.1, 24.23, "rises from 3.1 to 24.2 %"),
        (24.23, 3.1, "falls from 24.2 to 3.1 %"),
        (3.101, 3.149, "stays at 3.1 %"),
        (float("nan"), 3.1, "is 3.1 %"),
        (3.1, float("nan"), "is not known"),
    ],
)
def test_words_follow_the_numbers(before, after, words):
    assert plotting.moved(before, after) == words


def test_a_value_stands_above_the_mark_that_would_lie_on_it():
    figure, ((axes,),) = plotting.canvas()
    plotting.bars(axes, [14.4, 8.0, np.nan], [np.nan] * 3, written=True)
    plotting.published(axes, [0], [15.2])
    axes.set_ylim(0, 20)
    plotting.finish(figure, "Two bars", "")
    assert plotting.faults(figure) == []
    lifted, free = axes.texts
    assert lifted.get_position()[1] > free.get_position()[1] == 3


def test_a_title_keeps_numbers_and_units_together_in_lines_of_one_length():
    figure = plotting.canvas()[0]
    sentence = ("Behind the best of five defenses the error of the spam filter rises from 2.7 to "
                "26.5 % within 4.8 s at η = 64")  # fmt: skip
    plotting.finish(figure, sentence, "")
    first, second = figure.get_suptitle().split("\n")
    assert abs(len(first) - len(second)) < 20
    for kept in ("from 2.7 to 26.5 %", "4.8 s", "η = 64"):
        assert kept.replace(" ", "\N{NO-BREAK SPACE}") in figure.get_suptitle()
    assert sentence in plotting.describe(figure)


def test_a_title_begins_large_and_has_a_proper_minus():
    figure = plotting.canvas()[0]
    plotting.finish(figure, "min-max: -0.2, not 1e-06", "")
    assert figure.get_suptitle() == "Min-max: −0.2, not 1e-06"


def test_what_others_are_compared_with_ends_the_legend():
    figure, ((axes,),) = plotting.canvas()
    plotting.published(axes, [0.0], [1.0])
    plotting.without_attack(axes, 0.5)
    plotting.bars(axes, [1.0, 2.0], [0.1, 0.1], label="class -1")
    axes.plot([0.0, 1.0], label="$10^{-3}$")
    plotting.finish(figure, "A finding", "As `make bench` measures, -2 at least.")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "$10^{-3}$", "class −1", "paper", "no attack"
    ]  # fmt: skip
    assert legend.get_title().get_text() == "As “make bench” measures, −2 at least."


def test_repeats_are_told_by_data_set_where_they_differ():
    assert plotting.repeated_by({"enron": 3, "imdb": 3}) == plotting.repeated(3, "repeat")
    told = plotting.repeated_by({"enron": 18, "mine": 1})
    assert told == "Means of repeats and their 95 % intervals: Enron 18, mine 1."


def test_a_crowded_curve_keeps_its_numbers_and_stands_aside_on_the_page():
    axes = plt.subplots()[1]
    for place in (0, 1):
        plotting.curve(axes, [1.0, 2.0], [3.0, 4.0], [0.1, 0.1], place=place, of=2)
    axes.figure.canvas.draw()
    first, second = axes.lines[0], axes.lines[-3]
    np.testing.assert_array_equal(first.get_xydata(), [[1.0, 3.0], [2.0, 4.0]])
    pixels = [line.get_transform().transform((1.0, 3.0))[0] for line in (first, second)]
    assert pixels[1] - pixels[0] == pytest.approx(plotting.ASIDE / 72 * axes.figure.dpi)
    assert axes.get_xlim()[1] < 2.2


def test_an_interval_below_zero_stays_on_a_logarithmic_axis():
    axes = plt.subplots()[1]
    axes.set_yscale("log")
    plotting.curve(axes, [1.0], [0.01], [0.05])
    ((low, high),) = axes.collections[0].get_segments()
    assert 0.0 < low[1] < 0.01 < high[1] == pytest.approx(0.06)


def test_a_logarithmic_axis_does_not_crowd():
    for low, high in ((3e-3, 7e-3), (1e-9, 1e6), (64, 512)):
        figure, ((axes,),) = plotting.canvas()
        axes.set(xscale="log", xlim=(low, high))
        plotting.few_ticks(axes.xaxis)
        plotting.finish(figure, "An axis", "")
        assert plotting.faults(figure) == []
        shown = [t for t in axes.get_xticks() if low <= t <= high]
        assert len(shown) >= 1


def test_labels_of_a_logarithmic_axis_are_the_numbers_of_its_ticks():
    for low, high in ((1.2e-4, 4.3e-4), (2e-4, 2.6e-4), (3e-8, 7e-7), (0.2, 0.9)):
        figure, ((axes,),) = plotting.canvas()
        axes.set(xscale="log", xlim=(low, high))
        plotting.few_ticks(axes.xaxis)
        figure.canvas.draw()
        shown = [
            (tick, label.get_text())
            for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if low <= tick <= high
        ]
        assert len({label for _, label in shown}) == len(shown) >= 2
    assert plotting.power(2.5e-4) == "2.5·10⁻⁴"
    assert plotting.power(9.99e-9) == "10⁻⁸"


def test_the_outermost_of_crowded_curves_are_not_cut():
    figure, panels = plotting.canvas(1, 4)
    for place in range(5):
        plotting.curve(panels[0, 0], [1.0, 2.0], [3.0, 4.0], [0.1, 0.1], place=place, of=5)
    figure.canvas.draw()
    for line in (panels[0, 0].lines[0], panels[0, 0].lines[-3]):
        x = line.get_transform().transform(line.get_xydata())[:, 0]
        radius = line.get_markersize() / 2 * figure.dpi / 72
        assert panels[0, 0].bbox.x0 <= x.min() - radius
        assert x.max() + radius <= panels[0, 0].bbox.x1


def test_a_table_says_where_it_has_no_number():
    axes = plt.subplots()[1]
    grid = pd.DataFrame([[1.0, np.nan], [20.0, 30.0]], index=["a", "b"], columns=["c", "d"])
    plotting.heatmap(axes, grid, ".1f", cmap="Blues", vmin=0)
    assert [text.get_text() for text in axes.texts] == ["1.0", "–", "20.0", "30.0"]
    assert axes.texts[0].get_color() == "black"
    assert axes.texts[3].get_color() == "white"


def test_a_policy_has_one_colour_and_its_flips_are_dotted():
    own, flips = plotting.policy("l1-learned"), plotting.policy("l1-learned-flips")
    assert own["color"] == flips["color"] == plotting.policy("l2-learned")["color"]
    assert (own["linestyle"], flips["linestyle"]) == ("-", ":")
    assert own["label"] == "λ learned"


def test_the_papers_numbers_are_those_of_the_claims():
    assert plotting.in_paper("koh2021.minmax.enron") == 0.237
    with pytest.raises(KeyError):
        plotting.in_paper("koh2021.no-such-claim")


def test_a_boundary_passes_where_the_model_is_zero():
    axes = plt.subplots()[1]
    axes.set(xlim=(-3, 3), ylim=(-3, 3))
    model = LinearModel(np.array([1.0, -2.0]), 0.5)
    plotting.boundary(axes, model)
    assert axes.get_xlim() == (-3, 3)
    point = np.array(axes.lines[0].get_xy1())
    assert point @ model.theta + model.bias == pytest.approx(0.0)


def test_ticks_at_label_what_was_run_and_nothing_else():
    figure, ((axes,),) = plotting.canvas()
    axes.plot([1, 4, 124], [1, 2, 3])
    axes.set_xscale("log")
    plotting.ticks_at(axes.xaxis, (1, 4, 124))
    figure.canvas.draw()
    labels = [*axes.get_xticklabels(), *axes.get_xticklabels(minor=True)]
    assert [label.get_text() for label in labels] == ["1", "4", "124"]
