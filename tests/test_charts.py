"""The charts that several rooms draw show the numbers they are given; how they look was judged by
eye."""

import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from src.charts import CYCLE, literal, save, scale
from src.charts.curves import compared, curves
from src.charts.images import WRONG, confusion, gallery, predictions, square, weights

CLASSES = [f"class{i}" for i in range(10)]
FIRST = {"epoch": 1.0, "step": 4.0, "lr": 0.1}
SECOND = {"epoch": 2.0, "step": 8.0, "lr": 0.05}
ROWS = [
    FIRST | {"train/acc": 0.6, "train/loss": 1.0, "val/acc": 0.5, "val/loss": 1.1},
    SECOND | {"train/acc": 0.8, "train/loss": 0.5, "val/acc": 0.7, "val/loss": 0.6},
]


def lines(ax) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}


def test_curves_show_every_metric_and_the_learning_rate():
    loss, accuracy, rate = curves(ROWS).axes
    assert lines(loss) == {"train": [1.0, 0.5], "val": [1.1, 0.6]}
    assert lines(accuracy) == {"train": [0.6, 0.8], "val": [0.5, 0.7]}
    assert (lines(rate), rate.get_yscale()) == ({"lr": [0.1, 0.05]}, "log")
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "val"]


def test_compared_runs_have_a_colour_each_training_dotted():
    runs = {"A": ROWS, "B": [{name: 2 * value for name, value in row.items()} for row in ROWS[:1]]}
    loss, accuracy, _ = compared(runs).axes
    for ax, metric in (loss, "loss"), (accuracy, "acc"):
        drawn = [(line.get_label(), list(line.get_ydata())) for line in ax.get_lines()]
        assert drawn == [
            (f"{stage}/{metric}", [row[f"{stage}/{metric}"] for row in rows])
            for rows in runs.values()
            for stage in ("train", "val")
        ]
        assert [line.get_linestyle() for line in ax.get_lines()] == [":", "-"] * 2
        assert [line.get_color() for line in ax.get_lines()] == [
            colour for colour in CYCLE[:2] for _ in "vt"
        ]


def test_compared_runs_have_the_metrics_that_each_of_them_has():
    watched = [
        {
            "epoch": 1.0,
            "lr": 0.1,
            "train/loss": 1.0,
            "test/loss": 1.2,
            "train/acc": 0.6,
            "test/acc": 0.5,
        }
    ]
    loss, accuracy, _ = compared({"A": ROWS, "B": watched}).axes
    drawn = [(line.get_label(), list(line.get_ydata())) for line in loss.get_lines()]
    of_a = [("train/loss", [1.0, 0.5]), ("val/loss", [1.1, 0.6])]
    assert drawn == [*of_a, ("train/loss", [1.0]), ("test/loss", [1.2])]
    assert len(accuracy.get_lines()) == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.3, 0.4], "linear"),
        ([0.03, 0.1, 0.3], "log"),
        ([10.0, 1e-4, math.inf, math.nan], "log"),
        ([5.0, 0.0], "linear"),  # a log axis has no place for 0
        ([-1.0, 10.0], "linear"),
        ([math.nan], "linear"),
        ([], "linear"),
    ],
)
def test_an_axis_is_logarithmic_from_a_decade_on(values, expected):
    assert scale(values) == expected


def test_the_loss_axis_follows_the_losses_of_all_runs():
    fallen = [
        FIRST | {"train/loss": 9.0, "val/loss": 1.0, "val/acc": 0.1},
        SECOND | {"val/loss": 0.8},
    ]
    assert [picture.axes[0].get_yscale() for picture in (curves(ROWS), curves(fallen))] == [
        "linear",
        "log",
    ]
    assert compared({"A": ROWS, "B": fallen}).axes[0].get_yscale() == "log"
    assert [ax.get_yscale() for ax in curves(fallen).axes[1:]] == [
        "linear",
        "log",
    ]  # accuracy, learning rate


@pytest.mark.parametrize("epochs", [1, 2, 20, 400])
def test_legends_stand_beside_the_lines_and_the_titles(epochs):
    tested = {"test/loss": 1.2, "test/acc": 0.5, "error/w": 0.1, "error/b": 0.2}
    picture = curves(
        [row | tested | {"epoch": e} for e in range(1, epochs + 1) for row in ROWS[:1]]
    )
    FigureCanvasAgg(picture).draw()
    for ax in picture.axes:
        legend = ax.get_legend().get_window_extent()
        assert legend.y0 >= ax.get_window_extent().y1
        (title,) = (
            child
            for child in ax.get_children()
            if getattr(child, "get_text", str)() == ax.get_title("left")
        )
        assert legend.x0 > title.get_window_extent().x1
    assert [tick for tick in picture.axes[0].get_xticks() if tick % 1] == []  # whole epochs


def test_a_name_in_a_chart_is_short_and_no_formula():
    assert literal("lr 0.1") == "lr 0.1"
    assert literal(r"$\foo$") == r"\$\foo\$"
    assert literal("x" * 36) == "x" * 36
    assert literal(f"begin {'x' * 50} end") == f"begin {'x' * 11}…{'x' * 14} end"


def test_of_compared_linear_regressions_the_legend_tells_the_errors_too():
    rows = [FIRST | {"train/loss": 1.0, "error/w": 0.1, "error/b": 0.2}]
    names = [text.get_text() for text in compared({"A": rows, "B": rows}).legends[0].get_texts()]
    assert names == ["A", "B", "validation, or test without it; error of w", "training; error of b"]


def test_curves_of_a_linear_regression_show_the_errors_of_the_estimates():
    rows = [
        {"epoch": e, "lr": 0.03, "train/loss": 1 / e, "error/w": 0.1 / e, "error/b": 0.2 / e}
        for e in (1, 2)
    ]
    loss, error, _ = curves(rows).axes
    assert lines(loss) == {"train": [1.0, 0.5]}
    assert lines(error) == {"w": [0.1, 0.05], "b": [0.2, 0.1]}


def test_a_metric_that_one_epoch_alone_has_is_drawn_there():
    rows = [ROWS[0] | {"test/loss": 1.2, "test/acc": 0.4}, ROWS[1]]
    loss, accuracy, _ = curves(rows).axes
    assert lines(loss) == {"train": [1.0, 0.5], "val": [1.1, 0.6], "test": [1.2]}
    (point,) = (line for line in accuracy.get_lines() if line.get_label() == "test")
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([1.0], [0.4])
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "val", "test"]


def within(picture: Figure) -> None:
    FigureCanvasAgg(picture)
    picture.draw_without_rendering()
    width, height = picture.bbox.size
    box = picture.get_tightbbox().padded(0).transformed(picture.dpi_scale_trans)
    assert -0.5 <= box.x0 < box.x1 <= width + 0.5
    assert -0.5 <= box.y0 < box.y1 <= height + 0.5


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1e-4, 1e4])
@pytest.mark.parametrize(
    "epochs", [1, 2, 1000]
)  # the loss on a linear axis, and on a logarithmic one
def test_curves_clip_no_label(factor, epochs):
    rows = [
        {"epoch": e, "lr": 0.1 * factor / e, "train/loss": factor / e, "val/loss": 1.1 * factor / e}
        | {
            "train/acc": 1 - 1 / (e + 1),
            "error/w": 0.1 * factor / e,
            "error/b": 0.03 * factor / e**2,
        }
        for e in range(1, epochs + 1)
    ]
    within(curves(rows))


def test_save_replaces_the_picture_in_one_step(tmp_path):
    path = tmp_path / "figures" / "x.png"
    save(curves(ROWS), path)
    before = path.read_bytes()
    save(curves(ROWS[:1]), path)
    assert path.read_bytes() != before
    assert [file.name for file in path.parent.iterdir()] == ["x.png"]


def texts(picture: Figure) -> dict[str, tuple[float, float]]:
    """Caption -> its place, in pixels of the image that all images make up."""
    return {text.get_text(): text.get_position() for text in picture.axes[0].texts}


def images(picture: Figure) -> dict[str, np.ndarray]:
    """Title -> image, of a picture with several of them."""
    drawn = {
        ax.get_title(loc="left"): ax.images[0] for ax in picture.axes if ax.get_title(loc="left")
    }
    assert len({image.get_clim() for image in drawn.values()}) == 1
    return {title: image.get_array() for title, image in drawn.items()}


def test_weights_are_the_columns_of_w_under_their_classes_on_one_scale_around_zero():
    W = torch.randn(9, 10, generator=torch.Generator().manual_seed(0))
    W[0, 3] = 5.0  # the extreme of all classes
    picture = weights({"": W}, CLASSES)
    image = picture.axes[0].images[0]
    assert (image.get_clim(), image.get_cmap().name) == ((-5, 5), "RdBu_r")  # red is positive
    drawn = images(picture)
    assert list(drawn) == CLASSES
    for k, name in enumerate(CLASSES):  # weights are counted row by row
        np.testing.assert_array_equal(drawn[name], W[:, k].view(3, 3).numpy())
    assert [text.get_text() for text in picture.axes[-1].get_yticklabels()] == ["−5", "0", "5"]


def test_weights_of_several_runs_are_a_row_of_each_under_its_name_on_one_scale():
    small = torch.randn(9, 10, generator=torch.Generator().manual_seed(0))
    large = torch.cat([2 * small, torch.ones(7, 10)])  # (16, 10), images of another side
    picture = weights({"A": small, "B": large}, CLASSES)
    assert picture.axes[0].images[0].get_clim()[1] == large.abs().max().item()
    titles = [ax.get_title(loc="left") for ax in picture.axes[:20]]
    assert titles == ["A\nclass0", *CLASSES[1:], "B\nclass0", *CLASSES[1:]]
    places = [ax.get_subplotspec() for ax in picture.axes[:20]]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == list(
        np.ndindex(2, 10)
    )
    np.testing.assert_array_equal(images(picture)["A\nclass0"], small[:, 0].view(3, 3).numpy())
    np.testing.assert_array_equal(
        images(picture)["class4"], large[:, 4].view(4, 4).numpy()
    )  # the last one


class Spotted:
    """Test images of 28 x 28 pixels, the second with a bright corner, of which the others are
    black."""

    classes = CLASSES

    def split_examples(self, split: str, which: torch.Tensor) -> tuple[torch.Tensor, None]:
        assert split == "test"
        X = torch.zeros(5, 1, 28, 28)
        X[1, 0, 0, 0] = 1.0
        return X[which], None


def test_predictions_show_the_true_label_over_the_predicted_one_red_where_it_is_wrong():
    y, y_hat = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 9, 2, 9, 9])
    drawn = predictions(Spotted(), y, y_hat, 2)
    captions = {
        name: [(text.get_text(), text.get_color()) for text in picture.axes[0].texts]
        for name, picture in drawn.items()
    }
    assert captions == {
        "first": [("class0", "black"), ("class0", "black"), ("class1", "black"), ("class9", WRONG)],
        "misclassified": [
            ("class1", "black"),
            ("class9", WRONG),
            ("class3", "black"),
            ("class9", WRONG),
        ],
    }
    picture = drawn["first"]
    assert picture.axes[0].get_title() == "first test images: true over predicted label"
    (_, upper), (_, lower) = texts(picture)["class1"], texts(picture)["class9"]
    assert upper < lower
    pixels = picture.axes[0].images[0].get_array()
    corner = np.argwhere(
        pixels[:, :, 0] == 0
    )  # dark on light, of the second image, right of the first one, below its captions
    assert corner.shape == (4, 2)  # drawn twice as large
    assert corner[0, 0] > lower
    assert corner[0, 1] > pixels.shape[1] / 2
    assert set(predictions(Spotted(), y, y, 9)) == {"first"}  # no picture without images


def test_confusion_matrix_shows_the_counts_at_their_places():
    (ax,) = confusion(torch.tensor([[8, 2], [0, 5]]), ["a", "b"]).axes
    assert texts(ax.figure) == {"8": (0, 0), "2": (1, 0), "5": (1, 1)}  # (column, row)
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.8, 0.2], [0, 1]], rtol=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("side", [1, 28, 224])
def test_no_image_or_label_lies_beyond_its_picture(side):
    names = ["ankle boot"] * 10
    within(weights({"": torch.randn(side * side, 10)}, names))
    within(weights({"A: lr 0.1": torch.randn(side * side, 10), "B": torch.randn(4, 10)}, names))
    for n in (1, 7):
        title = "true class, likeliest class (red), cheapest answer (blue)"
        within(gallery(torch.rand(n, 1, side, side), [[("ankle boot", "black")] * 3] * n, title))
    within(confusion(torch.full((10, 10), 9999), names))


def test_weights_and_examples_that_fill_no_square_are_drawn_row_by_row():
    W = torch.arange(1.0, 8.0)[:, None].expand(7, 2)
    assert square(W.T)[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert square(torch.ones(2, 1, 4, 4)).shape == (2, 1, 4, 4)
    assert images(weights({"": W}, ["a", "b"]))["b"].tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
