"""Random changes to training photos, by albumentations, on the uint8 view."""

import os
from collections.abc import Callable

# albumentations asks its home server for a newer version when imported, unless told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np

from trainables.config import AugmentConfig

# The trial decides how many threads it uses; OpenCV would take every core for 64-pixel pictures.
cv2.setNumThreads(0)

Augment = Callable[[np.ndarray, int], np.ndarray]


def build_augment(config: AugmentConfig) -> Augment | None:
    """A function (images (n, h, w, 3) uint8, seed) -> images of the same shape, or None when everything is off.

    The same seed changes the same images in the same way. One such function must not be shared between threads.
    """
    steps = []
    if config.flip:
        steps.append(A.HorizontalFlip(p=config.flip))
    if config.rotate:
        steps.append(A.Rotate(limit=(-config.rotate, config.rotate), border_mode=cv2.BORDER_REFLECT_101, p=1.0))
    brightness, contrast = config.brightness, config.contrast
    if brightness or contrast:
        steps.append(A.RandomBrightnessContrast((-brightness, brightness), (-contrast, contrast), p=1.0))
    if config.erase:
        # Zhong et al., Random Erasing Data Augmentation, 2017; area and shape as in the winner's report.
        steps.append(A.Erasing(scale=(0.02, 0.2), ratio=(0.5, 2.0), fill="random", p=config.erase))
    if not steps:
        return None
    pipeline = A.Compose(steps)

    def augment(images: np.ndarray, seed: int) -> np.ndarray:
        pipeline.set_random_seed(seed % 2**32)
        return np.stack([pipeline(image=image)["image"] for image in images])

    return augment
