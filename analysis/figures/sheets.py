"""Picture sheets: a grid of images with a few words under each."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from analysis.figures.style import GRID, INK, PALE, PAPER
from trainables.data.decoding import read_image

PICTURE, GAP, SIDE = (180, 200), 20, 28  # pixels: of one picture, between tiles, around the sheet
TEXT, TITLE = 15, 24  # pixels: sizes of the words under a picture and over the sheet
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@dataclass(frozen=True)
class Tile:
    """One or more pictures side by side, and lines of words under them, each with its colour."""

    pictures: tuple[Image.Image, ...]  # of PICTURE's size
    lines: tuple[tuple[str, str], ...]


def picture(file: Path) -> Image.Image:
    """An image as a tile shows it: letterboxed and not cut, because what was taken wrongly may stand at the edge."""
    return ImageOps.pad(read_image(file), PICTURE, Image.Resampling.BICUBIC, color=GRID)


def draw_sheet(tiles: Sequence[Tile], title: str, subtitle: str) -> bytes:
    """A PNG file of the tiles, row by row, ten pictures wide; all tiles have the same number of pictures."""
    font, head = (ImageFont.truetype(FONTS / name, size) for name, size in (("DejaVuSans.ttf", TEXT), ("DejaVuSans-Bold.ttf", TITLE)))
    width = PICTURE[0] * len(tiles[0].pictures)
    columns = max(1, min(10 // len(tiles[0].pictures), len(tiles)))
    words = [[(piece, colour) for text, colour in tile.lines for piece in wrapped(text, font, width)] for tile in tiles]
    step = TEXT + 5
    height = PICTURE[1] + 6 + step * max(map(len, words)) + GAP
    top = SIDE + TITLE + 2 * step
    rows = -(-len(tiles) // columns)
    least = int(max(head.getlength(title), font.getlength(subtitle)))
    paper = Image.new("RGB", (2 * SIDE + max(least, columns * (width + GAP) - GAP), top + rows * height + SIDE - GAP), PAPER)
    pen = ImageDraw.Draw(paper)
    pen.text((SIDE, SIDE), title, INK, head)
    pen.text((SIDE, SIDE + TITLE + 8), subtitle, PALE, font)
    for number, (tile, lines) in enumerate(zip(tiles, words, strict=True)):
        left, upper = SIDE + number % columns * (width + GAP), top + number // columns * height
        for place, seen in enumerate(tile.pictures):
            paper.paste(seen, (left + place * PICTURE[0], upper))
        for line, (text, colour) in enumerate(lines):
            pen.text((left, upper + PICTURE[1] + 6 + line * step), text, colour, font)
    buffer = io.BytesIO()
    paper.save(buffer, format="png")
    return buffer.getvalue()


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of at most so many pixels, broken between words; a word that is too long is cut in its middle."""
    lines: list[str] = []
    for word in (_shortened(word, font, width) for word in text.split()):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _shortened(word: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    kept, short = len(word), word
    while kept > 2 and font.getlength(short) > width:
        kept -= 1
        short = f"{word[: kept // 2]}…{word[len(word) - (kept - kept // 2) :]}"
    return short
