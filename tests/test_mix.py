"What mixing must keep, at its edges, and what it refuses."
import pytest, torch
from vidcls.core import ArgumentError, LabelError, SpecMismatchError
from vidcls.mix import CutMix, Mixup, MixupCutMix


@pytest.fixture
def batch():
    return torch.randn(2, 3, 8, 16, 16, generator=draws()), torch.tensor([0,1])

def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_edges(batch):
    xb, yb = batch
    same, targets = Mixup(2, p=0)(xb, yb, draws())
    assert torch.equal(same, xb) and torch.equal(targets, torch.eye(2))
    assert torch.equal(Mixup(2)(xb, yb, draws(1))[0], Mixup(2)(xb, yb, draws(1))[0])
    assert torch.equal(CutMix(5)(xb[:1], yb[:1], draws())[1], torch.eye(5)[:1])    # one clip has only itself
    assert Mixup(2)(xb.half(), yb, draws())[0].dtype == torch.float16


def test_what_a_mix_refuses(batch):
    xb, yb = batch
    raw = torch.zeros(2, 8, 16, 16, 3, dtype=torch.uint8)
    for wrong, kind, says in (
        (lambda: Mixup(2)(raw, yb, draws()), SpecMismatchError, 'after to_model'),
        (lambda: Mixup(1)(xb, yb, draws()), LabelError, 'label 1 is not in [0, 1)'),
        (lambda: Mixup(2, alpha=0), ArgumentError, 'alpha=0'),
        (lambda: CutMix(2, p=2), ArgumentError, 'p=2'),
        (lambda: MixupCutMix(2, switch=2), ArgumentError, 'switch=2'),
    ):
        with pytest.raises(kind) as e:
            wrong()
        assert says in str(e.value)
