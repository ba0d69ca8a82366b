"""A mask drawn over the lower half of a face, from five points of it.

Source: the idea is that of Anwar and Raychowdhury, Masked Face Recognition for Secure Authentication (MaskTheFace), 2020, which lays
pictures of masks on 68 points; here five are known, and shape, colour and pattern are drawn at random.
"""

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Of a mask's right half, from the top of its middle down to the chin, in the frame of a face: across from its middle in distances between
# the eyes, down from the eyes (0) to the mouth (1).
OUTLINE = ((0.0, 0.36), (0.3, 0.44), (0.62, 0.62), (0.86, 0.7), (0.82, 1.1), (0.66, 1.42), (0.4, 1.66), (0.0, 1.76))
NOSE_FREE = 0.22  # how far below the tip of the nose the mask begins where it is left free, in the same unit
EARS = ((1.12, 0.12), (1.08, 0.72))  # where the straps end
SMOOTH = 4  # pixels are drawn so many times finer
SHADE = 0.6  # share of the face's light and shadow that the mask shows
COLOURS = (
    (0.57, 0.35, 0.9),
    (0.0, 0.0, 0.95),
    (0.0, 0.0, 0.12),
    (0.6, 0.6, 0.4),
    (0.95, 0.25, 0.9),
    (0.33, 0.25, 0.75),
)  # hue, saturation, value


def draw_mask(image: Image.Image, points: np.ndarray, rng: np.random.Generator, *, nose_free: bool = False) -> Image.Image:
    """The image, in colours, with a mask on the face.

    Args:
        points: (5, 2) x and y in pixels of both eyes, the tip of the nose, and both ends of the mouth.
        rng: of colour, pattern and shape.
        nose_free: whether the mask begins below the nose, as one does that is worn incorrectly.
    """
    image = image.convert("RGB")
    frame = _frame(points)
    nose = _down(points)
    outline = np.array(OUTLINE) + rng.normal(0, 0.02, size=(len(OUTLINE), 2))
    outline[[0, -1], 0] = 0
    if nose_free:
        outline[:, 1] = np.maximum(outline[:, 1], nose + NOSE_FREE + 0.04 * np.arange(len(OUTLINE)) / len(OUTLINE))
    else:
        outline[0, 1] = min(outline[0, 1], nose - 0.15)
    whole = np.concatenate([outline, outline[::-1] * (-1, 1)])
    left, top, right, bottom = _region(frame(np.concatenate([whole, np.array(EARS), np.array(EARS) * (-1, 1)])), image.size)
    if left >= right or top >= bottom:
        return image
    size, origin = (right - left, bottom - top), np.array([left, top])

    def drawn(shapes: Callable[[ImageDraw.ImageDraw, Callable[[np.ndarray], list[tuple[float, float]]]], object]) -> Image.Image:
        fine = Image.new("L", (size[0] * SMOOTH, size[1] * SMOOTH))
        shapes(ImageDraw.Draw(fine), lambda shape: list(map(tuple, ((frame(shape) - origin) * SMOOTH).tolist())))
        return fine.resize(size, Image.Resampling.BOX)

    width = max(1, round(0.05 * _eyes(points) * SMOOTH))
    colour = _colour(rng)
    face = image.crop((left, top, right, bottom))
    straps = drawn(lambda pen, place: [pen.line(place(_strap(whole, side, ear)), 255, width) for side in (1, -1) for ear in (0, 1)])
    face.paste(Image.new("RGB", size, _rgb(colour, 0.9)), mask=straps)
    cloth = Image.new("RGB", size, _rgb(colour, 1.0))
    pattern = PATTERNS[rng.choice(list(PATTERNS))]
    folds = drawn(lambda pen, place: pattern(pen, place, whole, width))
    cloth.paste(Image.new("RGB", size, _rgb(colour, 0.8 if colour[2] > 0.3 else 1.8)), mask=folds)
    shape = drawn(lambda pen, place: pen.polygon(place(_rounded(whole)), 255))
    face.paste(_shaded(cloth, face, shape, _eyes(points)), mask=shape)
    image.paste(face, (left, top))
    return image


def _eyes(points: np.ndarray) -> float:
    return max(1.0, float(np.linalg.norm(points[1] - points[0])))


def _frame(points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """From the frame of a face to pixels, for points (n, 2). The middle of the mask follows the nose where the face is turned."""
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    across, down = points[1] - points[0], mouth - eyes
    turned = (points[2] - eyes - _down(points) * down) @ across / max(1.0, across @ across)

    def place(shape: np.ndarray) -> np.ndarray:
        # The side that the face is turned to is seen shorter, the other longer.
        wide = shape[:, :1] * (1 - np.sign(shape[:, :1]) * np.clip(turned, -0.6, 0.6)) + turned
        return eyes + wide * across + shape[:, 1:] * down

    return place


def _down(points: np.ndarray) -> float:
    """How far down from the eyes (0) to the mouth (1) the tip of the nose is."""
    eyes = points[:2].mean(axis=0)
    down = points[3:].mean(axis=0) - eyes
    return float((points[2] - eyes) @ down / max(1.0, down @ down))


def _region(shape: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    low, high = np.floor(shape.min(axis=0)).astype(int) - 2, np.ceil(shape.max(axis=0)).astype(int) + 2
    return max(0, int(low[0])), max(0, int(low[1])), min(size[0], int(high[0])), min(size[1], int(high[1]))


def _rounded(shape: np.ndarray) -> np.ndarray:
    """The corners of a closed outline cut, twice. Source: Chaikin, An Algorithm for High-Speed Curve Generation, 1974."""
    for _ in range(2):
        after = np.roll(shape, -1, axis=0)
        shape = np.stack([0.75 * shape + 0.25 * after, 0.25 * shape + 0.75 * after], axis=1).reshape(-1, 2)
    return shape


def _strap(whole: np.ndarray, side: int, ear: int) -> np.ndarray:
    upper, lower = whole[3], whole[4]
    start = (upper, lower)[ear] * (0.95, 1.0)
    return np.array([start, EARS[ear]]) * (side, 1)


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    hue, saturation, value = COLOURS[rng.integers(len(COLOURS))]
    return (
        hue + rng.normal(0, 0.03),
        float(np.clip(saturation + rng.normal(0, 0.05), 0, 1)),
        float(np.clip(value + rng.normal(0, 0.05), 0.05, 1)),
    )


def _rgb(colour: tuple[float, float, float], brightness: float) -> tuple[int, int, int]:
    hue, saturation, value = colour
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, min(1.0, value * brightness))
    return round(255 * red), round(255 * green), round(255 * blue)


def _shaded(cloth: Image.Image, face: Image.Image, shape: Image.Image, eyes: float) -> Image.Image:
    """The cloth in the light that falls on what it covers."""
    light = np.asarray(face.convert("L").filter(ImageFilter.GaussianBlur(0.35 * eyes)), dtype=np.float32)
    inside = np.asarray(shape, dtype=np.float32) / 255
    mean = (light * inside).sum() / max(1.0, inside.sum())
    factor = 1 + SHADE * (light / max(mean, 1.0) - 1)
    return Image.fromarray((np.asarray(cloth) * factor[..., None]).clip(0, 255).astype(np.uint8))


Pattern = Callable[[ImageDraw.ImageDraw, Callable[[np.ndarray], list[tuple[float, float]]], np.ndarray, int], None]


def _plain(pen: ImageDraw.ImageDraw, place: Callable, whole: np.ndarray, width: int) -> None:
    """No pattern."""


def _pleats(pen: ImageDraw.ImageDraw, place: Callable, whole: np.ndarray, width: int) -> None:
    for down in np.linspace(0.85, 1.35, 3):
        pen.line(place(np.array([(-0.9, down - 0.1), (0, down), (0.9, down - 0.1)])), 255, width)


def _seam(pen: ImageDraw.ImageDraw, place: Callable, whole: np.ndarray, width: int) -> None:
    pen.line(place(np.array([(0.0, whole[0, 1]), (0.0, 1.8)])), 255, width)


def _dots(pen: ImageDraw.ImageDraw, place: Callable, whole: np.ndarray, width: int) -> None:
    grid = np.stack(np.meshgrid(np.arange(-0.9, 0.95, 0.22), np.arange(0.4, 1.8, 0.22)), axis=-1).reshape(-1, 2)
    for x, y in place(grid):
        pen.ellipse((x - width, y - width, x + width, y + width), 255)


PATTERNS: dict[str, Pattern] = {"plain": _plain, "pleats": _pleats, "seam": _seam, "dots": _dots}
