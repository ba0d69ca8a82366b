import cv2
import numpy as np
import pytest
import torch

from trainables.data.batches import plain_batches
from trainables.data.edges import with_edges
from trainables.data.views import open_view


@pytest.fixture(scope="module")
def pixels(data) -> np.ndarray:
    """The demo's pictures and noise of the same size, which is nothing but edges."""
    [file] = data.views.values()
    view = open_view(file).images[1:]
    return np.concatenate([view, np.random.default_rng(0).integers(256, size=view[:20].shape, dtype=np.uint8)])


def test_the_fourth_channel_is_canny_of_the_gray_image_as_the_view_has_it(pixels):
    for image, made in zip(pixels, with_edges(pixels), strict=True):
        np.testing.assert_array_equal(made[..., 3], cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 100, 200))


def test_edges_are_all_or_nothing_and_colours_stay_as_they_are(pixels):
    made = with_edges(pixels)
    assert made.dtype == np.uint8 and made.shape == (*pixels.shape[:3], 4)
    assert set(np.unique(made[..., 3])) == {0, 255}
    np.testing.assert_array_equal(made[..., :3], pixels)


@pytest.mark.parametrize("size", [(16, 16), (33, 47)])
def test_the_edge_of_a_square_is_found_where_it_is_and_a_blank_image_has_none(size):
    blank = np.full((2, *size, 3), 90, np.uint8)
    assert not with_edges(blank)[..., 3].any()
    blank[1, 4:12, 5:13] = 200
    plain, square = with_edges(blank)[..., 3]
    rows, columns = np.nonzero(square)
    assert not plain.any()
    assert abs(rows.min() - 4) <= 1 and abs(rows.max() - 11) <= 1 and abs(columns.min() - 5) <= 1 and abs(columns.max() - 12) <= 1
    assert not square[6:10, 7:11].any()


def test_validation_sees_the_same_edges_as_training(pixels):
    rows = np.array([5, 0, 7])
    [made] = plain_batches(pixels, rows, batch_size=8, edges=True)
    assert torch.equal(made, torch.from_numpy(with_edges(pixels[rows])))
