import pytest
import torch
import torch.nn.functional as F

from tests.conftest import nightly_after
from trainables.data.targets import Classes, Scheme
from trainables.losses.ordinal import coral, ordinal_head

AGE = Classes("age", ("<30", "30-59", ">=60"), (30, 60))
MASK = Classes("mask", ("worn", "incorrect", "absent"))


@pytest.mark.parametrize(("attributes", "expected"), [((AGE,), True), ((MASK,), False), ((MASK, AGE), False), ((AGE, MASK), False)])
def test_an_ordinal_head_predicts_one_attribute_alone_which_is_cut_from_a_number(attributes, expected):
    assert ordinal_head(Scheme(attributes)) is expected


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_coral_is_the_binary_cross_entropies_of_the_cumulative_logits_that_the_paper_trains(seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, (12,), generator=generator)
    cumulative = 2 * torch.randn(12, 1, generator=generator) + torch.tensor([[3.0, 1.0, 0.5, -2.0]])  # one slope, falling biases
    beyond = F.pad(torch.sigmoid(cumulative), (1, 0), value=1.0)
    class_logits = (beyond - F.pad(beyond[:, 1:], (0, 1))).log()
    levels = (ids[:, None] > torch.arange(4)).float()
    expected = F.binary_cross_entropy_with_logits(cumulative, levels, reduction="none").sum(dim=1).mean()
    torch.testing.assert_close(coral(class_logits, ids), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_coral_of_two_classes_is_cross_entropy(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, ids = torch.randn(12, 2, generator=generator), torch.randint(2, (12,), generator=generator)
    torch.testing.assert_close(coral(logits, ids), F.cross_entropy(logits, ids))


def test_coral_grows_with_the_distance_to_the_true_class_where_cross_entropy_does_not():
    answers = 5.0 * F.one_hot(torch.arange(5), 5)
    values = [coral(answer[None], torch.tensor([0])).item() for answer in answers]
    assert values == sorted(values) and min(b - a for a, b in zip(values, values[1:], strict=False)) > 1
    assert len({round(F.cross_entropy(answer[None], torch.tensor([0])).item(), 4) for answer in answers[1:]}) == 1
