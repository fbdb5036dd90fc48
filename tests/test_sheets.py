"""The sheets show the numbers they are given, at their places; how they look was judged by eye."""

import numpy as np
import pytest
import torch

from src import sheets

CLASSES = [f"class{i}" for i in range(10)]


def test_a_sheet_draws_images_enlarged_at_their_places_and_labels_over_them():
    image = np.array([[[0, 0, 0], [9, 9, 9]]], np.uint8)  # (1, 2, 3)
    sheet = sheets.Sheet(60, 40)
    sheet.put(image, 10, 5, scale=3)
    pixels = sheet.draw()
    assert pixels.shape == (40, 60, 3)
    expected = np.full((40, 60), 255, np.uint8)
    expected[5:8, 10:13], expected[5:8, 13:16] = 0, 9
    np.testing.assert_array_equal(pixels[..., 0], expected)
    sheet.write("x", 50, 30, "#FF0000")
    drawn = sheet.draw()
    different = (drawn != pixels).any(axis=2)
    rows, columns = np.nonzero(different)
    assert (abs(rows - 30) < 8).all()
    assert (abs(columns - 50) < 8).all()
    assert (drawn[different][:, 0] > 250).all()  # red on white


def test_weight_images_are_the_columns_of_w_on_one_scale_around_zero():
    W = torch.randn(9, 10, generator=torch.Generator().manual_seed(0))
    W[0, 3], W[1, 3], W[2, 3] = 5.0, -5.0, 0.0  # the extremes of all classes
    sheet = sheets.weight_images(W, CLASSES)
    *images, bar = (image for image, *_ in sheet.images)
    assert [image.shape for image in images] == [(3, 3, 3)] * 10
    red, blue, white = images[3][0].astype(int)  # weights are counted row by row
    assert red[0] - red[2] > 50
    assert blue[2] - blue[0] > 50
    assert (white > 240).all()
    warmth = np.stack([image.astype(int)[..., 0] - image[..., 2] for image in images])  # red less blue
    W = W.T.view(10, 3, 3).numpy()
    assert (warmth[W > 0.5] > 0).all()
    assert (warmth[W < -0.5] < 0).all()
    names = {label.text for label in sheet.labels}
    assert names == {*CLASSES, "+5", "0", "-5"}
    np.testing.assert_array_equal(bar[0, 0], red)


def test_compared_weights_are_a_row_of_each_run_on_one_scale():
    small = torch.zeros(9, 10)
    small[:, 4] = 1.0
    large = 2 * small
    sheet = sheets.compared_weights({"A": small, "B": large}, CLASSES)
    *images, _ = sheet.images
    tops = [top for _, _, top, _ in images]
    assert len(images) == 20
    assert tops[:10] == [tops[0]] * 10
    assert tops[10:] == [tops[10]] * 10
    blue = [image.astype(int)[..., 2].mean() for image, *_ in images]
    assert blue[14] < blue[4] < min(blue[0], blue[10])  # the strongest red, half of it, white
    lefts = [left for _, left, _, _ in images]
    for run, top in ("A", tops[0]), ("B", tops[10]):
        (label,) = (label for label in sheet.labels if label.text == run)
        assert top - 20 < label.y < top
    for k, name in enumerate(CLASSES):
        (label,) = (label for label in sheet.labels if label.text == name)
        assert lefts[k] - 10 < label.x < lefts[k] + sheet.images[k][0].shape[1] * sheet.images[k][3] + 10
        assert label.y < tops[0]


def test_columns_of_w_have_their_places_in_the_order_of_the_classes():
    W = torch.eye(10).repeat_interleave(10, 0)[:100]  # column k is 1 in row k of the 10 x 10 image
    sheet = sheets.weight_images(W, CLASSES)
    for k, (image, left, top, scale) in enumerate(sheet.images[:10]):
        strongest = image.astype(int)[..., 2].sum(axis=1).argmin()  # least blue
        assert strongest == k
        (label,) = (label for label in sheet.labels if label.text == CLASSES[k])
        assert left < label.x < left + 10 * scale
        assert top - 20 < label.y < top


def test_predictions_show_the_true_label_over_the_predicted_one_red_where_it_is_wrong():
    images = torch.zeros(2, 28, 28)
    images[1, 0, 0] = 1.0
    sheet = sheets.predictions(images, torch.tensor([0, 1]), torch.tensor([0, 0]), ["a", "b"], "first")
    title, *labels = sheet.labels
    assert title.text == "first: true label over predicted label"
    labels.sort(key=lambda label: (label.x, label.y))
    assert [(label.text, label.colour) for label in labels] == [
        *(("a", "black"), ("a", "black")),
        *(("b", "black"), ("a", sheets.WRONG)),
    ]
    (first, *_), (second, *_) = sheet.images
    assert (first == 255).all()  # nothing is white: dark on light
    assert (second[0, 0] == 0).all()


def test_first_and_misclassified_images_are_chosen_in_order():
    y, y_hat = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 9, 2, 9, 9])
    chosen = sheets.first_and_misclassified(y, y_hat, 2)
    assert {name: which.tolist() for name, which in chosen.items()} == {
        "first": [0, 1],
        "misclassified": [1, 3],
    }
    assert set(sheets.first_and_misclassified(y, y, 9)) == {"first"}  # no grid without images


def test_confusion_matrix_shows_the_counts_at_their_places():
    sheet = sheets.confusion(torch.tensor([[8, 2], [0, 5]]), ["a", "b"])
    ((cells, left, top, _),) = sheet.images
    high, wide = len(cells) / 2, cells.shape[1] / 2
    counts = {
        (int((label.x - left) // wide), int((label.y - top) // high), label.text)
        for label in sheet.labels
        if label.text.isdigit()
    }
    assert counts == {(0, 0, "8"), (1, 0, "2"), (1, 1, "5")}  # (column, row)
    darkness = 255 - cells.astype(int).mean(axis=2)
    full, most, little, none = darkness[-1, -1], darkness[0, 0], darkness[0, -1], darkness[-1, 0]
    assert full > most > little > none  # 5 of 5, 8 of 10, 2 of 10, 0 of 5


@pytest.mark.parametrize("side", [1, 10, 28, 64, 224])
def test_no_image_or_label_lies_beyond_its_sheet(side):
    drawn = {
        "weights": sheets.weight_images(torch.randn(side * side, 10), ["ankle boot"] * 10),
        "grid": sheets.captioned(torch.rand(7, side, side), [[("ankle boot", "black")] * 3] * 7, "title"),
        "confusion": sheets.confusion(torch.full((10, 10), 9999), ["ankle boot"] * 10),
    }
    for name, sheet in drawn.items():
        for image, left, top, scale in sheet.images:
            assert 0 <= left <= sheet.width - image.shape[1] * scale, name
            assert 0 <= top <= sheet.height - len(image) * scale, name
        for label in sheet.labels:
            box = sheets.font(label.size).getbbox(label.text, anchor=label.anchor)
            assert 0 <= label.x + box[0] <= label.x + box[2] <= sheet.width, (name, label)
            assert 0 <= label.y + box[1] <= label.y + box[3] <= sheet.height, (name, label)
        if side <= 64:
            assert 700 <= sheet.width <= 900


def test_weights_and_examples_that_fill_no_square_are_drawn_row_by_row():
    W = torch.arange(1.0, 8.0)[:, None].expand(7, 2)
    assert sheets.square(W.T)[0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert sheets.square(torch.ones(2, 1, 4, 4)).shape == (2, 4, 4)
    for sheet in (
        sheets.weight_images(W, ["a", "b"]),
        sheets.compared_weights({"A": W, "B": W}, ["a", "b"]),
        sheets.predictions(torch.linspace(-3, 3, 14).view(2, 7), *[torch.tensor([0, 1])] * 2, ["a", "b"], ""),
    ):
        assert len({*map(tuple, sheet.draw().reshape(-1, 3))}) > 3
