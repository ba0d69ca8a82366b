"""How a person is drawn: no real image, yet labels that a small network can learn to see.

Mask, gender and age decide what is drawn; skin, light, clothes, background, pose, glasses and mask colour vary alike in every class.
Ageing is continuous in the years, so people near a cut are hard, as in life.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tuner.demo.people import Person

SHOTS = {**{f"mask{number}": 0 for number in range(1, 6)}, "incorrect_mask": 1, "normal": 2}  # file stem -> mask id

_MASK_COLOURS = np.array(
    [(240, 240, 240), (165, 205, 230), (35, 35, 40), (235, 180, 190), (140, 140, 145), (50, 65, 110), (150, 190, 150), (200, 60, 60)], float
)


# Drawing. Lengths are in half face heights: the face is centred on (0, 0), its chin at (0, 1), x to the right and y down.

Points = list[tuple[float, float]] | np.ndarray
Colour = np.ndarray  # (3,), 0 to 255
RGB = tuple[int, int, int]


class Pen:
    """Draws shapes given in face units onto a canvas: one head pose for everything."""

    def __init__(self, canvas: Image.Image, centre: tuple[float, float], scale: float, tilt: float, turn: float):
        self._solid, self._sheer = ImageDraw.Draw(canvas), ImageDraw.Draw(canvas, "RGBA")  # blending takes thrice the time
        self._centre, self._scale, self._turn = np.array(centre), scale, turn
        self._rotation = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])

    def shape(self, points: Points, colour: Colour, alpha: float = 1.0) -> None:
        """Fill a closed outline (n, 2)."""
        self._with(alpha).polygon(self._place(points), fill=_ink(colour, alpha))

    def shade(self, outline: Points, colour: Colour, alpha: float) -> None:
        """Fill a closed outline so that it fades towards its edge: `alpha` in the middle."""
        middle = np.mean(outline, axis=0)
        for size in (1.0, 0.75, 0.5):
            self.shape(middle + size * (np.asarray(outline) - middle), colour, alpha / 3)

    def line(self, points: Points, colour: Colour, width: float, alpha: float = 1.0) -> None:
        """Stroke an open line (n, 2), `width` in face units."""
        width = max(1, round(width * self._scale))
        self._with(alpha).line(self._place(points), fill=_ink(colour, alpha), width=width, joint="curve")

    def _with(self, alpha: float) -> ImageDraw.ImageDraw:
        return self._solid if alpha == 1 else self._sheer

    def _place(self, points: Points) -> list[float]:
        points = np.array(points, dtype=float)
        # A turned head moves what is near its middle line and leaves its rim where it is.
        points[:, 0] += self._turn * np.maximum(1 - points[:, 0] ** 2, 0)
        return (points @ self._rotation * self._scale + self._centre).ravel().tolist()


@dataclass(frozen=True)
class Look:
    """What the seven shots of a person share."""

    gender: int
    years: float  # how old the person looks
    skin: Colour
    hair: Colour
    brow: Colour
    lips: Colour
    width: float  # half the face's width
    jaw: float  # exponent of the lower face: 2 is an ellipse, more is squarer
    length: float  # where the hair at the sides ends; below the ears if above 0.2
    volume: float  # how far the hair stands off the skull
    curl: float  # amplitude of the hair's waves
    hairline: float
    fringe: float  # lowest point of a fringe, or the hairline
    part: float  # x of the parting
    brows: float  # thickness
    arch: float
    eyes: float  # half an eye's opening
    lash: float
    mouth: float  # fullness of the lips
    stubble: float
    glasses: float  # 0 is none, else the thickness of the frame
    clothes: Colour
    room: np.ndarray  # colours of the background's corners (2, 2, 3)


def _look(person: Person, rng: np.random.Generator) -> Look:
    female = person.gender == 1
    years = person.years + rng.normal(0, 2.5)
    grey = _ramp(years, 42, 68) ** 1.6 * (0.5 if female and rng.random() < 0.15 else 1.0)  # some dye their hair
    dark = rng.random() < 0.85
    natural = _mix((28, 22, 20), (70, 45, 30), rng.random()) if dark else _mix((110, 70, 40), (180, 130, 70), rng.random())
    skin = _mix((250, 218, 192), (176, 124, 90), rng.beta(1.5, 2.5)) + rng.normal(0, 5, 3)
    short = rng.random() < (0.05 + 0.15 * _ramp(years, 40, 70) if female else 0.95)
    long = rng.choice([0.85, 1.3, 1.9]) + rng.normal(0, 0.08) if female else rng.uniform(0.55, 0.8)
    recede = _ramp(years, 28, 68) * (rng.uniform(0.02, 0.12) if female else rng.uniform(0.1, 0.32))
    hairline = -0.62 - recede + rng.normal(0, 0.03)
    fringed = rng.random() < 0.45 - 0.3 * _ramp(years, 30, 65)
    return Look(
        gender=person.gender,
        years=years,
        skin=skin * (1 - 0.06 * _ramp(years, 25, 70)),
        hair=_mix(natural, (205, 205, 208), grey * 0.95),
        brow=_mix(natural * 0.8, (150, 148, 145), grey * 0.7),
        lips=_mix(skin, (200, 50, 70), rng.uniform(0.5, 0.9)) if female else _mix(skin, (165, 85, 80), rng.uniform(0.3, 0.6)),
        width=rng.normal(0.73 if female else 0.77, 0.02),
        jaw=rng.normal(2.05 if female else 2.6, 0.12) + 0.25 * _ramp(years, 40, 70),
        length=rng.uniform(-0.15, 0.15) if short else long,
        volume=rng.uniform(0.1, 0.18) if female else rng.uniform(0.06, 0.15) * (1 - 0.4 * _ramp(years, 40, 70)),
        curl=rng.uniform(0.02, 0.06) if female and rng.random() < 0.15 + 0.6 * _ramp(years, 40, 65) else rng.uniform(0, 0.012),
        hairline=hairline,
        fringe=rng.uniform(-0.42, -0.32) if fringed else hairline,
        part=rng.uniform(-0.4, 0.4),
        brows=rng.normal(0.04 if female else 0.09, 0.008),
        arch=rng.normal(0.07 if female else 0.02, 0.015),
        eyes=rng.normal(0.085 if female else 0.07, 0.008) * (1 - 0.3 * _ramp(years, 35, 70)),
        lash=rng.uniform(0.035, 0.055) if female else rng.uniform(0.015, 0.025),
        mouth=rng.normal(0.1 if female else 0.065, 0.01) * (1 - 0.25 * _ramp(years, 40, 70)),
        stubble=0.0 if female else rng.choice([0, 0.1, 0.2, 0.3], p=[0.4, 0.3, 0.2, 0.1]),
        glasses=rng.uniform(0.02, 0.05) if rng.random() < 0.2 + 0.3 * _ramp(years, 35, 65) else 0.0,
        clothes=_mix(rng.uniform(20, 240, 3), np.full(3, rng.uniform(30, 230)), 0.4),
        room=rng.uniform(60, 220, (2, 2, 1)) + rng.normal(0, 25, (2, 2, 3)),
    )


@dataclass(frozen=True)
class Framing:
    """Where in the image a face is, and how large."""

    size: tuple[float, float] = (0.88, 1.14)  # least and largest, of that at which head and shoulders fill the image
    spread: tuple[float, float] = (0.03, 0.025)  # standard deviations of its place, as shares of width and height


PORTRAIT = Framing()
FAR = Framing((0.3, 0.5), (0.14, 0.12))  # small and anywhere: where a crop around the face matters


def draw_shots(person: Person, size: tuple[int, int], framing: Framing = PORTRAIT) -> Iterable[tuple[str, Image.Image]]:
    """Yield (stem, RGB image) of the seven shots: one look, but seven poses, lights and mask colours."""
    rng = np.random.default_rng(person.seed)
    look = _look(person, rng)
    for (stem, mask), colour in zip(SHOTS.items(), rng.permutation(_MASK_COLOURS), strict=False):
        yield stem, _draw_shot(look, mask, colour, size, framing, rng)


def _draw_shot(look: Look, mask: int, colour: Colour, size: tuple[int, int], framing: Framing, rng: np.random.Generator) -> Image.Image:
    width, height = 2 * size[0], 2 * size[1]  # halved at the end, which smooths every edge
    corners = np.clip(look.room + rng.normal(0, 12, look.room.shape), 0, 255).astype(np.uint8)
    canvas = Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)
    scale = 0.285 * min(height, width * 4 / 3) * rng.uniform(*framing.size)
    across, down = (rng.normal(0, share) for share in framing.spread)
    centre = (width * (0.5 + across), height * (0.48 + down))
    _draw_room(canvas, rng)
    pen = Pen(canvas, centre, scale, tilt=rng.normal(0, 0.07), turn=rng.normal(0, 0.07))
    _draw_body(pen, look, rng)
    _draw_face(pen, look, rng)
    if mask != 2:
        _draw_mask(pen, look, mask, colour, rng)
    _draw_front_hair(pen, look, rng)
    if look.glasses:
        _draw_glasses(pen, look)
    return _light(canvas.reduce(2), rng)


def _draw_room(canvas: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(canvas, "RGBA")
    for _ in range(rng.integers(0, 4)):
        x, y, w, h = rng.uniform((-0.2, -0.2, 0.1, 0.1), (1.0, 0.9, 0.5, 0.6)) * np.tile(canvas.size, 2)
        draw.rectangle((x, y, x + w, y + h), fill=_ink(rng.uniform(20, 240, 3), rng.uniform(0.2, 0.6)))


def _draw_body(pen: Pen, look: Look, rng: np.random.Generator) -> None:
    shoulder = 1.45 if look.gender else 1.65
    neck = look.width * (0.5 if look.gender else 0.62)
    wide, end = look.width + look.volume, look.length
    if look.length > 0.2:
        side = [(wide * 0.5, -0.9), (wide, -0.4), (wide * 1.08, 0.3), (wide * 1.02, end * 0.8), (wide * 0.75, end)]
        pen.shape(_curled(_both([(0, -1), *side]), look.curl), look.hair * 0.8)
    pen.shape(_both([(0, 1.15), (neck, 1.2), (shoulder * 0.8, 1.45), (shoulder, 1.75), (shoulder * 1.1, 4), (0, 4)]), look.clothes)
    dip = rng.uniform(1.3, 1.6)
    pen.shape(_both([(0, 0.5), (neck, 0.5), (neck, 1.2), (neck * 0.9, 1.3), (0, dip)]), look.skin * 0.84)
    if look.length > 1:
        strand = np.array([(wide * 0.85, 0.5), (wide * 1.08, 0.5), (wide * 1.02, end * 0.8), (wide * 0.85, end), (wide * 0.72, end * 0.9)])
        for side in (-1, 1):
            pen.shape(_curled(strand * (side, 1), look.curl), look.hair * 0.8)


def _draw_face(pen: Pen, look: Look, rng: np.random.Generator) -> None:
    dark, aged = look.skin * 0.55, _ramp(look.years, 26, 66)
    for side in (-1, 1):
        pen.shape(_oval(side * look.width, 0.05, 0.1, 0.2), look.skin * 0.88)
    y = -np.cos(np.linspace(0, np.pi, 40))
    outline = _both(np.stack([_half_width(look, y), y], axis=1))
    for size, light in ((1.0, 0.86), (0.95, 0.92), (0.89, 0.97), (0.8, 1.0)):
        pen.shape(outline * size, look.skin * light)
    _draw_relief(pen, look, dark)
    if look.stubble:
        y = np.linspace(0.25, 1, 12)
        pen.shape(_both([(0, 0.46), (0.3, 0.5), (0.5, 0.45), *np.stack([_half_width(look, y), y], axis=1)]), look.brow, look.stubble)
    _draw_wrinkles(pen, look, dark, aged)
    smile, gaze = rng.normal(0.02, 0.03), rng.normal(0, 0.025)
    for side in (-1, 1):
        pen.shape(_oval(side * 0.44, 0.33, 0.17, 0.12), np.array((225, 100, 100)), 0.22 * (1 - aged))
        pen.shape(_oval(side * 0.33, -0.03, 0.16, look.eyes), _mix((243, 240, 236), look.skin, 0.2))
        pen.shape(_oval(side * 0.33 + gaze, -0.03, 0.075, min(0.075, look.eyes)), np.array((45, 30, 25)))
        lid = [(0.16, 0), (0.24, -look.eyes * 0.95), (0.36, -look.eyes * 1.1), (0.5, -0.01 + 0.05 * aged)]
        pen.line([(side * x, y - 0.03) for x, y in lid], np.array((30, 22, 20)), look.lash)
        brow = [(0.14, -0.24), (0.34, -0.26 - look.arch), (0.54, -0.23)]
        pen.line([(side * x, y) for x, y in brow], look.brow, look.brows)
        pen.shape(_oval(side * 0.07, 0.36, 0.035, 0.02), dark, 0.8)
    pen.line([(0.05, 0.0), (0.09, 0.28), (0.12, 0.33), (0.05, 0.38)], dark, 0.025, 0.5)
    half, full = 0.27 + 2 * smile, look.mouth
    upper = [(0, 0.62 - full * 0.5), (half * 0.35, 0.62 - full * 0.8), (half, 0.63 - smile)]
    pen.shape(_both([*upper, (half * 0.5, 0.63 + full * 0.8), (0, 0.63 + full)]), look.lips)
    pen.line([(-half, 0.63 - smile), (0, 0.64), (half, 0.63 - smile)], look.lips * 0.5, 0.02)


def _draw_relief(pen: Pen, look: Look, dark: Colour) -> None:
    """Where a face is hollow it is darker, and where it stands out lighter: what detectors of faces look for."""
    bright = _mix(look.skin, (255, 255, 255), 0.5)
    pen.shade(_oval(0, -0.5, 0.4, 0.2), bright, 0.35)
    for side in (-1, 1):
        pen.shade(_oval(side * 0.33, -0.06, 0.27, 0.19), dark, 0.5)
        pen.shade(_oval(side * 0.4, 0.25, 0.18, 0.12), bright, 0.4)
        pen.shade(_oval(side * 0.12, 0.1, 0.06, 0.3), dark, 0.4)
        pen.shade(_oval(side * 0.14, 0.33, 0.07, 0.07), dark, 0.4)
    pen.shade(_oval(0, 0.1, 0.06, 0.3), bright, 0.5)
    pen.shade(_oval(0, 0.3, 0.07, 0.06), bright, 0.5)
    pen.shade(_oval(0, 0.4, 0.14, 0.05), dark, 0.5)
    pen.shade(_oval(0, 0.78, 0.2, 0.05), dark, 0.4)
    pen.shade(_oval(0, 0.9, 0.16, 0.07), bright, 0.3)


def _draw_wrinkles(pen: Pen, look: Look, dark: Colour, aged: float) -> None:
    for row in range(3):
        y = -0.4 - 0.1 * row
        pen.line([(-0.35, y + 0.01), (-0.12, y - 0.02), (0.12, y), (0.35, y + 0.01)], dark, 0.025, 0.55 * aged)
    for side in (-1, 1):
        pen.line([(side * 0.18, 0.1), (side * 0.3, 0.17), (side * 0.45, 0.12)], dark, 0.05, 0.6 * aged)
        for rise in (-0.1, 0.0, 0.1):
            pen.line([(side * 0.53, -0.02 + rise * 0.3), (side * 0.66, -0.02 + rise)], dark, 0.022, 0.6 * aged)
        pen.line([(side * 0.16, 0.36), (side * 0.3, 0.5), (side * 0.36, 0.68)], dark, 0.035, 0.6 * aged)
        pen.shape(_oval(side * 0.5, 0.4, 0.12, 0.06), dark, 0.15 * aged)


def _draw_mask(pen: Pen, look: Look, mask: int, colour: Colour, rng: np.random.Generator) -> None:
    """Over nose and mouth (0), or wrongly (1): below the nose, or below the mouth."""
    fits = {"worn": (0.12, 1.06), "below nose": (0.5, 1.12), "below mouth": (0.8, 1.2)}
    fit = "worn" if mask == 0 else rng.choice(["below nose", "below mouth"], p=[0.6, 0.4])
    top, bottom = np.add(fits[fit], rng.uniform(-0.05, 0.05))
    kind = rng.choice(["pleated", "beak", "round"])
    peak, corner = {"pleated": (0.02, 0.9), "beak": (0.12, 0.8), "round": (0.06, 0.86)}[kind]
    ear, shade = (look.width * 1.02, 0.0), colour * 0.7
    y = np.linspace(top + 0.06, min(bottom - 0.1, 0.93), 5)
    x = _half_width(look, y) * np.linspace(corner + 0.06, 1.03, 5)
    for side in (-1, 1):
        pen.line([(side * x[0], y[0]), (side * ear[0], ear[1])], colour * 0.9, 0.03)
        pen.line([(side * x[3], y[3]), (side * ear[0], ear[1] + 0.15)], colour * 0.9, 0.03)
    outline = _smooth(
        _both([(0, top - peak), (x[0] * 0.4, top), *zip(x, y, strict=True), (x[-1] * 0.55, bottom), (0, bottom + peak * 0.3)])
    )
    pen.shape(outline, colour)
    if fit == "worn":
        _draw_cloth(pen, colour)
    pen.line([*outline, outline[0]], shade, 0.02, 0.7)
    if kind == "pleated":
        for share in (0.35, 0.55, 0.75):
            level = top + share * (bottom - top)
            reach = 0.85 * np.interp(level, y, x)
            pen.line([(-reach, level - 0.02), (0, level + 0.02), (reach, level - 0.02)], shade, 0.02, 0.7)
    else:
        pen.line([(0, top - peak), (0.02, (top + bottom) / 2), (0, bottom)], shade, 0.025, 0.6 if kind == "beak" else 0.25)


def _draw_cloth(pen: Pen, colour: Colour) -> None:
    """Nose, mouth and chin show through the cloth, without which a detector takes a masked face for none."""
    dark, bright = colour * 0.4, _mix(colour, (255, 255, 255), 0.5)
    for side in (-1, 1):
        pen.shade(_oval(side * 0.17, 0.32, 0.1, 0.2), dark, 0.4)
    pen.shade(_oval(0, 0.3, 0.09, 0.2), bright, 0.4)
    pen.shade(_oval(0, 0.42, 0.2, 0.06), dark, 0.4)
    pen.shade(_oval(0, 0.65, 0.35, 0.09), dark, 0.4)
    pen.shade(_oval(0, 0.8, 0.25, 0.07), bright, 0.25)


def _draw_front_hair(pen: Pen, look: Look, rng: np.random.Generator) -> None:
    wide, line = look.width + look.volume, look.hairline
    foot = max(-0.05, min(look.length, 0.75))
    rim = [(wide * 0.98, foot), (wide * 1.02, -0.35), (wide * 0.8, -0.88), (wide * 0.4, -1.05 - look.volume), (0, -1.1 - look.volume)]
    left = [(-x, y) for x, y in rim]
    inner = look.width * (0.94 if look.length < 0.2 else 0.88)
    forehead = [(inner, foot), (inner, -0.35), (inner * 0.75, line * 0.92), (look.part, min(line, look.fringe) - 0.05)]
    forehead += [(-inner * 0.75, line * 0.92), (-inner, -0.35), (-inner, foot)]
    pen.shape(_curled([*left, *rim[-2::-1], *forehead], look.curl), look.hair)
    if look.fringe > line:
        locks = np.linspace(-0.8, 0.8, 9) * inner
        tips = [(x, look.fringe + 0.06 * (index % 2)) for index, x in enumerate(locks)]
        pen.shape([(-inner, -0.5), *tips, (inner, -0.5), (inner * 0.7, line - 0.1), (-inner * 0.7, line - 0.1)], look.hair)
    for x in rng.uniform(-0.8, 0.8, 7) * wide:  # strands catch the light
        crown = -1.05 * np.sqrt(1 - (x / (wide * 1.1)) ** 2) - look.volume * 0.5
        pen.line([(x * 0.7, crown - 0.02), (x, min(line, crown + 0.35))], _mix(look.hair, (255, 255, 255), 0.3), 0.015, 0.5)


def _draw_glasses(pen: Pen, look: Look) -> None:
    frame = np.array((40, 35, 40))
    for side in (-1, 1):
        ring = _oval(side * 0.33, 0.0, 0.23, 0.18)
        pen.line([*ring, ring[0]], frame, look.glasses)
        pen.line([(side * 0.56, -0.03), (side * look.width, -0.05)], frame, look.glasses)
    pen.line([(-0.1, -0.02), (0.1, -0.02)], frame, look.glasses)


def _light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light from one side, of one colour, and what a camera adds: softness and grain."""
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(0, 0.7)))
    across = np.linspace(-0.5, 0.5, image.width, dtype=np.float32)[None, :, None] * rng.normal(0, 0.25)
    down = np.linspace(-0.5, 0.5, image.height, dtype=np.float32)[:, None, None] * rng.normal(0, 0.15)
    tint = (rng.uniform(0.75, 1.15) * rng.normal(1, 0.03, 3)).astype(np.float32)
    grain = rng.standard_normal((image.height, image.width, 1), dtype=np.float32) * np.float32(rng.uniform(2, 7))
    pixels = np.asarray(image, dtype=np.float32) * ((1 + across + down) * tint) + grain
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


def _half_width(look: Look, y: np.ndarray) -> np.ndarray:
    """Half the face's width at heights y in [-1, 1]: a superellipse, squarer below."""
    power = np.where(y < 0, 2.2, look.jaw)
    return look.width * (1 - np.abs(y) ** power) ** (1 / power)


def _oval(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    return _CIRCLE * (half_width, half_height) + (x, y)


_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def _both(right: Points) -> np.ndarray:
    """A closed outline from its right half, top to bottom."""
    right = np.asarray(list(right), dtype=float)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def _smooth(points: Points) -> np.ndarray:
    """Round a closed outline by cutting its corners twice. Source: Chaikin, An algorithm for high-speed curve generation, 1974."""
    points = np.asarray(points, dtype=float)
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return points


def _curled(points: Points, amplitude: float) -> np.ndarray:
    """Round a closed outline and push it out and in by turns, away from the face's centre."""
    points = _smooth(points)
    return _smooth(points * (1 + amplitude * np.cos(np.pi * np.arange(len(points)))[:, None]))


def _ramp(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, straight between."""
    return float(np.clip((value - low) / (high - low), 0, 1))


def _mix(first: Colour | RGB, second: Colour | RGB, share: float) -> Colour:
    return np.asarray(first, dtype=float) * (1 - share) + np.asarray(second, dtype=float) * share


def _ink(colour: Colour, alpha: float) -> tuple[int, ...]:
    return tuple(min(255, max(0, int(value))) for value in (*colour, 255 * alpha))
