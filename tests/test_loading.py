"Caches, shards and loaders: nothing is lost, nothing is replaced in silence, and errors name what went wrong."
import pytest

from vidcls.core import ArgumentError, ClipSpec


@pytest.mark.parametrize('odd', [
    dict(std=float('nan')), dict(std=0), dict(std=(.2, .2, -1)), dict(mean=None), dict(std=None), dict(mean='half'),
    dict(mean=float('inf')), dict(mean=(1, 2)), dict(mean={}), dict(sampling='time', step_s=float('inf')),
    dict(sampling='time', step_s=float('nan')), dict(n_frames=float('nan')), dict(size=True)])
def test_a_spec_that_cannot_be_is_refused_by_name(odd):
    with pytest.raises(ArgumentError, match=f'{list(odd)[-1]}='): ClipSpec(**odd)
