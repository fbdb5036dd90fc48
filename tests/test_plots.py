"""The pictures show the numbers they are given; how they look was judged by eye."""

import pydantic
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from src import plots
from src.speed import Series
from src.training.experiment import train
from src.training.figures import Figures

ROWS = [
    {
        "epoch": 1.0,
        "step": 4.0,
        "lr": 0.1,
        "train/acc": 0.6,
        "train/loss": 1.0,
        "val/acc": 0.5,
        "val/loss": 1.1,
    },
    {
        "epoch": 2.0,
        "step": 8.0,
        "lr": 0.05,
        "train/acc": 0.8,
        "train/loss": 0.5,
        "val/acc": 0.7,
        "val/loss": 0.6,
    },
]


def lines(ax) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}


def test_curves_show_every_metric_and_the_learning_rate():
    loss, accuracy, rate = plots.curves(ROWS).axes
    assert lines(loss) == {"train": [1.0, 0.5], "val": [1.1, 0.6]}
    assert lines(accuracy) == {"train": [0.6, 0.8], "val": [0.5, 0.7]}
    assert list(rate.get_lines()[0].get_ydata()) == [0.1, 0.05]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "val"]


def test_compared_runs_have_a_colour_each_training_dotted():
    runs = {"A": ROWS, "B": [{name: 2 * value for name, value in row.items()} for row in ROWS[:1]]}
    loss, accuracy = plots.compared(runs).axes
    for ax, metric in (loss, "loss"), (accuracy, "acc"):
        drawn = [(line.get_label(), list(line.get_ydata())) for line in ax.get_lines()]
        assert drawn == [
            (f"{stage}/{metric}", [row[f"{stage}/{metric}"] for row in rows])
            for rows in runs.values()
            for stage in ("val", "train")
        ]
        assert [line.get_linestyle() for line in ax.get_lines()] == ["-", ":"] * 2
        assert [line.get_color() for line in ax.get_lines()] == [
            colour for colour in plots.CYCLE[:2] for _ in "vt"
        ]


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_loss_axis_has_the_scale_asked_for(scale):
    loss, accuracy, _ = plots.curves(ROWS, scale).axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == (scale, "linear")


def test_curves_of_a_linear_regression_show_the_errors_of_the_estimates():
    rows = [
        {"epoch": e, "lr": 0.03, "train/loss": 1 / e, "error/w": 0.1 / e, "error/b": 0.2 / e} for e in (1, 2)
    ]
    loss, error, _ = plots.curves(rows).axes
    assert lines(loss) == {"train": [1.0, 0.5]}
    assert lines(error) == {"error of w": [0.1, 0.05], "error of b": [0.2, 0.1]}


def test_a_metric_that_one_epoch_alone_has_is_drawn_there():
    rows = [ROWS[0] | {"test/loss": 1.2, "test/acc": 0.4}, ROWS[1]]
    loss, accuracy, _ = plots.curves(rows).axes
    assert lines(loss) == {"train": [1.0, 0.5], "val": [1.1, 0.6], "test": [1.2]}
    (point,) = (line for line in accuracy.get_lines() if line.get_label() == "test")
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([1.0], [0.4])
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "val", "test"]


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("factor", [1e-4, 1e4])
@pytest.mark.parametrize("epochs", [1, 1000])
def test_curves_clip_no_label(scale, factor, epochs):
    rows = [
        {"epoch": e, "lr": 0.1 * factor / e, "train/loss": factor / e, "val/loss": 1.1 * factor / e}
        | {"train/acc": 1 - 1 / (e + 1), "error/w": 0.1 * factor / e, "error/b": 0.03 * factor / e**2}
        for e in range(1, epochs + 1)
    ]
    picture = plots.curves(rows, scale)
    FigureCanvasAgg(picture).draw()
    width, height = picture.bbox.size
    box = picture.get_tightbbox().padded(0).transformed(picture.dpi_scale_trans)
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height
    *panels, rate = picture.axes
    edge = rate.get_tightbbox().x1  # of the label of the learning rate
    assert edge < min(ax.get_tightbbox().x0 for ax in panels[1:])


def test_fit_draws_the_true_and_the_fitted_line_of_each_feature():
    X = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    W, b = torch.tensor([[1.0], [2.0]]), torch.tensor([3.0])
    truth = torch.tensor([[1.5], [2.0]]), torch.tensor([3.0])
    first, _ = plots.fit(X, X @ W + b, W, b, truth).axes
    drawn = lines(first)
    assert drawn["examples"] == [3.0, 4.0, 5.0]  # y - 2 x1 = x0 + 3
    assert drawn["fitted"] == [3.0, 5.0]
    assert drawn["true"] == [3.0, 6.0]


def test_save_replaces_the_picture_in_one_step(tmp_path):
    path = tmp_path / "figures" / "x.png"
    plots.save(plots.curves(ROWS), path)
    before = path.read_bytes()
    plots.save(plots.curves(ROWS, "log"), path)
    assert path.read_bytes() != before
    assert [file.name for file in path.parent.iterdir()] == ["x.png"]


@pytest.mark.parametrize(("share", "pictures"), [(1, 4), (0, 1)])
def test_curves_are_redrawn_as_often_as_their_share_of_the_time_allows(
    config, monkeypatch, share, pictures, tmp_path
):
    drawn = []
    curves = plots.curves
    monkeypatch.setattr(plots, "curves", lambda rows, scale: drawn.append(len(rows)) or curves(rows, scale))
    train(
        config(
            *("data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=4"),
            f"callbacks.figures.share={share}",
        ),
        tmp_path / "run",
    )
    assert len(drawn) == pictures
    assert drawn[-1] == 4


def test_share_of_the_time_must_be_one():
    with pytest.raises(pydantic.ValidationError, match="share"):
        Figures(share=1.5)


def test_speed_shows_the_median_and_range_of_each_contestant_by_unit():
    measured = {"a": Series("s", [1.0, 4.0, 2.0]), "b": Series("s", [0.5]), "c": Series("MB", [1000.0, 3000.0])}
    seconds, memory = plots.speed(measured).axes
    assert [bar.get_width() for bar in seconds.patches] == [2.0, 0.5]
    assert [bar.get_width() for bar in memory.patches] == [2000.0]
    assert [text.get_text().strip() for text in (*seconds.texts, *memory.texts)] == ["2", "0.5", "2000"]
    ranges = [line.tolist() for line in seconds.collections[0].get_segments()]
    assert ranges == [[[1.0, 0.0], [4.0, 0.0]], [[0.5, 1.0], [0.5, 1.0]]]
