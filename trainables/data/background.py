"""What stands in front: the background of an image removed by GrabCut, the same way each time.

Source: Rother, Kolmogorov and Blake, "GrabCut": Interactive Foreground Extraction using Iterated Graph Cuts, SIGGRAPH 2004, as in OpenCV.
"""

import numpy as np
from PIL import Image

SIDE = 256  # pixels: front and back are distinguished on a copy whose longer side is at most this
RIM = 2  # pixels of the copy that are background at least, on each side: its colours are known from somewhere
LEAST = 0.01  # share of the area; where less is left, nothing is removed


def without_background(
    image: Image.Image, area: tuple[float, float, float, float], face: tuple[int, int, int, int] | None, rounds: int
) -> Image.Image:
    """The image, black where it is background; unchanged where all or next to nothing would be.

    Args:
        area: left, top, right, bottom in pixels: all beyond is background, what is within is asked.
        face: likewise, whose middle is no background; None where none is known.
        rounds: how often the colours of both are fitted.
    """
    import cv2

    scale = min(1, SIDE / max(image.size))
    small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR, reducing_gap=2.0)
    width, height = small.size
    if min(width, height) <= 4 * RIM:
        return image
    left, top, right, bottom = (round(end * scale) for end in area)
    left, top, right, bottom = max(left, RIM), max(top, RIM), min(right, width - RIM), min(bottom, height - RIM)
    if left >= right or top >= bottom:
        return image
    colours, marks = np.ascontiguousarray(np.asarray(small)[..., ::-1]), np.zeros((height, width), np.uint8)
    asked, back, fore = (left, top, right - left, bottom - top), np.zeros((1, 65)), np.zeros((1, 65))
    # The first colours are drawn at random, from a stream of this thread.
    cv2.setRNGSeed(0)
    cv2.grabCut(colours, marks, asked, back, fore, 0, cv2.GC_INIT_WITH_RECT)
    if face is not None:
        across, down = (face[2] - face[0]) / 4, (face[3] - face[1]) / 4
        middle = (face[0] + across, face[1] + down, face[2] - across, face[3] - down)
        left, top, right, bottom = (round(end * scale) for end in middle)
        marks[top:bottom, left:right] = cv2.GC_FGD
    cv2.grabCut(colours, marks, asked, back, fore, rounds, cv2.GC_EVAL)
    front = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if front.sum() < LEAST * asked[2] * asked[3]:
        return image
    soft = Image.fromarray(front.astype(np.uint8) * 255).resize(image.size, Image.Resampling.BILINEAR)
    return Image.composite(image, Image.new("RGB", image.size), soft)
