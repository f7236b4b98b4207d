"Evaluation, held by other people's implementations, by simulation, and by models whose answer is known."
import json, os, shutil, time, warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import binomtest

from processes import linux, run_script

from vidcls.calibrate import auroc, calibrate, fit_temperature, risk_coverage, temperature_scale
from vidcls.core import ArgumentError, CheckpointError, ClipSpec, DataError, LabelError, SpecMismatchError
from vidcls.core import seed_everything
from vidcls.data.datasets import ClipTable, from_folder
from vidcls.data.loaders import loader, loaders
from vidcls.data.synthetic import make_motion_clips, motion_clip, motion_mask, roll_clips
from vidcls.evaluate import (
    PROTOCOLS,
    Views,
    against_best,
    clip_names,
    as_views,
    combine,
    compare,
    compare_views,
    cross_validate,
    evaluate,
    load_record,
    predict_views,
    record_intervals,
    record_of,
    recompute_record,
    save_record,
    show_predictions,
)
from vidcls.interpret import explain, judge_maps
from vidcls.intervals import (
    _effective_n,
    _small_sample_factor,
    bootstrap_interval,
    cluster_wilson,
    effective_n_groups,
    interval_note,
    mcnemar,
    paired_difference,
    wilson,
)
from vidcls.metrics import brier, ece, macro_f1, mean_class_accuracy, nll, topk_accuracy
from vidcls.models.zoo import create_model
from vidcls.probes import probe_time
from vidcls.show import write_video
from vidcls.train import fit

quick = settings(max_examples=30, deadline=None, derandomize=True)


# --- metrics against scikit-learn and scipy

@st.composite
def judged(draw, some=1):
    "(probs, targets): N in 1..40, K in 1..6; some rows certain, some classes absent."
    K, N, rng = (
        draw(st.integers(1, 6)),
        draw(st.integers(some, 40)),
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
    )
    probs = softmax(rng.normal(size=(N,K))*draw(st.sampled_from([.1, 1, 5])), 1)
    if draw(st.booleans()):
        probs[0] = np.eye(K)[rng.integers(K)]
    return probs, rng.integers(0, K, N) if draw(st.booleans()) else np.full(N, rng.integers(K))

@quick
@given(judged())
def test_nll_and_brier_equal_sklearn(d):
    probs, y = d
    K = probs.shape[1]
    if K == 1:
        assert nll(probs, y) == 0
    elif (probs[np.arange(len(y)), y] > 1e-12).all():
        assert nll(probs, y) == pytest.approx(skm.log_loss(y, probs, labels=range(K)), abs=1e-9)
    else:
        assert nll(probs, y) == np.inf
    assert brier(probs, y) == pytest.approx(
        sum(skm.mean_squared_error((y == k).astype(float), probs[:, k]) for k in range(K)), abs=1e-9
    )

@quick
@given(judged(), st.integers(1, 20))
def test_ece_equals_a_loop(d, bins):
    probs, y = d
    sure, right, total = probs.max(1), probs.argmax(1) == y, 0
    for b in range(bins):
        inside = [i for i,s in enumerate(sure) if b/bins < s <= (b+1)/bins or (b == 0 and s == 0)]
        if inside:
            total += len(inside)/len(y)*abs(np.mean(sure[inside]) - np.mean(right[inside]))
    assert ece(probs, y, bins) == pytest.approx(total, abs=1e-9)

@quick
@given(judged(), st.sampled_from([1e-12, .01, .3]))
def test_nll_with_a_floor_is_finite(d, floor):
    probs, y = d
    assert nll(probs, y, floor) == pytest.approx(
        np.mean([-np.log(max(floor, p[t])) for p, t in zip(probs, y)]), abs=1e-9
    )

@quick
@given(judged())
def test_macro_f1_equals_sklearn(d):
    probs, y = d
    there = np.union1d(y, probs.argmax(1))
    assert macro_f1(probs.argmax(1), y, probs.shape[1]) == pytest.approx(
        skm.f1_score(y, probs.argmax(1), labels=there, average='macro', zero_division=0), abs=1e-12
    )

@quick
@given(st.lists(st.integers(0, 7), min_size=1, max_size=60), st.data())
def test_effective_n_groups_is_kish(groups, data):
    of = np.array(data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups))))
    sizes = lambda rows: np.array([sum(1 for g,r in zip(groups, rows) if g == k and r) for k in set(groups)])
    for rows in (np.ones(len(groups), bool), of):
        n = sizes(rows)
        assert effective_n_groups(groups, rows) == pytest.approx(n.sum()**2/(n**2).sum() if n.any() else 0)
    assert 1 <= effective_n_groups(groups) <= len(set(groups)) + 1e-9

@pytest.mark.parametrize('bad, words', [
    (lambda: mcnemar([], []), 'correct_a has shape (0,)'),
    (lambda: mcnemar([1, np.nan], [1, 0]), 'correct_a holds NaN (clip 1)'),
    (lambda: mcnemar([1, 0], [1]), 'correct_a has 2 clips and '
                                   'correct_b 1'),
    (lambda: mcnemar([1, 2], [1, 0]), 'correct_a holds 2.0 (clip 1)'),
    (lambda: paired_difference([1, 0], [1, np.nan]), 'values_b holds nan (clip 1); leave such clips out '
                                                     'of both'),
    (lambda: paired_difference([], []), 'values_a has shape (0,)'),
    (lambda: paired_difference([1.], [np.inf]), 'values_b holds inf'),
    (lambda: paired_difference([1, 0], [1, 0], [1]), 'groups has 1 for 2 clips'),
    (lambda: paired_difference([1, 0], [1, 0], level=95), 'level=95'),
    (lambda: nll([[1., 0.]], [1], floor=-1), 'floor=-1'),
    (lambda: cluster_wilson([], []), 'correct has shape (0,)'),
    (lambda: Views(scales=()), 'scales=()'),
    (lambda: bootstrap_interval(nll, [[1., 0.]], [0, 1]), '1 scores, 2 targets'),
    (lambda: bootstrap_interval(nll, [[1., 0.]], [0], n_boot=5), 'n_boot=5')])
def test_bad_arguments_end_in_one_sentence(bad, words):
    with pytest.raises(ArgumentError) as e:
        bad()
    assert words in str(e.value)

@quick
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_equals_scipy(pairs):
    a, b = np.array(pairs).T
    only_a, only_b, p = mcnemar(a, b)
    assert (only_a, only_b) == ((a & ~b).sum(), (~a & b).sum())
    assert p == pytest.approx(
        binomtest(int(only_a), int(only_a + only_b)).pvalue if only_a + only_b else 1.0, abs=1e-9
    )

@quick
@given(*[st.lists(st.integers(0, 5), min_size=1, max_size=30)]*2)
def test_auroc_equals_sklearn_with_ties(a, b):
    assert auroc(a, b) == pytest.approx(skm.roc_auc_score([1]*len(a)+[0]*len(b), a+b), abs=1e-12)

@quick
@given(judged(5))
def test_risk_coverage_is_a_prefix(d):
    probs, y = d
    sure, right = probs.max(1), probs.argmax(1) == y
    for r in risk_coverage(sure, right).itertuples():
        keep = sure >= r.threshold
        assert r.coverage == pytest.approx(keep.mean()) and r.error == pytest.approx(1-right[keep].mean())

@quick
@given(st.integers(0, 2**32-1), st.floats(.2, 5))
def test_temperature_equals_scipys_optimum(seed, scale):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(200,4))*2
    y = np.array([rng.choice(4, p=p) for p in temperature_scale(z)])
    found = minimize_scalar(
        lambda b: nll(temperature_scale(scale * z, np.exp(-b)), y),
        bounds=(-8, 8),
        method='bounded',
        options=dict(xatol=1e-8),
    )
    assert nll(temperature_scale(scale*z, fit_temperature(scale*z, y)), y) <= found.fun + 1e-9

@quick
@given(st.integers(1, 30), st.integers(2, 40))
def test_each_clip_its_own_group_is_wilson_but_for_students_t(n_right, n):
    "With one clip a group, the clustered interval is near the plain one; never narrower by more than a hair."
    n_right = min(n, n_right)
    right = np.arange(n) < n_right
    (a,b), (c,d) = cluster_wilson(right, np.arange(n)), wilson(n_right, n)
    assert a <= n_right/n <= b and (b-a) >= .9*(d-c)

def test_a_million_predictions_take_less_than_five_seconds():
    "All metrics and intervals together; and no interval holds draws times clips in memory."
    import tracemalloc
    rng = np.random.default_rng(0)
    probs, y = (
        softmax(rng.normal(size=(1_000_000, 10)).astype(np.float32), 1).astype(float),
        rng.integers(0, 10, 1_000_000),
    )
    groups = np.arange(len(y))//10
    start = time.perf_counter()
    pred = probs.argmax(1)
    right, other = pred == y, (y+1)%10 == pred
    topk_accuracy(probs, y), topk_accuracy(probs, y, 5), nll(probs, y), brier(probs, y), ece(probs, y)
    mean_class_accuracy(pred, y, 10), macro_f1(pred, y, 10)
    cluster_wilson(right, groups), mcnemar(right, other)
    (
        paired_difference(right, other),
        paired_difference(right, other, groups),
        paired_difference(probs[:, 0], probs[:, 1], groups),
    )
    took = time.perf_counter()-start
    assert took < 5*float(os.environ.get('VIDCLS_SLACK', 1)), took
    tracemalloc.start()
    paired_difference(right, other, groups)
    paired_difference(probs[:,0], probs[:,1])
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


# --- intervals do what they promise

def coverage(draw, interval, truth, n=2000, seed=0):
    rng, inside = np.random.default_rng(seed), 0
    for _ in range(n):
        low, high = interval(*draw(rng))
        inside += low <= truth <= high
    return inside/n

@pytest.mark.parametrize('p,n', [(.5, 60), (.8, 100), (.93, 150), (.7, 40)])
def test_coverage_of_wilson(p, n):
    """Exact: the intervals of all counts, weighed by how probable the count is; then averaged over
    nearby p, because counts are whole numbers."""
    from scipy.stats import binom
    bounds = [wilson(k, n) for k in range(n+1)]
    inside = [
        sum(binom.pmf(k, n, q) for k, (lo, hi) in enumerate(bounds) if lo <= q <= hi)
        for q in np.linspace(p - 0.03, p + 0.03, 61)
    ]
    assert .93 <= np.mean(inside) <= .97

def in_families(sizes, p, alike):
    """Each group has its own accuracy, beta-distributed with intraclass correlation `alike`; 1 means
    that a group is right or wrong as a whole."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    def draw(rng):
        own = (
            (rng.random(len(sizes)) < p).astype(float)
            if alike == 1
            else rng.beta(p * (1 / alike - 1), (1 - p) * (1 / alike - 1), len(sizes))
        )
        return rng.random(len(groups)) < own[groups], groups
    return draw

REAL = [20, 15, 13] + [6]*25 + [3]*7                                    # groups as real sets have them

@pytest.mark.parametrize('sizes', [[8]*20, [4]*30, [8]*40, [20]*60, REAL],
                         ids=['20 x 8', '30 x 4', '40 x 8', '60 x 20', 'as real sets have them'])
@pytest.mark.parametrize('alike', [.1, .3, .6])
@pytest.mark.parametrize('p', [.5, .8])
def test_coverage_with_clips_in_families(sizes, alike, p):
    """The regime that the page promises: clips worth 20 groups or more, mistakes in five or more. Of
    4,000: one standard error is .35 points."""
    assert .93 <= coverage(in_families(sizes, p, alike), cluster_wilson, p, 4000) <= .97
    draw, rng = in_families(sizes, p, alike), np.random.default_rng(0)
    assert np.mean([interval_note(*draw(rng)) == '' for _ in range(200)]) > (.9 if len(sizes) > 20 else .5)

@pytest.mark.parametrize('sizes,p,alike', [([5]*40, .8, .3), ([8]*25, .7, .6), ([4]*60, .85, 1.)],
                         ids=['40 x 5', '25 x 8', '60 x 4'])
def test_as_if_clips_were_independent_the_promise_is_broken(sizes, p, alike):
    assert (
        coverage(in_families(sizes, p, alike), lambda right, _: wilson(int(right.sum()), len(right)), p, 500)
        < 0.9
    )

@pytest.mark.parametrize('sizes,p,alike', [([10]*9, .8, .3), ([30]*5, .9, .3), ([30]*5+[1]*50, .8, 1.),
                                              ([30]*10+[1]*50, .95, .6), ([60]+[3]*30, .8, .6),
                                           ([30]*20, .95, .3), ([10]*30, .95, .6), ([8]*60, .99, .3)],
                         ids=['nine', 'five', 'five large', 'ten large', 'one large',
                              '20 x 30', '30 x 10', '60 x 8'])
def test_where_little_is_known_intervals_are_wide_and_say_so(sizes, p, alike):
    draw, rng = in_families(sizes, p, alike), np.random.default_rng(0)
    assert coverage(draw, cluster_wilson, p, 2000) >= .94
    assert np.mean([interval_note(*draw(rng)).startswith('Interval is wide') for _ in range(200)]) > .8

def test_an_interval_holds_its_own_accuracy():
    for G in range(2, 40):
        for m in (2, 3, 4, 8):
            for right in (0, 1):
                low, high = cluster_wilson(np.full(G*m, right), np.repeat(np.arange(G), m))
                assert low <= right <= high
    with pytest.raises(ArgumentError, match='NaN'):
        cluster_wilson([1, np.nan], [0, 1])

@pytest.mark.parametrize('G', [3, 5, 9])
def test_equal_models_are_seldom_told_apart_by_few_groups(G):
    rng, wrong = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(G), 10)
    for _ in range(500):
        lean = rng.normal(0, .2, G)[groups]  # one model is better on some actors, the other on others
        _, low, high = paired_difference(
            rng.random(10 * G) < 0.6 + lean, rng.random(10 * G) < 0.6 - lean, groups, n_boot=200
        )
        wrong += not low <= 0 <= high
    assert wrong/500 <= .09
    assert np.isnan(paired_difference([1,1,0,1], [0,1,0,0], [0]*4)[1:]).all()  # one group: nothing is known

def two_models(sizes, better, worse, alike):
    "Clips on which only the one or only the other is right come in families, too (Dirichlet)."
    groups, shares = np.repeat(np.arange(len(sizes)), sizes), np.array([better, worse, 1-better-worse])
    def draw(rng):
        own = rng.dirichlet(shares*(1/alike-1), len(sizes)) if alike else np.tile(shares, (len(sizes), 1))
        u, c = rng.random(len(groups)), own.cumsum(1)[groups]
        return u < c[:,0], (u >= c[:,0]) & (u < c[:,1]), groups
    return draw

@pytest.mark.parametrize('sizes', [[1]*100, [4]*50, [10]*50, REAL],
                         ids=['each for itself', '50 x 4', '50 x 10', 'as real sets have them'])
@pytest.mark.parametrize('better,worse,alike', [(.2, .1, .1), (.3, .2, .3), (.15, .15, .1)])
def test_coverage_of_the_paired_difference(sizes, better, worse, alike):
    draw = two_models(sizes, better, worse, 0 if max(sizes) == 1 else alike)
    assert (
        0.93
        <= coverage(draw, lambda a, b, g: paired_difference(a, b, g, n_boot=500)[1:], better - worse, 2500)
        <= 0.97
    )
    assert interval_note(*[draw(np.random.default_rng(0))[i] for i in (0,2,1)]) == ''

def honest_world(G, m, K, boast):
    "Logits drawn, the truth drawn from them; a family shares half of what makes its logits."
    groups = np.repeat(np.arange(G), m)
    def draw(rng):
        z = rng.normal(0, 1, (G*m,K)) + rng.normal(0, 1, (G,K))[groups]
        return softmax(z, 1), (softmax(z/boast, 1).cumsum(1) > rng.random((G*m,1))).argmax(1), groups
    return draw

@pytest.mark.parametrize('name', ['mean class', 'macro F1', 'nll'])
def test_coverage_of_the_bootstrap(name):
    """Metrics without a formula, on 50 families of 4; the truth is that of very many clips. 2,000
    tests of 200 draws: half a point."""
    K, (metric, preds) = (
        4,
        {'mean class': (mean_class_accuracy, True), 'macro F1': (macro_f1, True), 'nll': (nll, False)}[name],
    )
    of = (lambda p, y: metric(p, y, K)) if preds else metric
    fast = {
        'mean class': plain_mean_class,
        'macro F1': plain_macro_f1,
        'nll': lambda p, y: -np.log(p[np.arange(len(y)), y]).mean(),
    }[name]
    p, y, g = honest_world(50_000, 4, K, 2)(np.random.default_rng(1))
    truth = of(p.argmax(1) if preds else p, y)
    p, y, g = honest_world(50, 4, K, 2)(np.random.default_rng(2))
    # the same, without its checks
    assert fast(p.argmax(1) if preds else p, y) == pytest.approx(of(p.argmax(1) if preds else p, y))
    interval = lambda p, y, g: bootstrap_interval(fast, p.argmax(1) if preds else p, y, g, n_boot=200)[1:]
    assert .93 <= coverage(honest_world(50, 4, K, 2), interval, truth, 2000) <= .97

def table_of(p, y): return np.bincount(y*4+p, minlength=16).reshape(4,4)
def plain_mean_class(p, y):
    c = table_of(p, y)
    return (c.diagonal()/c.sum(1)).mean()
def plain_macro_f1(p, y):
    c = table_of(p, y)
    return (2*c.diagonal()/(c.sum(0)+c.sum(1))).mean()

def test_paired_difference_draws_as_a_loop_would():
    """Groups of one sum and size are drawn as one kind: the same distribution as drawing each group,
    and little memory."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 9, 40))
    a, b = rng.random((2, len(groups))) < [[.8],[.7]]
    drawn = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(0, 40, 40)])
        drawn.append(a[rows].mean() - b[rows].mean())
    d, low, high = paired_difference(a, b, groups)
    few = _small_sample_factor(_effective_n(np.bincount(groups)), .95)
    want = d + few*(np.quantile(drawn, [.025, .975])-d)
    assert np.allclose([low, high], want, atol=.006) and d == pytest.approx(a.mean()-b.mean())


# --- the same record, however it was computed

@pytest.fixture(scope='module')
def judged_model(tmp_path_factory):
    root = tmp_path_factory.mktemp('evaluation')
    make_motion_clips(root/'clips', n_groups=23, n_frames=12, size=40)
    seed_everything(0)
    model = create_model('videomae_tiny', n_classes=8, dim=24, depth=1, heads=2, head_init_scale=1.)
    torch.save(model.state_dict(), root/'model.pt')
    return root, model

def same(a, b, tolerance=1e-6):
    columns = [c for c in a.clips if c.startswith('p_')]
    assert a.clips.path.tolist() == b.clips.path.tolist()
    assert np.allclose(a.clips[columns], b.clips[columns], atol=tolerance)
    assert (
        (a.clips.predicted == b.clips.predicted).all()
        and (a.clips.label == b.clips.label).all()
        and (a.clips.group == b.clips.group).all()
    )
    # the first are sums of probabilities: as near as these, and kept to six digits
    sums, elsewhere = {'nll', 'brier', 'ece'}, {'clips', 'versions', 'commit', 'seed'}
    for k in {f.name for f in fields(a)} - elsewhere:
        if k in sums:
            assert getattr(a, k) == pytest.approx(getattr(b, k), abs=10*tolerance+1e-6), k
        else:
            assert getattr(a, k) == getattr(b, k), k

@pytest.mark.parametrize('views', [None, Views(clips=3, crops=3, sampling='windows')],
                         ids=['one view', '3 x 3'])
def test_batch_and_chunk_don_t_matter(judged_model, views):
    root, model = judged_model
    table = from_folder(root/'clips')
    base = evaluate(model, loaders(table, model.spec, bs=8).test, views=views, show=False)
    for bs,chunk in ((1,1), (5,7), (64,64)):
        same(
            base,
            evaluate(model, loaders(table, model.spec, bs=bs).test, views=views, chunk=chunk, show=False),
        )

class Small(torch.nn.Module):
    "A model on a card that holds few clips."

    def __init__(self, model, fits, error):
        super().__init__()
        self.model, self.fits, self.error, self.sizes = model, fits, error, []
    spec, n_classes = property(lambda self: self.model.spec), 8
    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.fits:
            raise self.error
        return self.model(x)

@pytest.mark.parametrize('error', [torch.OutOfMemoryError('CUDA out of memory.'),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")],
                         ids=['GPU', 'CPU'])
def test_a_chunk_that_does_not_fit_is_halved_until_it_does(judged_model, error):
    root, model = judged_model
    dl, views = (
        loaders(from_folder(root / 'clips'), model.spec, bs=8).test,
        Views(clips=3, crops=3, sampling='windows'),
    )
    small, base = Small(model, 3, error), predict_views(model, dl, views, 16, show=False)
    with pytest.warns(UserWarning, match='going on with chunk=2'):
        logits, rows, failures = predict_views(small, dl, views, 16, show=False)
    assert small.sizes[:4] == [16, 8, 4, 2] and set(small.sizes[3:]) <= {2, 1} and small.sizes.count(1) <= 1
    assert np.allclose(logits, base[0], atol=1e-6) and (rows == base[1]).all() and not failures
    with pytest.raises(type(error)), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        # not even one: there is nothing to halve
        predict_views(Small(model, 0, error), dl, views, 4, show=False)
    with pytest.raises(ValueError):
        predict_views(Small(model, 3, ValueError('odd')), dl, views, 16, show=False)

def test_no_more_is_decoded_ahead_than_memory_is_meant_for(judged_model, monkeypatch):
    import vidcls.views as ev
    root, model = judged_model
    dl, views, made = loaders(from_folder(root/'clips'), model.spec, bs=8).test, Views(clips=4), []
    load = ev.load_views
    monkeypatch.setattr(ev, 'load_views', lambda *a: (made.append(1), load(*a))[1])
    for budget, most in ((1, 2), (3*ev.clip_bytes(model.spec, 4), 4)):
        monkeypatch.setattr(ev, 'AHEAD_BYTES', budget)
        made.clear()
        for taken, (row, clips, reason) in enumerate(ev._ahead(dl, 0, 1, model.spec, views)):
            time.sleep(.02)
            assert len(made)-taken <= most and clips is not None

def test_on_a_cpu_a_chunk_is_what_is_free(monkeypatch):
    import vidcls.views as ev
    spec, cpu = ClipSpec(n_frames=16, size=224), torch.device('cpu')
    monkeypatch.setattr(Path, 'read_text', lambda self: 'MemTotal: 9000000 kB\nMemAvailable: 1000000 kB\n')
    assert (
        ev._fitting(64, spec, cpu) == 4
        and ev._fitting(2, spec, cpu) == 2
        and ev._fitting(64, ClipSpec(n_frames=256, size=448), cpu) == 1
    )
    assert ev._fitting(64, spec, torch.device('cuda')) == 64

SCRIPT = """
import sys, torch
from accelerate import PartialState
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.evaluate import Views, evaluate, save_record
from vidcls.models.zoo import create_model
root, out, how = sys.argv[1:]
model = create_model('videomae_tiny', n_classes=8, dim=24, depth=1, heads=2, head_init_scale=1.)
model.load_state_dict(torch.load(root+'/model.pt', weights_only=True))
test = loaders(from_folder(root+'/clips'), model.spec, bs=8).test
rec = evaluate(model, test, views=Views(clips=2) if how == 'two' else None, show=False)
save_record(rec, f'{out}{PartialState().process_index}.json')
"""

@linux
@pytest.mark.parametrize('how', ['one', 'two'])
def test_two_processes_make_the_record_of_one(judged_model, tmp_path, how):
    """An odd number of clips: nobody is counted twice, nobody is lost, and both processes hold the
    whole record."""
    root, model = judged_model
    run_script(tmp_path/'judge.py', SCRIPT, root, tmp_path/'r', how, check=True)
    table = from_folder(root/'clips')
    one = evaluate(
        model,
        loaders(table, model.spec, bs=8).test,
        views=Views(clips=2) if how == 'two' else None,
        show=False,
    )
    for rank in (0,1):
        same(one, load_record(tmp_path/f'r{rank}.json'), 1e-5)


# --- bad inputs

def test_missing_and_broken_videos_are_in_the_record(judged_model, tmp_path):
    root, model = judged_model
    shutil.copytree(root/'clips', tmp_path/'clips')
    table = from_folder(tmp_path/'clips')
    test = table.select_split('test').df.path.tolist()
    (tmp_path/'clips'/test[0]).unlink()
    (tmp_path/'clips'/test[1]).write_bytes(b'no video')
    for views in (None, Views(clips=2)):
        rec = evaluate(model, loaders(table, model.spec, bs=8, on_error='skip').test, views=views, show=False)
        assert (
            set(rec.failures) == set(test[:2])
            and rec.n_expected - rec.n_evaluated == 2
            and '2 could not be read' in repr(rec)
        )

def test_too_many_broken_videos_are_an_error_however_they_are_looked_at(judged_model, tmp_path):
    root, model = judged_model
    shutil.copytree(root/'clips', tmp_path/'clips')
    table = from_folder(tmp_path/'clips')
    paths = table.select_split('test').paths
    for p in paths[:len(paths)//2+1]:
        p.write_bytes(b'no video')
    for views in (None, Views(clips=2)):
        with pytest.raises(DataError, match='more than max_bad=0.5'):
            evaluate(model, loaders(table, model.spec, bs=8, on_error='skip').test, views=views, show=False)

def test_a_loader_that_hands_clips_out_twice_is_refused(judged_model):
    root, model = judged_model
    table = from_folder(root/'clips')
    train = table.select_split('train')
    for drawn in (dict(balance='weighted'), dict(repeats=2), dict(weights=np.ones(len(train)))):
        with pytest.raises(ArgumentError, match='hands out each clip once'):
            evaluate(model, loader(train, model.spec, bs=8, shuffle=True, **drawn), show=False)
    rec = evaluate(model, loader(table.select_split('train'), model.spec, bs=8, shuffle=True), show=False)
    assert not rec.clips.path.duplicated().any() and rec.n_evaluated == rec.n_expected

def test_a_verdict_needs_more_than_a_handful_of_clips():
    """Four of a hundred clips differ, all in one direction: the bootstrap alone would call that
    better, an exact test has p = 1/8."""
    clips = pd.DataFrame(
        dict(path=[f'{i}.mp4' for i in range(100)], label='x', group=[str(i) for i in range(100)])
    )

    def rec(wrong):
        return record_of(
            clips,
            np.stack([np.arange(100) >= wrong, np.arange(100) < wrong], 1).astype(float),
            ['x', 'y'],
            dataset='d',
            split='test',
            model='m',
            spec={},
            views=Views().to_dict(),
            n_expected=100,
            failures={},
            seed=0,
        )
    t = compare([rec(4), rec(0)]).iloc[1]
    assert t.d_low > 0 and t.p == .125 and t.verdict == 'not distinguishable at n=100'
    assert (
        compare([rec(12), rec(0)]).iloc[1].verdict == 'better'
        and compare([rec(0), rec(12)]).iloc[1].verdict == 'worse'
    )
    assert '+0.040' in against_best(rec(0), {'a': rec(4)}) and 'not distinguishable' in against_best(
        rec(0), [rec(4)]
    )

def test_a_record_repeats_whatever_the_batch_and_the_chunk(judged_model):
    root, model = judged_model
    table = from_folder(root/'clips')
    test = table.select_split('test')
    rec = evaluate(model, loader(test, model.spec), seed=0, show=False)
    assert evaluate(model, loader(test, model.spec), seed=0, show=False) == rec
    same(evaluate(model, loader(test, model.spec, bs=7), show=False), rec)          # no batch effects
    twice = [evaluate(model, loader(test, model.spec), views=Views(2), chunk=n, show=False) for n in (3, 16)]
    same(*twice)
    assert (twice[0].views['clips'], rec.views['clips']) == (2, 1)
    named = {'once': Views(), 'twice': Views(2)}
    assert compare_views(model, loader(test, model.spec), named).n_views.tolist() == [1, 2]
    assert np.allclose(combine([rec, twice[0]], [1,0]).probs, rec.probs, atol=1e-12)


def test_views_have_names():
    assert as_views(None) == Views() and as_views('i3d') == PROTOCOLS['i3d']
    with pytest.raises(ArgumentError, match='views=3'):
        as_views(3)


def test_what_does_not_fit_the_model_is_refused(judged_model):
    root, model = judged_model
    table = from_folder(root/'clips')
    test = table.select_split('test')
    with pytest.raises(ArgumentError, match="Did you mean 'videomae-"):
        evaluate(model, loader(test, model.spec), views='videomae')
    with pytest.raises(SpecMismatchError, match='mean'):
        evaluate(model, loader(test, model.spec.with_(mean=.5)))
    four = create_model('videomae_tiny', n_classes=4, dim=24, depth=1, heads=2)
    with pytest.raises(LabelError, match='8 classes, the model has 4'):
        evaluate(four, loader(test, model.spec))
    with pytest.raises(ArgumentError, match='k=1'):
        cross_validate(table, 'videomae_tiny', k=1)
    for judge in (lambda: calibrate(model, None), lambda: evaluate(model, None)):
        with pytest.raises(DataError, match='split'):
            judge()
    one_way = loader(test.select_classes(['up_left', 'left', 'right']), model.spec)
    three = create_model('videomae_tiny', n_classes=3, dim=24, depth=1, heads=2)
    with pytest.raises(LabelError, match="'up_left' has no mirror image"):
        calibrate(three, one_way, views=Views(flip=True), show=False)


def test_records_of_other_clips_or_labels_are_not_combined(judged_model):
    root, model = judged_model
    dls = loaders(from_folder(root/'clips'), model.spec, bs=8)
    rec, other = (evaluate(model, dl, show=False) for dl in (dls.test, dls.valid))
    with pytest.raises(DataError, match='not of the same clips'):
        combine([rec, other])
    first = rec.labels[0]
    relabelled = replace(rec, clips=rec.clips.assign(label=first))
    n = (rec.clips.label != first).sum()
    with pytest.raises(DataError, match=f"don't agree on the label of {n} clips"):
        combine([rec, relabelled])


def test_bad_records_and_scores_end_in_one_sentence(judged_model, tmp_path):
    root, model = judged_model
    table = from_folder(root/'clips')
    dls = loaders(table, model.spec, bs=8)
    rec = evaluate(model, dls.test, show=False)
    with pytest.raises(DataError, match='no such split'):
        evaluate(model, None)
    other = evaluate(model, dls.valid, show=False)
    with pytest.raises(DataError, match="can't be compared"):
        compare([rec, other])
    broken = create_model('videomae_tiny', n_classes=8, dim=24, depth=1, heads=2)
    with torch.no_grad():
        broken.head.bias.fill_(float('nan'))
    with pytest.raises(DataError, match='not finite'):
        evaluate(broken, dls.test, show=False)
    with pytest.raises(LabelError, match='classes'):
        evaluate(create_model('videomae_tiny', n_classes=7, dim=24, depth=1, heads=2), dls.test)
    for no_loader in (dls, table):
        with pytest.raises(ArgumentError, match='give one loader, such as dls.test'):
            evaluate(model, no_loader)
    with pytest.raises(ArgumentError, match='without a spec'):
        evaluate(torch.nn.Linear(2, 2), dls.test)
    for records in (rec, [], {}, ['a.json'], None):
        with pytest.raises(ArgumentError, match='EvalRecord'):
            compare(records)
    assert combine({'a': rec, 'b': rec}).video_top1 == rec.video_top1
    for use in (
        lambda r: compare([r]),
        lambda r: save_record(r, tmp_path / 'r.json'),
        record_intervals,
        recompute_record,
    ):
        with pytest.raises(DataError, match='has no clips'):
            use(replace(rec, clips=None))
    with pytest.raises(ArgumentError, match='flip'):
        Views(flip='no')
    with pytest.raises(ArgumentError, match='scales=2'):
        Views(scales=2)
    with pytest.raises(ArgumentError):
        nll(np.array([[.5,np.nan]]), [0])
    with pytest.raises(ArgumentError):
        nll(np.array([[3.,1]]), [0])

class Sides(torch.nn.Module):
    "Knows left from right by where the light is: in the mirror it says the contrary, exactly."
    spec, n_classes, name = ClipSpec(n_frames=2, size=16), 2, 'sides'
    def __init__(self):
        super().__init__()
        self.ramp = torch.nn.Parameter(torch.linspace(-1, 1, 16))
    def forward(self, x): return (x*self.ramp).mean((1,2,3,4))[:,None]*torch.tensor([-9., 9.])

def lit(path, side, rng, n=12):
    frames = rng.integers(0, 90, (n,16,16,3), dtype=np.uint8)
    frames[:,:,:8] += np.uint8(60 if side == 'left' else 0)
    frames[:,:,8:] += np.uint8(0 if side == 'left' else 60)
    return write_video(path, frames, gop=1)

@pytest.fixture(scope='module')
def two_sides(tmp_path_factory):
    """Clips of two classes that mirror into each other, five windows of two seconds in each file, and
    a model that knows them."""
    root, rng = tmp_path_factory.mktemp('sides'), np.random.default_rng(0)
    df = [dict(path=f'{side}{g}.mp4', label=side, group=f'{side}{g}', split='test', start=.4*w, end=.4*(w+1))
          for side in ('left','right') for g in range(6) for w in range(3)]
    df = pd.DataFrame(df)
    for p,side in zip(df.path, df.label):
        if not (root/p).exists():
            lit(root/p, side, rng, 36)
    return ClipTable(df, root, name='sides'), Sides()

def test_mirrored_views_say_what_the_video_says(two_sides):
    """The scores of a mirrored view are exchanged, so a model that sees sides exactly says the same
    twice; in evaluate and in calibrate."""
    table, model = two_sides
    dl = loader(table, model.spec)
    logits, rows, _ = predict_views(model, dl, Views(flip=True), show=False)
    assert np.allclose(logits[:,0], logits[:,1], atol=1e-6) and np.abs(logits[:,0]).max() > .1
    plain, mirrored = (evaluate(model, dl, views=v, show=False) for v in (Views(), Views(flip=True)))
    assert plain.video_top1 == mirrored.video_top1 == mirrored.clip_top1 == 1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # every clip is right: the temperature stays 1
        a, b = (calibrate(model, dl, views=v, show=False) for v in (None, Views(flip=True)))
    assert a.none_below == pytest.approx(b.none_below, rel=1e-4) and b.none_below > .1
    other = ClipTable(table.df.replace('right', 'up'), table.root)
    for judge in (evaluate, calibrate):
        with pytest.raises(LabelError, match="'left' has no mirror image"):
            judge(model, loader(other, model.spec), views=Views(flip=True), show=False)

@pytest.mark.filterwarnings('ignore:all 33 clips are right')
def test_calibrate_names_what_it_could_not_read(two_sides, tmp_path):
    table, model = two_sides
    shutil.copytree(table.root, tmp_path/'clips')
    (tmp_path/'clips'/'left0.mp4').write_bytes(b'no video')
    lame = ClipTable(table.df, tmp_path/'clips')
    with pytest.warns(
        UserWarning, match=r'3 of 36 clips could not be read and are left out: left0.mp4#t=0.0,0.4: '
    ):
        assert calibrate(model, loader(lame, model.spec, on_error='skip'), show=False).n == 33

def test_windows_of_one_file_are_different_clips(two_sides, tmp_path):
    """Records of a table with several windows a file: kept, read back, compared, combined and shown
    window by window."""
    table, model = two_sides
    dl = loader(table, model.spec)
    rec = evaluate(model, dl, show=False)
    assert (
        rec.clips.columns[:6].tolist() == ['path', 'start', 'end', 'label', 'group', 'predicted']
        and rec.n_groups == 12
    )
    back = load_record(save_record(rec, tmp_path/'rec.json'))
    assert (
        back == rec
        and clip_names(back.clips) == clip_names(table.df)
        and len(set(clip_names(back.clips))) == 36
    )
    mixed = record_of(
        rec.clips[rec.clips.columns[:5]].iloc[::-1].reset_index(drop=True),
        np.tile([0.6, 0.4], (36, 1)),
        rec.labels,
        dataset=rec.dataset,
        split=rec.split,
        model='left',
        spec=rec.spec,
        views=rec.views,
        n_expected=36,
        failures={},
        seed=None,
    )
    t = compare([back, mixed])
    assert t.difference.iloc[1] == -.5 and t.n.tolist() == [36, 36]
    both = combine([rec, mixed], weights=[1,0])
    assert (
        np.allclose(both.clips.p_left, rec.clips.p_left)
        and both.clips.start.tolist() == rec.clips.start.tolist()
    )
    assert against_best(both, [rec, mixed]).startswith('+0.000')
    show_predictions(rec, dl, n=4)
    shutil.copytree(table.root, tmp_path/'clips')
    (tmp_path/'clips'/'left0.mp4').write_bytes(b'no video')
    for v in (None, Views(2)):
        lame = evaluate(
            model,
            loader(ClipTable(table.df, tmp_path / 'clips'), model.spec, on_error='skip'),
            views=v,
            show=False,
        )
        assert (
            len(lame.failures) == lame.n_expected - lame.n_evaluated == 3
            and 'left0.mp4#t=0.4,0.8' in lame.failures
        )

@pytest.mark.parametrize('change, words', [
    (lambda c: c.assign(label=c.label.where(c.index != 4, 'right')),
     "the label of 1 clips; 'left1.mp4#t=0.4,0.8' has 'right' and 'left'"),
    (lambda c: c.assign(group=['all']*len(c)), "the group of 36 clips"),
    (lambda c: c.assign(start=c.start.where(c.index != 4, c.start[3]),
                        end=c.end.where(c.index != 4, c.end[3])),
     "'left1.mp4#t=0.0,0.4' is there twice"),
    (lambda c: c.iloc[1:], "not of the same clips"),
    (lambda c: c.drop(columns=['start','end']), 'is there twice')])
def test_records_that_contradict_each_other_are_not_put_together(two_sides, change, words):
    table, model = two_sides
    rec = evaluate(model, loader(table, model.spec), show=False)
    other = replace(rec, clips=change(rec.clips))
    for put in (compare, combine, lambda rs: against_best(rs[0], rs[1:])):
        with pytest.raises(DataError) as e:
            put([rec, other])
        assert words in str(e.value)

@pytest.mark.parametrize('damage, words', [
    (lambda s: ''.join(s.splitlines(True)[:-2]), 'n_evaluated=36, but the .csv has 34 rows'),
    (lambda s: s[:-40], 'row 35 of the .csv are not numbers'),
    (lambda s: s.replace('p_left', 'p_links'), "no column 'p_left'"),
    (lambda s: s.replace(',left,left0,left,', ',left,left0,right,'), 'video_top1=1.0'),
    (lambda s: s.replace(',left,left0,left,', ',links,left0,left,'), "'links' in the .csv is none of "
                                                                     "its classes")])
def test_a_record_whose_clips_are_damaged_is_refused(two_sides, tmp_path, damage, words):
    table, model = two_sides
    path = save_record(evaluate(model, loader(table, model.spec), show=False), tmp_path/'r.json')
    csv = path.with_suffix('.csv')
    csv.write_text(damage(csv.read_text()))
    with pytest.raises(CheckpointError, match=words):
        load_record(path)

@pytest.mark.parametrize('change', [dict(labels=None), dict(video_top1='x'), dict(interval=None),
                                    dict(views=None), dict(confusion='x'),
                                    dict(n_expected=None), dict(mean_class=None), dict(dropped=None),
                                    dict(n_groups=2.5)])
def test_a_record_with_a_field_of_another_kind_is_refused(two_sides, tmp_path, change):
    table, model = two_sides
    path = save_record(evaluate(model, loader(table, model.spec), show=False), tmp_path/'r.json')
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=f'{next(iter(change))} is'):
        load_record(path)

def test_kept_records_still_load():
    "Those of this repository, old ones too."
    found = [
        p
        for p in (Path(__file__).parents[1] / 'benchmarks').rglob('*.json')
        if p.with_suffix('.csv').exists()
    ]
    assert len(found) > 10
    for p in found:
        rec = load_record(p)
        assert np.allclose(rec.interval, recompute_record(rec).interval), p             # of today's formula

def test_intervals_of_a_record_hold_its_numbers(judged_model):
    root, model = judged_model
    rec = evaluate(model, loaders(from_folder(root/'clips'), model.spec, bs=8).test, show=False)
    t = record_intervals(rec, n_boot=100)
    assert (
        list(t.index) == ['top1', 'mean_class', 'macro_f1', 'nll', 'brier']
        and ((t.low <= t.value) & (t.value <= t.high)).all()
    )
    assert np.allclose(
        t.value.drop('macro_f1'), [rec.video_top1, rec.mean_class, rec.nll, rec.brier], atol=1e-6
    )
    assert t.low['mean_class'] >= 0 and t.high['macro_f1'] <= 1
    one = record_intervals(replace(rec, clips=rec.clips.assign(group='all')), n_boot=100)
    assert one.loc['mean_class':,'low':].isna().all(None)

def test_one_class_only_is_a_record_with_a_mark(judged_model):
    "All test clips of one class: an accuracy, and the majority of 1 beside it."
    root, model = judged_model
    table = from_folder(root/'clips')
    only = table.filter((table.df.split != 'test') | (table.df.label == 'left'))
    rec = evaluate(model, loaders(only, model.spec, bs=8).test, show=False)
    assert rec.majority == 1 and rec.mean_class == rec.video_top1 and len(rec.labels) == 8


# --- what models use

@pytest.fixture(scope='module')
def probed(tmp_path_factory):
    "{(model, data): TimeReport} of three models, trained on clips of motion and on clips of form."
    root, found = tmp_path_factory.mktemp('probes'), {}
    how = {
        'space': ('timesformer_tiny', dict(attention='space'), 1e-3, 12),
        'divided': ('timesformer_tiny', {}, 1e-3, 30),
        'i3d': ('i3d_tiny', {}, 2e-3, 12),
    }
    for variant,labels,groups in (('motion', ['left','right'], 150), ('appearance', ['bar','square'], 250)):
        table = from_folder(
            make_motion_clips(root / variant, n_groups=groups, variant=variant, n_frames=8, size=32), seed=0
        ).select_classes(labels)
        for name,(model,args,lr,epochs) in how.items():
            seed_everything(0)
            m = create_model(model, n_classes=2, **args)
            dls = loaders(table, m.spec, bs=16)
            fit(
                m,
                dls,
                epochs=epochs if variant == 'motion' else 15,
                lr=lr,
                augment=roll_clips,
                patience=None,
                show=False,
            )
            found[name, variant] = probe_time(m, dls.test, ['reversed', 'shuffled', 'frozen'], show=False)
            found[name] = m if variant == 'motion' else found[name]
    return found

@pytest.mark.parametrize('model', ['divided', 'i3d'])
def test_models_with_eyes_for_time(probed, model):
    "On motion they know, lose all when nothing moves, and say the contrary when time runs backwards."
    t = probed[model, 'motion'].table.accuracy
    assert t['as it is'] > .85 and t['reversed'] < .25 and abs(t['frozen']-.5) < .3
    assert probed[model, 'motion'].verdict == 'uses the order of frames'

def test_space_only_is_blind(probed):
    r = probed['space', 'motion']
    assert .3 < r.table.accuracy['as it is'] < .7 and r.verdict.startswith('knows nothing')

@pytest.mark.parametrize('model', ['space', 'divided', 'i3d'])
def test_form_needs_no_direction(probed, model):
    t = probed[model, 'appearance'].table
    assert t.accuracy['as it is'] > .85 and abs(t.difference['reversed']) < .1 and t.accuracy['frozen'] > .75
    if model == 'space':
        assert t.changed['reversed'] == t.changed['shuffled'] == 0  # a mean over frames knows no order


# --- maps lie where the answer is

def scenes(n, labels=('left','right')):
    which = [(l,g) for g in range(2000, 2000+n) for l in labels]
    return (
        [motion_clip(l, g, n_frames=8, size=32) for l, g in which],
        [motion_mask(l, g, n_frames=8, size=32) for l, g in which],
    )

@pytest.mark.parametrize('model', ['divided', 'i3d'])
def test_maps_lie_on_the_shape(probed, model):
    """Each method's share on the moving shape is above that of the same map rolled elsewhere, with its
    interval, and the map dies with the model.
    But for saliency on convolutions, which is half a picture of the clip; the page says so."""
    clips, masks = scenes(10)
    t = judge_maps(probed[model], clips, masks, show=False).set_index('method')
    assert (
        list(t.index) == ['grad_cam', 'rollout', 'saliency']
        if model == 'divided'
        else ['grad_cam', 'saliency']
    )
    assert (t.low > 0).all(), t.T
    assert t.sane.drop('saliency' if model == 'i3d' else []).all(), t.T
    if model == 'i3d':
        assert t.destroyed['grad_cam'] < t.destroyed['saliency']-.1

def test_roll_out_of_frames_equals_matrices_by_hand(probed):
    m = probed['space'].eval()
    clip = scenes(1)[0][0]
    heat = explain(m, clip, 'rollout').heat
    x = m.spec.to_model(torch.from_numpy(clip)[None])
    taken = []
    hooks = [
        b.attn.register_forward_pre_hook(lambda mod, args: taken.append((mod, args[0]))) for b in m.blocks
    ]
    with torch.no_grad():
        m(x)
    for h in hooks:
        h.remove()
    R = torch.eye(17).repeat(8, 1, 1)
    for mod, z in taken:
        weight, bias = mod.qkv.weight.chunk(3), mod.qkv.bias.chunk(3)
        q, k = (
            torch.nn.functional.linear(z, weight[i], bias[i]).unflatten(-1, (4, 24)).transpose(1, 2)
            for i in (0, 1)
        )
        A = (q @ k.transpose(-1,-2)/24**.5).softmax(-1).mean(1)
        R = (A + torch.eye(17))/2 @ R
    want = R[:,0,1:].reshape(8,4,4)
    got = torch.nn.functional.interpolate(
        want[None, None], size=(8, 32, 32), mode='trilinear', align_corners=False
    )[0, 0]
    assert np.allclose(heat, (got/got.max()).detach().numpy(), atol=1e-5)
