"""Intervals and verdicts: possible numbers at any number of groups, and nothing said that the interval
does not say."""
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import t as student

from vidcls.calibrate import pick_threshold
from vidcls.core import ArgumentError, DataError
from vidcls.evaluate import against_best, compare, record_intervals, record_of
from vidcls.intervals import bootstrap_interval, cluster_wilson, interval_note, paired_difference, wilson
from vidcls.probes import report_of
from vidcls.studies.literature import interval_at
from vidcls.studies.runs import gains_table

quick = settings(max_examples=60, deadline=None, derandomize=True)
fewer = settings(quick, max_examples=20)            # each record asks git for its commit


@st.composite
def judged(draw):
    """(right, right of another model, groups): 1 to 12 groups of 1 to 40 clips, alike or mixed, from
    never to always right."""
    G, seed = draw(st.integers(1, 12)), draw(st.integers(0, 2**32-1))
    p, q, alike = (
        draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1])),
        draw(st.sampled_from([0, 0.3, 0.9, 1])),
        draw(st.booleans()),
    )
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(G), rng.integers(1, 41, G))
    u, v = (rng.random(G)[groups] if alike else rng.random(len(groups)) for _ in range(2))
    return u < p, v < q, groups

def possible(value, low, high, smallest, largest):
    "Both ends are possible values around the value, or both say that nothing can be told."
    if math.isnan(low) and math.isnan(high):
        return True
    return smallest <= low <= value + 1e-12 and value - 1e-12 <= high <= largest

def record(right, groups, model='m', labels=('a', 'b')):
    "The record of a model that is right where it is said to be; the classes take turns."
    y = np.arange(len(right)) % 2
    said = np.where(right, y, 1-y)
    clips = pd.DataFrame(dict(path=[f'{i}.mp4' for i in range(len(y))], label=[labels[i] for i in y],
                              group=[f'g{g}' for g in groups]))
    probs = np.where(np.arange(2) == said[:,None], .9, .1)
    return record_of(clips, probs, list(labels), dataset='d', split='test', model=model, spec={},
                     views=dict(clips=1, crops=1), n_expected=len(y), failures={}, seed=0)


# Numbers

@quick
@given(judged())
def test_every_interval_over_groups_holds_possible_numbers(d):
    a, b, groups = d
    low, high = cluster_wilson(a, groups)
    assert possible(a.mean(), low, high, 0, 1) and not math.isnan(low)
    assert possible(*paired_difference(a, b, groups), -1, 1) and possible(*paired_difference(a, b), -1, 1)
    share = lambda s, y: float((s == y).mean())
    assert possible(*bootstrap_interval(share, a, b, groups, n_boot=100, within=(0, 1)), 0, 1)


@quick
@given(st.integers(1, 12), st.integers(0, 2**32-1))
def test_intervals_over_seeds_hold_possible_numbers(n, seed):
    rng = np.random.default_rng(seed)
    runs = {(arm, s): dict(accuracy=float(rng.random())) for arm in ('none', 'all') for s in range(n)}
    r = gains_table(runs, ['none', 'all']).iloc[1]
    assert possible(r.gain, r.low, r.high, -1, 1) and math.isnan(r.low) == (n == 1)


@pytest.mark.parametrize('n', range(2, 41))
def test_seeds_have_students_t_at_any_number(n):
    "Also beyond eight seeds, where 1.96 is too small."
    gain = .1 + .001*np.arange(n)
    runs = {('none', s): dict(accuracy=0.5) for s in range(n)} | {
        ('all', s): dict(accuracy=0.5 + g) for s, g in enumerate(gain)
    }
    r = gains_table(runs, ['none', 'all']).iloc[1]
    assert r.high-r.gain == pytest.approx(student.ppf(.975, n-1)*gain.std(ddof=1)/n**.5, rel=.005)


def test_the_interval_that_a_real_test_gave_is_possible():
    "Four cameras, one of which has most of the clips: worth under two groups. It was [-6.27, 1.25]."
    sizes, rng = [105, 16, 12, 6], np.random.default_rng(0)
    groups = np.repeat(range(4), sizes)
    a, b = (
        rng.random(139) < np.array([0.70, 0.9, 0.8, 0.3])[groups],
        rng.random(139) < np.array([0.9, 0.95, 0.7, 0.8])[groups],
    )
    assert possible(*paired_difference(a, b, groups), -1, 1)
    assert interval_note(a, groups, b).startswith('Nothing can be told: only 1.7 independent groups')


@quick
@given(judged())
def test_numbers_without_limits_may_be_given_some(d):
    a, b, groups = d
    rng = np.random.default_rng(len(a))
    x, y = a*rng.random(len(a)), b*rng.random(len(b))  # probabilities: differences in [-1,1]
    assert possible(*paired_difference(x, y, groups, within=(-1, 1)), -1, 1)


@pytest.mark.parametrize('within', [(1, 0), (0, 1, 2), (float('nan'), 1), 3, 'all'])
def test_odd_limits_are_named(within):
    with pytest.raises(ArgumentError, match='within'):
        paired_difference([1, 0], [0, 1], within=within)


@pytest.mark.parametrize('top1, n', [(0, 1), (100, 1), (50, 3), (99.9, 10)])
def test_published_figures_have_possible_intervals(top1, n):
    assert 0 <= interval_at(top1, n) <= 50


# Words

@fewer
@given(judged())
def test_a_record_is_called_above_chance_only_where_its_interval_is(d):
    a, _, groups = d
    r = record(a, groups)
    lo, hi = r.interval
    assert r.verdict.startswith('above chance') == (lo > r.chance)
    assert r.verdict.startswith('below chance') == (hi < r.chance)
    assert ('above always naming' in r.verdict) == (lo > max(r.chance, r.majority))
    assert r.verdict in repr(r)


@fewer
@given(judged())
def test_a_comparison_is_decided_only_where_its_interval_is(d):
    a, b, groups = d
    row = compare([record(b, groups), record(a, groups)]).iloc[1]
    if math.isnan(row.d_low):
        assert row.verdict == 'cannot be told: too few groups'
    assert (row.verdict == 'better') == bool(row.d_low > 0 and row.p < .05)
    assert (row.verdict == 'worse') == bool(row.d_high < 0 and row.p < .05)
    assert 'nan' not in against_best(record(a, groups), [record(b, groups)])


def test_two_groups_that_agree_decide_nothing():
    "Sixty clips of two scenes, on all of which one model is right and the other wrong."
    groups = np.arange(60) // 30
    row = compare([record(np.zeros(60, bool), groups), record(np.ones(60, bool), groups)]).iloc[1]
    assert (
        row.difference == 1
        and row.verdict == 'cannot be told: too few groups'
        and row.note.startswith('Interval is rough')
    )


def test_one_group_decides_nothing():
    groups = np.zeros(60, int)
    rng = np.random.default_rng(0)
    a, b = record(rng.random(60) < .9, groups), record(rng.random(60) < .4, groups)
    row = compare([b, a]).iloc[1]
    assert (
        row.p < 0.05
        and row.verdict == 'cannot be told: too few groups'
        and row.note.startswith('Nothing can be told')
    )
    assert record_intervals(a, n_boot=100).loc[['mean_class', 'nll'], ['low', 'high']].isna().all(axis=None)


def told(answers, y, groups):
    "The verdict of a probe on answers (N,) of each kind."
    return report_of(
        pd.DataFrame(dict(path='x', group=groups, target=y) | answers), 'm', int(y.max()) + 1
    ).verdict

def test_probes_that_cannot_be_told_are_called_that():
    "0.71 of clips from few cameras, 0.6 of clips of ten patients of whom nearly half have one illness."
    rng = np.random.default_rng(0)
    for groups, classes in ((np.repeat(range(4), [105, 16, 12, 6]), 4), (np.repeat(range(10), 3), 3)):
        y = np.where(np.arange(len(groups)) % 9 < 4, 0, rng.integers(1, classes, len(groups)))
        right = np.arange(len(y)) % 10 < (7 if classes == 4 else 6)
        said = np.where(right, y, (y+1) % classes)
        verdict = told({k: said for k in ('as it is', 'reversed', 'shuffled', 'frozen')}, y, groups)
        assert (
            verdict.startswith('cannot be told: accuracy between 0.')
            and 'most frequent class gives 0.' in verdict
        ), verdict


def test_no_loss_among_a_few_clips_is_no_proof():
    y = np.arange(8) % 2
    verdict = told({k: y for k in ('as it is', 'reversed', 'shuffled', 'frozen')}, y, np.arange(8))
    assert verdict == 'no loss seen on one frame, but 8 clips could miss one of 0.32'


def test_probes_know_nothing_where_the_clips_exclude_knowledge():
    y = np.arange(2000) % 2
    said = np.arange(2000) // 2 % 2  # right on every second clip
    assert (
        told({'as it is': said, 'frozen': said}, y, np.arange(2000))
        == 'knows nothing of these clips: not above chance'
    )


@pytest.mark.parametrize('n, words', [(400, 'one frame is enough, as far as 400 clips can tell'),
                                      (24, 'no loss seen on one frame, but 24 clips could miss one of 0.')])
def test_one_frame_is_enough_only_where_a_loss_would_be_seen(n, words):
    y = np.arange(n) % 2
    frozen = np.where(np.arange(n) % 12 == 0, 1-y, y)  # a clip in twelve is lost, another one gained
    plain = np.where(np.arange(n) % 12 == 5, 1-y, y)
    kinds = {'as it is': plain, 'reversed': plain, 'shuffled': plain, 'frozen': frozen}
    assert told(kinds, y, np.arange(n)).startswith(words)


def test_order_is_denied_only_where_a_loss_would_be_seen():
    n = 40
    y, at = np.arange(n) % 2, np.arange(n)
    back = np.where(at % 10 == 0, 1-y, y)
    plain = np.where(at % 10 == 5, 1-y, y)
    kinds = {'as it is': plain, 'reversed': back, 'shuffled': plain, 'frozen': 1-y}
    assert 'could be missed' in told(kinds, y, at)
    assert told({k: np.tile(v, 20) for k, v in kinds.items()}, np.tile(y, 20), np.arange(20 * n)).endswith(
        'but not their order'
    )


@quick
@given(judged())
def test_a_promise_is_kept_by_its_bound_or_refused(d):
    right, _, groups = d
    sure = np.random.default_rng(len(right)).random(len(right))
    try:
        found = pick_threshold(sure, right, .3, groups)
    except DataError as e:
        assert 'independent clips' in str(e)
    else:
        assert found['error'] <= found['upper'] <= .3


def test_a_refused_promise_counts_the_groups():
    with pytest.raises(DataError, match='these 60 clips, which are worth 3.0 independent ones'):
        pick_threshold(np.linspace(0, 1, 60), np.ones(60), .1, np.arange(60)//20)


@pytest.mark.parametrize('n_right, n', [(0, 1), (1, 1), (0, 10**9), (10**9, 10**9), (1, 2)])
def test_wilson_at_its_ends(n_right, n):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert possible(n_right/n, *wilson(n_right, n), 0, 1)
