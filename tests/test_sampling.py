"Edge cases of the rules on page 08: what they refuse, very short videos, and the rules without a draw."
import numpy as np
import pytest

from vidcls.core import ArgumentError, ClipSpec
from vidcls.data.sampling import i3d_idxs, random_idxs, sample_idxs, ssv2_test_idxs, time_idxs, uniform_idxs

SPEC = ClipSpec(n_frames=4)
AT_10 = SPEC.with_(sampling='time', step_s=.1)
REFUSED = {
    'n_total=0': lambda: uniform_idxs(0, 4),
    'n=0': lambda: uniform_idxs(9, 0),
    'times has shape': lambda: time_idxs([], 8, .5),
    'step_s=0': lambda: time_idxs([0,.1], 8, 0),
    "set short='repeat'": lambda: sample_idxs(3, SPEC.with_(short='error')),
    'needs times': lambda: sample_idxs(40, AT_10),
}


@pytest.mark.parametrize('said', REFUSED)
def test_what_is_refused_is_named(said):
    with pytest.raises(ArgumentError, match=said):
        REFUSED[said]()


def test_seconds_are_centred_and_stay_at_the_end():
    assert (time_idxs(np.arange(41)/10, 3, 1.)/10 == [1,2,3]).all()                 # 1 s free on both sides
    assert time_idxs(np.arange(10)/10, 4, .5).tolist() == [0,5,9,9]                 # the last frame stays


def test_a_spec_in_seconds_uses_the_times():
    drawn = sample_idxs(40, AT_10, np.random.default_rng(0), np.arange(40)/30)
    assert np.diff(drawn).tolist() == [3]*3


def test_a_video_of_one_frame():
    assert sample_idxs(1, SPEC).tolist() == [0]*4
    assert sample_idxs(1, SPEC.with_(sampling='still')).tolist() == [0]*4


def test_protocols_follow_the_rules_of_the_lesson():
    "Middles and beginnings of n parts, in turn; a window anywhere, with the same draw."
    for n_total in (1, 7, 16, 37, 300):
        both = np.sort(np.r_[uniform_idxs(n_total, 16), np.arange(16)*n_total // 16])
        assert (ssv2_test_idxs(n_total) == both.reshape(16, 2).T).all()
    one, other = (f(300, 64, np.random.default_rng(3)) for f in (i3d_idxs, random_idxs))
    assert (one == other).all()
