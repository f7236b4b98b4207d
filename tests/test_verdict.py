"The verdict on a conversion: its rule, its sentence, and its numbers against those of their own homes."
import copy, importlib.util

import numpy as np
import pytest
import torch

from vidcls.comparison import compare
from vidcls.core import MULTI, CheckpointError, DataError, seed_everything
from vidcls.data.datasets import as_table, from_folder
from vidcls.data.duets import make_duets
from vidcls.data.loaders import loader
from vidcls.data.synthetic import make_motion_clips
from vidcls.deploy.export import export
from vidcls.deploy.verdict import MOST_LOST, ExportVerdict, compare_exports
from vidcls.evaluate import evaluate
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.probes import probe_time

there = {name: importlib.util.find_spec(name) is not None for name in ('onnxruntime', 'onnxscript')}
onnx = pytest.mark.skipif(not all(there.values()), reason='needs the extra deploy')


def made(n=400, agree=.99, low=-.008, high=.004, size=.27, faster=1.7, nll=(.001, -.002, .004), apart=.1):
    rows = [dict(what='top1', before=.9, after=.898, difference=-.002, low=low, high=high),
            dict(what='agreement', after=agree), dict(what='scores, largest difference', after=apart),
            dict(what='nll', before=.3, after=.301) | dict(zip(('difference', 'low', 'high'), nll)),
            dict(what='ece', before=.03, after=.03, difference=0.), dict(what='size, MB', ratio=size),
            *(dict(what=w, ratio=1/faster) for w in ('file to label, ms', 'network alone, ms'))]
    return ExportVerdict('float32', 'INT8', n, rows, dict(dataset='made'))


def test_the_rule():
    assert made().pays is True
    assert made(size=.3, faster=.95).pays is True                     # small, and hardly slower
    assert made(size=1., faster=1.3).pays is True                     # fast, and not larger
    assert made(size=.3, faster=.8).pays is False                     # small, and too slow
    assert made(size=.9, faster=1.1).pays is False                    # nothing gained
    assert made(size=1.3, faster=2.).pays is False
    assert made(low=-.05, high=-.02).pays is False
    assert made(low=-.05, high=.02).pays is None
    assert made(low=np.nan, high=np.nan).pays is None                 # too few groups
    assert made(agree=1, low=0, high=0).pays is True                  # 400 equal answers
    assert made(n=100, low=0, high=0).pays is None                    # 100 are too few for one point
    exact = made(n=8, apart=1e-5, low=0, high=0)
    exact.rows[0]['difference'] = 0
    assert exact.pays is True                                         # the same arithmetic


def test_the_sentence():
    said = made().sentence
    for part in ('0.27× size', '1.7× faster', 'top1 -0.2 points [-0.8, +0.4]', 'calibration unchanged'):
        assert part in said
    assert 'does not pay here' in made(faster=.5).sentence and '0.50× as fast' in made(faster=.5).sentence
    assert 'a loss of 3.7 points could be missed' in made(n=100, agree=1, low=0, high=0).sentence
    assert 'calibration worse (nll +0.100' in made(nll=(.1, .05, .2)).sentence
    v = made()
    v.rows.append(dict(what='loss when reversed', before=.4, after=.2, difference=-.2, low=-.3, high=-.1))
    assert 'loss when reversed 0.40 before and 0.20 now' in v.sentence


def test_a_verdict_is_kept(tmp_path):
    v = made()
    assert repr(ExportVerdict.load(v.save(tmp_path/'v.json'))) == repr(v)
    (tmp_path/'v.json').write_text('{"a": 1}')
    with pytest.raises(DataError, match='no verdict'):
        ExportVerdict.load(tmp_path/'v.json')


@pytest.fixture(scope='module')
def place(tmp_path_factory): return tmp_path_factory.mktemp('verdict')


@pytest.fixture(scope='module')
def pair(place):
    "Two classifiers of which the second has other weights in its head."
    table = from_folder(make_motion_clips(place/'motion', 8, n_frames=8, size=32))
    seed_everything(0)
    net = create_model('videomae_tiny', n_classes=8, n_frames=8, size=32)
    with torch.no_grad():
        net.head.weight.normal_()
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.weight.add_(torch.randn_like(other.head.weight)*.3)
    return Classifier(net, table.labels), Classifier(other, table.labels), loader(table, net.spec)


def test_the_numbers_are_those_of_their_homes(pair, place):
    a, b, dl = pair
    v = compare_exports(a, b, dl, rounds=1, threads=1, show=False)
    records = {'a': evaluate(a, dl, show=False), 'b': evaluate(b, dl, show=False)}
    row = compare(records).loc['b']
    assert [v['top1'][k] for k in ('difference', 'low', 'high')] == [row.difference, row.d_low, row.d_high]
    assert (v['nll']['before'], v['nll']['after']) == (records['a'].nll, records['b'].nll)
    assert np.isclose(v['nll']['difference'], records['b'].nll-records['a'].nll, atol=1e-5)
    assert v['ece']['after'] == records['b'].ece
    same = (records['a'].clips.predicted == records['b'].clips.predicted).mean()
    assert v['agreement']['after'] == same < 1
    lost = probe_time(a.model, dl, show=False).table.difference
    for name in ('reversed', 'frozen'):
        assert np.isclose(v[f'loss when {name}']['before'], -lost[name])
    assert v.n == 64 and v.before == v.after == 'float32 by PyTorch'
    assert v['size, MB']['ratio'] == pytest.approx(1, abs=.01) and v['first answer, s']['before'] > .1
    assert v.sentence in repr(v)


@onnx
def test_a_file_beside_its_folder(pair, place):
    a, _, dl = pair
    a.save(place/'folder')
    export(a, place/'m.onnx')
    v = compare_exports(place/'folder', place/'m.onnx', dl, rounds=1, threads=1, probes=False, show=False)
    assert v['agreement']['after'] == 1 and v['scores, largest difference']['after'] < 1e-4
    assert (v.before, v.after) == ('float32 by PyTorch', 'float32 by onnxruntime')
    assert v['memory, MB']['ratio'] < .8                              # without PyTorch
    assert v.worst == 0 and v.pays is v.gain                          # the same arithmetic
    content = (place/'m.onnx').read_bytes()
    (place/'short.onnx').write_bytes(content[:len(content)//2])
    with pytest.raises(CheckpointError):
        compare_exports(place/'folder', place/'short.onnx', dl)


@onnx
def test_a_verdict_on_sets_of_labels(place):
    "Several labels a clip: mAP takes the place of top-1, and no probe of time is asked."
    table = as_table(make_duets(place/'duets', 6, n_frames=8, size=32), task=MULTI)
    seed_everything(0)
    net = create_model('videomae_tiny', n_classes=len(table.labels), n_frames=8, size=32)
    with torch.no_grad():
        net.head.weight.normal_()
    a = Classifier(net, table.labels, task=MULTI)
    export(a, place/'sets.onnx')
    dl = loader(table, net.spec)
    v = compare_exports(a, place/'sets.onnx', dl, rounds=1, threads=1, show=False)
    assert v.metric == 'mAP' and v['mAP']['before'] == evaluate(a, dl, show=False).mAP
    assert v['mAP']['difference'] == 0 and v['agreement']['after'] == 1
    assert 'nll' not in v and not [r for r in v.rows if r['what'].startswith('loss when')]
    assert v.worst == 0 and v.pays is v.gain and 'answers the same' in v.sentence
    other = copy.deepcopy(a)
    with torch.no_grad():
        other.model.head.weight.add_(torch.randn_like(net.head.weight))
    v = compare_exports(a, other, dl, rounds=1, threads=1, show=False)
    row = compare({'a': evaluate(a, dl, show=False), 'b': evaluate(other, dl, show=False)}).loc['b']
    assert [v['mAP'][k] for k in ('difference', 'low', 'high')] == [row.difference, row.d_low, row.d_high]
    assert v['agreement']['after'] < 1 and 'mAP' in v.sentence


def test_few_groups_give_no_verdict(pair, place):
    "All clips of one scene are one group, of which nothing follows for other scenes."
    a, b, dl = pair
    table = dl.sources().table
    one = loader(table.with_rows(table.df[table.df.group == table.df.group.iloc[0]]), a.spec)
    v = compare_exports(a, b, one, rounds=1, threads=1, probes=False, show=False)
    assert np.isnan(v['top1']['low']) or v['top1']['low'] < -MOST_LOST
    assert v.pays is not True and repr(v)
