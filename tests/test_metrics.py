"""Properties of `vidcls.metrics`, on drawn inputs: against scikit-learn and scipy, and against what
must hold for any input."""
import subprocess, sys, time
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import sklearn.metrics as skm
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import binomtest

from vidcls.calibrate import (
    Calibration,
    auroc,
    calibrate,
    fit_temperature,
    pick_threshold,
    risk_coverage,
    temperature_scale,
)
from vidcls.core import ArgumentError, DataError, LabelError
from vidcls.intervals import (
    bootstrap_interval,
    cluster_wilson,
    effective_n_groups,
    interval_note,
    mcnemar,
    paired_difference,
    wilson,
)
from vidcls.metrics import (
    brier,
    confusion,
    ece,
    macro_f1,
    mean_class_accuracy,
    most_confused,
    nll,
    per_class,
    plot_confusion,
    topk_accuracy,
)

matplotlib.use('Agg')
# by scikit-learn, of one-class draws
pytestmark = pytest.mark.filterwarnings('ignore:A single label was found')
quick = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def judged(draw):
    "(preds, targets, K) with N in 1..40 and K in 1..6; some classes may be absent."
    K, N = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    idxs = st.lists(st.integers(0, K-1), min_size=N, max_size=N)
    return np.array(draw(idxs)), np.array(draw(idxs)), K


@st.composite
def scored(draw):
    "(scores, targets) with few distinct values, so that ties are common; K in 2..6."
    K, N, seed = draw(st.integers(2, 6)), draw(st.integers(1, 30)), draw(st.integers(0, 2**32-1))
    rng = np.random.default_rng(seed)
    return rng.integers(-2, 3, (N, K)).astype(float), rng.integers(0, K, N)


@quick
@given(judged())
def test_confusion_equals_sklearn(d):
    preds, targets, K = d
    conf = confusion(preds, targets, K)
    assert conf.dtype == np.int64 and conf.shape == (K, K)
    assert (conf == skm.confusion_matrix(targets, preds, labels=range(K))).all()
    assert (conf.sum(1) == np.bincount(targets, minlength=K)).all() and conf.sum() == len(targets)


@quick
@given(judged())
def test_mean_class_accuracy_equals_macro_recall_of_the_classes_that_are_there(d):
    preds, targets, K = d
    want = skm.recall_score(targets, preds, labels=np.unique(targets), average='macro', zero_division=0)
    assert mean_class_accuracy(preds, targets, K) == pytest.approx(want, abs=1e-12)


@quick
@given(judged())
def test_per_class_equals_sklearn(d):
    preds, targets, K = d
    table = per_class(confusion(preds, targets, K), [f'c{i}' for i in range(K)])
    ref = skm.precision_recall_fscore_support(targets, preds, labels=range(K), zero_division=np.nan)
    for col, r in zip(('precision', 'recall', 'f1', 'n'), ref):
        np.testing.assert_allclose(table[col].to_numpy(), r, atol=1e-12, err_msg=col)
    assert list(table.index) == [f'c{i}' for i in range(K)]


@quick
@given(judged(), st.integers(1, 4))
def test_most_confused_lists_each_mistake_once(d, min_count):
    preds, targets, K = d
    conf = confusion(preds, targets, K)
    pairs = most_confused(conf, range(K), min_count)
    counts = [c for *_, c in pairs]
    assert counts == sorted(counts, reverse=True)
    assert {(int(t), int(p), c) for t, p, c in pairs} == {
        (i, j, conf[i, j]) for i in range(K) for j in range(K) if i != j and conf[i, j] >= min_count
    }


@quick
@given(scored())
def test_topk_with_ties(d):
    scores, targets = d
    N, K = scores.shape
    accs = [topk_accuracy(scores, targets, k) for k in range(1, K+1)]
    assert accs[0] == (scores.argmax(1) == targets).mean()                 # the tie rule is argmax's
    assert accs == sorted(accs) and accs[-1] == 1
    order = np.argsort(-scores, axis=1, kind='stable')                     # a slow way to say the same
    assert accs == [np.mean([t in o[:k] for t, o in zip(targets, order)]) for k in range(1, K+1)]


@quick
@given(st.integers(3, 8), st.integers(1, 40), st.integers(0, 2**32-1))
def test_topk_equals_sklearn_without_ties(K, N, seed):
    rng = np.random.default_rng(seed)
    scores, targets = rng.normal(size=(N, K)), rng.integers(0, K, N)
    for k in range(1, K):
        assert topk_accuracy(scores, targets, k) == pytest.approx(
            skm.top_k_accuracy_score(targets, scores, k=k, labels=range(K)), abs=1e-12)


@quick
@given(scored())
def test_topk_sees_only_the_order(d):
    scores, targets = d
    for k in (1, 2):
        want = topk_accuracy(scores, targets, k)
        assert topk_accuracy(np.exp(scores), targets, k) == topk_accuracy(3*scores - 7, targets, k) == want
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            given_ = torch.tensor(scores, dtype=dtype, requires_grad=True)
            assert topk_accuracy(given_, torch.tensor(targets), k) == want


@quick
@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([.5, .9, .95, .99]))
def test_wilson_equals_scipy(n, share, level):
    r = round(n*share)
    ref = binomtest(r, n).proportion_ci(level, method='wilson')
    lo, hi = wilson(r, n, level)
    assert (lo, hi) == pytest.approx((ref.low, ref.high), abs=1e-9)
    assert 0 <= lo <= r/n <= hi <= 1 and lo < hi


@quick
@given(st.integers(1, 400), st.data())
def test_wilson_narrows_with_n_and_widens_with_level(n, data):
    r = data.draw(st.integers(0, n))
    width = lambda *a: wilson(*a)[1] - wilson(*a)[0]
    assert width(4*r, 4*n) < width(r, n) < width(r, n, .99)


@pytest.mark.parametrize('bad, error, words', [
    (lambda: topk_accuracy(np.zeros((0, 3)), []), ArgumentError, 'targets is empty'),
    (lambda: topk_accuracy(np.zeros((2, 3)), [0, 1], k=4), ArgumentError, 'k=4; accepted: 1 to 3'),
    (lambda: topk_accuracy(np.zeros((2, 3)), [0, 1], k=0), ArgumentError, 'k=0'),
    (lambda: topk_accuracy(np.zeros((2, 3)), [0, 3]), LabelError, 'label 3, not in [0, 3)'),
    (lambda: topk_accuracy([[0, np.nan], [0, 1]], [0, 1]), ArgumentError, 'NaN in 1 of 2 rows, first in '
                                                                          'row 0'),
    (lambda: topk_accuracy(np.zeros((2, 3)), [0.]*2), ArgumentError, 'targets is float64'),
    (lambda: confusion([0, 9, -1], [0, 0, 0], 3), LabelError, 'preds has label -1, 9'),
    (lambda: confusion([], [], 3), ArgumentError, 'preds is empty'),
    (lambda: confusion([0, 1], [0], 3), ArgumentError, '2 preds, 1 targets'),
    (lambda: confusion([0], [0], 0), ArgumentError, 'n_classes=0'),
    (lambda: mean_class_accuracy([], [], 3), ArgumentError, 'is empty'),
    (lambda: per_class(np.eye(3, dtype=int), ['a']), ArgumentError, '1 labels for 3 classes'),
    (lambda: plot_confusion(np.ones((2, 3)), 'ab'), ArgumentError, 'expected (K,K)'),
    (lambda: wilson(3, 2), ArgumentError, 'n_correct=3; accepted: 0 to n=2'),
    (lambda: wilson(-1, 2), ArgumentError, 'n_correct=-1'),
    (lambda: wilson(0, 0), ArgumentError, 'n=0'),
    (lambda: wilson(1, 2, 95), ArgumentError, 'level=95'),
    (lambda: wilson(1, 2, '95'), ArgumentError, "level='95'; accepted: a number above 0"),
    (lambda: topk_accuracy([['a', 'b']], [0]), ArgumentError, 'scores is <U1; expected numbers'),
    (lambda: topk_accuracy([[1, 2], [3]], [0, 1]), ArgumentError, 'scores is no array; expected rows of '
                                                                  'one length'),
    (lambda: confusion([[0], [1, 2]], [0, 1], 3), ArgumentError, 'preds is no array'),
    (lambda: nll([['high', 'low']], [0]), ArgumentError, 'probs is <U4; expected numbers'),
    (lambda: mcnemar(['yes'], [1]), ArgumentError, 'correct_a is <U3; expected numbers'),
    (lambda: paired_difference(['yes'], [1]), ArgumentError, 'values_a is <U3; expected numbers'),
    (lambda: per_class([[1, 0], [-1, 2]], 'ab'), ArgumentError, 'conf holds -1 (row 1); expected counts'),
    (lambda: most_confused([[1, np.nan], [1, 2]], 'ab'), ArgumentError, 'conf holds nan (row 0); '
                                                                        'expected counts'),
    (lambda: effective_n_groups([1, 2], of=[1]), ArgumentError, 'of has 1 for 2 clips'),
    (lambda: effective_n_groups(5), ArgumentError, 'groups=5 has shape ()'),
    (lambda: interval_note([1, 0], [1]), ArgumentError, 'groups has 1 for 2 clips'),
    (lambda: interval_note([1, 0], [1, 2], other=[1, 0, 1]), ArgumentError, 'other has 3 for 2 clips'),
    (lambda: cluster_wilson([1, 0, 1], ['x', None, None]), ArgumentError, 'groups has no value for 2 of '
                                                                          '3 clips (first: clip 1)'),
    (lambda: cluster_wilson([1, 0], np.array(['x', 1], object)), ArgumentError, 'groups mixes types'),
    (lambda: paired_difference([1, 0], [1, 1], groups=[np.nan]*2), ArgumentError,
     'groups has no value for 2 of 2 clips'),
    (lambda: bootstrap_interval(nll, [[1., 0.]], [0], within=(1,)), ArgumentError,
     'within=[1]; expected (smallest, largest)'),
    (lambda: bootstrap_interval(nll, [[1., 0.]], [0], within=(1, 0)), ArgumentError, 'within=[1, 0]'),
    (lambda: bootstrap_interval(lambda s, y: [0, 1], [1, 0], [1, 0]), ArgumentError,
     'metric gives [0, 1]; an interval needs one number'),
    (lambda: bootstrap_interval(nll, None, [0]), ArgumentError, 'scores=None'),
])
def test_bad_input_ends_in_one_sentence(bad, error, words):
    with pytest.raises(error) as e:
        bad()
    assert words in str(e.value)


@pytest.mark.parametrize('K', [1, 2, 8, 30])
def test_plot_confusion_writes_every_count(K):
    from matplotlib import pyplot as plt
    conf = np.random.default_rng(K).integers(0, 3, (K, K))
    ax = plot_confusion(conf, [f'class {i}' for i in range(K)])
    ax.figure.canvas.draw()
    assert sorted(int(t.get_text()) for t in ax.texts) == sorted(conf[conf > 0])
    assert len(ax.get_xticklabels()) == len(ax.get_yticklabels()) == K
    plt.close('all')


def test_importing_metrics_brings_neither_torch_nor_pandas_nor_matplotlib():
    code = (
        "import sys, vidcls.metrics; print([m for m in ('torch','pandas','matplotlib') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, '-c', code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == '[]'
    )


class TestCalibration:
    "What turns scores into decisions takes what metrics take, and refuses what they refuse."
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(50,3))*2, rng.integers(0, 3, 50)
    sure, right = np.linspace(.4, 1, 400), np.ones(400)

    @pytest.mark.parametrize('bad, error, words', [
        (lambda s: temperature_scale([[np.nan, 1.]]), DataError, 'logits have NaN or infinity'),
        (lambda s: temperature_scale([[np.inf, 1.]]), DataError, 'logits have NaN or infinity'),
        (lambda s: Calibration().decide([[0, 1.], [np.nan, 1.]]), DataError, 'logits have NaN'),
        (lambda s: temperature_scale([['a', 'b']]), ArgumentError, 'logits is <U1'),
        (lambda s: temperature_scale(np.zeros((2, 0))), ArgumentError, 'K >= 1'),
        (lambda s: temperature_scale(s.z, 'a'), ArgumentError, "temperature='a'"),
        (lambda s: temperature_scale(s.z, np.nan), ArgumentError, 'temperature=nan'),
        (lambda s: fit_temperature(s.z[0], s.y), ArgumentError, 'logits has shape (3,)'),
        (lambda s: fit_temperature(s.z, s.y.astype(float)), ArgumentError, 'targets is float64'),
        (lambda s: fit_temperature(s.z, s.y*np.nan), ArgumentError, 'targets is float64'),
        (lambda s: fit_temperature(s.z, np.eye(3, dtype=int)[s.y]), ArgumentError,
         'targets has shape (50, 3)'),
        (lambda s: fit_temperature(s.z, ['left']*50), ArgumentError, 'targets is <U4'),
        (lambda s: fit_temperature(s.z, s.y[:9]), ArgumentError, '50 rows of logits, 9 targets'),
        (lambda s: fit_temperature([[0, -np.inf]], [0]), DataError, 'finite scores'),
        (lambda s: pick_threshold(s.sure, s.right*7), ArgumentError, 'correct holds 7.0 (clip 0)'),
        (lambda s: risk_coverage([.5, .6], [1, np.nan]), ArgumentError, 'correct holds NaN (clip 1)'),
        (lambda s: risk_coverage([.5, .6], [1]), ArgumentError, 'confidence has shape (2,) and correct (1,)'),
        (lambda s: pick_threshold(s.sure, s.right, .1, groups=[1, 2]), ArgumentError,
         'groups has 2 for 400 clips'),
        (lambda s: pick_threshold(s.sure, s.right, '5 %'), ArgumentError, "error='5 %'"),
        (lambda s: Calibration(temperature=-1), ArgumentError, 'temperature=-1'),
        (lambda s: Calibration(temperature=np.nan), ArgumentError, 'temperature=nan'),
        (lambda s: Calibration(temperature='a'), ArgumentError, "temperature='a'"),
        (lambda s: Calibration(threshold=np.nan), ArgumentError, 'threshold=nan'),
        (lambda s: Calibration(none_below=np.nan), ArgumentError, 'none_below=nan'),
    ])
    def test_bad_input_is_named(self, bad, error, words):
        with pytest.raises(error) as e:
            bad(self)
        assert words in str(e.value)

    def test_tensors_of_any_kind(self):
        "Half precision, gradients wanted: the same as the numbers in numpy."
        for dtype in (torch.bfloat16, torch.float32):
            t = torch.tensor(self.z, dtype=dtype, requires_grad=True)
            same = t.detach().double().numpy()
            assert (temperature_scale(t, 2.0) == temperature_scale(same, 2.0)).all() and fit_temperature(
                t, torch.tensor(self.y)
            ) == fit_temperature(same, self.y)
            assert (Calibration().decide(t) == Calibration().decide(same)).all() and auroc(
                t[:, 0], t[:, 1]
            ) == auroc(same[:, 0], same[:, 1])
        found = pick_threshold(torch.tensor(self.sure), torch.ones(400, dtype=torch.bool), .1)
        assert found == pick_threshold(self.sure, self.right, .1)

    def test_a_probability_of_zero_stays_one(self):
        assert temperature_scale([[0., -np.inf]]).tolist() == [[1., 0.]]

    def test_a_temperature_that_cannot_be_told_is_said_so(self):
        with pytest.warns(UserWarning, match='all 50 clips are right: '):
            assert fit_temperature(np.eye(3)[self.y], self.y) == 1
        with pytest.warns(UserWarning, match='all 50 clips are right, or tied with another class: '):
            assert fit_temperature(np.zeros((50,3)), self.y) == 1
        wrong = np.eye(3)[(self.y+1) % 3]*4 + self.rng.normal(size=(50,3))
        with pytest.warns(UserWarning, match='scores no higher than the others'):
            T = fit_temperature(wrong, self.y)
        assert T == 1e4 and np.ptp(temperature_scale(wrong, T)) < .01

    @pytest.mark.parametrize('asked', [dict(error=2), dict(keep=0), dict(error='a')])
    def test_what_cannot_be_promised_is_refused_before_the_model_is_asked(self, asked, monkeypatch):
        monkeypatch.setattr('vidcls.calibrate.check_loader_for', lambda model, dl: None)
        monkeypatch.setattr(
            'vidcls.calibrate.predict_views', lambda *a, **k: pytest.fail('the model was asked')
        )
        name, value = next(iter(asked.items()))
        with pytest.raises(ArgumentError, match=f'{name}={value!r}'):
            calibrate(None, SimpleNamespace(dataset=SimpleNamespace(table=None)), **asked)


class TestEdges:
    "What metrics refuse, and cases at the border."
    scores = np.array([[.6,.3,.1], [.2,.5,.3], [.5,.4,.1], [.1,.2,.7]])
    targets = np.array([0, 2, 1, 2])
    labels = ['walk', 'wave', 'jump', 'run']
    conf = np.array([[17,0,0,3], [0,12,0,0], [0,2,6,0], [3,0,0,5]])
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.5, (4000,5))
    p = np.exp(z)/np.exp(z).sum(1, keepdims=True)
    truth = (p.cumsum(1) > rng.random((4000,1))).argmax(1)
    few = slice(0, 300)

    @pytest.mark.parametrize('call, error, words', [
        (lambda s: topk_accuracy(s.scores, s.targets, k=4), ArgumentError, r'k=4; accepted: 1 to 3'),
        (lambda s: topk_accuracy(s.scores, [0,1,2,3]), LabelError, 'label 3'),
        (lambda s: topk_accuracy(s.scores, s.targets[:3]), ArgumentError, '4 rows of scores, 3 targets'),
        (lambda s: topk_accuracy(s.scores + [[0],[np.nan],[0],[0]], s.targets), ArgumentError,
         'in 1 of 4 rows, first in row 1'),
        (lambda s: topk_accuracy(np.zeros((0,3)), []), ArgumentError, 'is empty'),
        (lambda s: topk_accuracy(s.targets, s.targets), ArgumentError, r'shape \(4,\)'),
        (lambda s: confusion([0,5], [0,1], 3), LabelError, 'preds has label 5'),
        (lambda s: confusion([0], [0,1], 3), ArgumentError, '1 preds, 2 targets'),
        (lambda s: confusion([], [], 3), ArgumentError, 'is empty'),
        (lambda s: mean_class_accuracy([], [], 3), ArgumentError, 'is empty'),
        (lambda s: per_class(s.conf, ['walk','run']), ArgumentError, '2 labels for 4 classes'),
        (lambda s: per_class([1,2], 'ab'), ArgumentError, r'expected \(K,K\)'),
        (lambda s: per_class([[1,0],[-1,2]], 'ab'), ArgumentError, r'conf holds -1 \(row 1\)'),
        (lambda s: most_confused(s.conf, s.labels, 0), ArgumentError, 'min_count=0'),
        (lambda s: plot_confusion(s.conf, s.labels[:3]), ArgumentError, '3 labels for 4 classes'),
        (lambda s: nll(s.p, s.truth, floor=1), ArgumentError, 'floor=1'),
        (lambda s: nll(s.z, s.truth), ArgumentError, 'no distribution'),
        (lambda s: brier(s.p, s.truth[:3]), ArgumentError, '3 targets'),
        (lambda s: ece(np.full((2,2), np.nan), [0,1]), ArgumentError, 'NaN'),
        (lambda s: bootstrap_interval(nll, [[1.,0.]]*3, [0,1,0]), ArgumentError, 'metric gives inf'),
    ])
    def test_is_refused(self, call, error, words):
        with pytest.raises(error, match=words):
            call(self)

    def test_kinds_of_numbers(self):
        assert topk_accuracy(torch.tensor(self.scores).bfloat16(), torch.tensor(self.targets)) == .5
        assert topk_accuracy(np.ones((5,1)), [0]*5) == 1                # one class: nothing to get wrong
        assert confusion(np.uint8([7]), np.uint8([20]), 30)[20,7] == 1     # 20*30 + 7 is 95 in uint8
        assert confusion([0,0], [0,0], 1).tolist() == [[2]]
        assert confusion([0], [0], 1).dtype == np.int64

    def test_classes_that_never_occur(self):
        never = per_class(confusion([0,0], [0,1], 3), 'abc')      # b is never called, c doesn't occur at all
        assert never.isna().sum().tolist() == [2,1,1,0]
        preds, targets = np.zeros(100, int), np.repeat([0,1,2], [90,6,4])
        assert mean_class_accuracy(preds, targets, 3) == pytest.approx(1/3, abs=1e-12)
        preds, targets = (np.repeat(i, self.conf.ravel()) for i in np.indices((4,4)).reshape(2, -1)[::-1])
        table = per_class(confusion(preds, targets, 4), self.labels)
        assert table.n.tolist() == [20,12,8,8]
        assert table.recall.mean() == pytest.approx(mean_class_accuracy(preds, targets, 4), abs=1e-12)
        assert macro_f1(preds, targets, 6) == pytest.approx(table.f1.mean(), abs=1e-12)

    def test_the_list_of_mistakes(self):
        found = most_confused(self.conf, self.labels)
        assert found == [('walk','run',3), ('run','walk',3), ('jump','wave',2)]
        assert most_confused(self.conf, self.labels, min_count=4) == []

    def test_the_bootstrap_of_metrics(self):
        p, truth = self.p[self.few], self.truth[self.few]
        mean_class = lambda preds, targets: mean_class_accuracy(preds, targets, 5)
        assert bootstrap_interval(nll, p, truth)[0] == pytest.approx(nll(p, truth))
        same = lambda k: bootstrap_interval(
            nll, np.repeat(p, k, 0), np.repeat(truth, k), np.repeat(np.arange(300), k)
        )
        assert same(3) == pytest.approx(same(1), abs=1e-9)      # three copies of each clip add nothing
        assert bootstrap_interval(ece, p, truth, n_boot=200)[1] > .02     # "not honest", of an honest model
        assert bootstrap_interval(mean_class, truth, truth, within=(0,1))[1:] == (1., 1.)

    def test_a_million_predictions_take_seconds(self):
        big, many = np.tile(self.p, (250,1)), np.tile(self.truth, 250)
        start = time.process_time()
        topk_accuracy(big, many, 3)
        for metric in (nll, brier, ece):
            metric(big, many)
        mean_class_accuracy(big.argmax(1), many, 5)
        a, b, by_fifty = big.argmax(1) == many, big[:,::-1].argmax(1) == many, np.arange(1_000_000)//50
        cluster_wilson(a, by_fifty)
        mcnemar(a, b)
        paired_difference(a, b)
        paired_difference(a, b, by_fifty)
        paired_difference(big.max(1), big.min(1))
        assert time.process_time()-start < 5


class TestCalibrationEdges:
    "What calibration refuses, and decisions at the border."
    z = np.random.default_rng(0).normal(size=(60,5))
    own = np.arange(60) % 5

    @pytest.mark.parametrize('call, error, words', [
        (lambda s: temperature_scale(s.z, 0), ArgumentError, 'temperature=0'),
        (lambda s: fit_temperature(s.z*np.nan, s.own), DataError, 'NaN'),
        (lambda s: fit_temperature(s.z, s.own+1), LabelError, r'not in \[0, 5\)'),
        (lambda s: fit_temperature(s.z[:0], s.own[:0]), ArgumentError, 'N >= 1'),
        (lambda s: auroc([1], []), ArgumentError, 'at least one'),
        (lambda s: Calibration(temperature=-1), ArgumentError, 'temperature=-1'),
    ])
    def test_is_refused(self, call, error, words):
        with pytest.raises(error, match=words):
            call(self)

    def test_decisions(self):
        cal = Calibration(2., .9, 0., .05, .95, 60, 'a/valid')
        assert Calibration(**cal.to_dict()) == cal
        assert Calibration().decide([[0,1.],[2,1]]).tolist() == [1,0]
        answers = Calibration(threshold=.9, none_below=0).decide([[5,0.],[.1,0],[-3,-9]])
        assert answers.tolist() == [0,-1,-2]
