"""The picture of a user's pictures."""

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from torch import Tensor

from src.charts import COLOURS
from src.predict.pictures import Picture


def chart(pictures: list[Picture], p: Tensor, classes: list[str], answers: list[str] | None) -> Figure:
    """Of each picture: as it was given, what the model sees, and the three likeliest classes by p (n, q)."""
    columns = min(3, len(pictures))
    rows = -(-len(pictures) // columns)
    width, height = 4.6 * columns, 1.9 * rows + 0.3  # inches
    panel = Figure(figsize=(width, height), dpi=100, facecolor="white")
    panel.subplots_adjust(0.2 / width, 0.3 / height, 1 - 0.2 / width, 1 - 0.65 / height, 0.12, 0.45)
    panel.suptitle("your picture, what the model sees, likeliest classes", y=1 - 0.1 / height, fontsize=9)
    glyphs = get_font(findfont(FontProperties(family="monospace"))).get_charmap()
    axes = panel.subplots(rows, 3 * columns, squeeze=False).reshape(-1, 3)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    for i, picture in enumerate(pictures):
        given, seen, odds = axes[i]
        name = "".join(each if ord(each) in glyphs else "\N{WHITE SQUARE}" for each in picture.name)
        name = name if len(name) <= 60 else f"{name[:29]}\N{HORIZONTAL ELLIPSIS}{name[-30:]}"
        given.set_title(name, loc="left", family="monospace", fontsize=8, parse_math=False)
        given.imshow(picture.given)
        given.set_adjustable("datalim")  # the name stands at the same height over each
        seen.imshow(picture.seen[0].numpy(), cmap="gray", vmin=0, vmax=255)
        seen.set_xlabel(picture.steps, fontsize=7, color=COLOURS["lr"])
        likeliest = p[i].topk(3)
        odds.barh(range(3), likeliest.values.numpy(), color=COLOURS["train"], alpha=0.4)
        odds.set(xlim=(0, 1.15), ylim=(2.5, -0.5))
        for rank, (value, k) in enumerate(zip(*likeliest, strict=True)):
            odds.text(0.02, rank, f"{value:.2f} {classes[k]}", fontsize=8, va="center")
        if answers:
            odds.set_xlabel(f"answer: {answers[i]}", fontsize=8, color=COLOURS["test"])
    return panel
