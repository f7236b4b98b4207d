"INT8: what it is made of, what it keeps, and what it refuses."
import importlib.util, warnings
from dataclasses import replace

import numpy as np
import pytest
from torch import nn
from typer.testing import CliRunner

from vidcls.cli import app
from vidcls.core import ArgumentError, CheckpointError, DataError, SpecMismatchError, VidclsError
from vidcls.core import seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader, loaders
from vidcls.show import write_video
from vidcls.deploy import quantize as page
from vidcls.deploy.export import example_clips, export
from vidcls.deploy.quantize import calibration_clips, layer_parts, moved_probability, quantize
from vidcls.deploy.runtime import RuntimeClassifier, read_facts, seal_file
from vidcls.deploy.verdict import ExportVerdict
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.train import fit

there = {name: importlib.util.find_spec(name) is not None for name in ('onnxruntime', 'onnxscript', 'nncf')}
pytestmark = pytest.mark.skipif(not (there['onnxruntime'] and there['onnxscript']),
                                reason='needs the extra deploy')
vino = pytest.mark.skipif(not there['nncf'], reason='needs the extra deploy, with nncf')


@pytest.fixture(scope='module')
def place(tmp_path_factory): return tmp_path_factory.mktemp('int8')


@pytest.fixture(scope='module')
def table(place):
    "Noise that leans to a colour: a network learns it in a few seconds, and some clips remain close."
    rng = np.random.default_rng(0)
    for k,label in enumerate(('blue', 'green', 'red')):
        for i in range(40):
            frames = rng.integers(0, 200, (8,32,32,3))
            frames[...,2-k] += rng.integers(4, 50)
            write_video(place/'motion'/label/f'{i}.mp4', frames.astype(np.uint8), fps=8)
    return from_folder(place/'motion')


def fitted(name, table):
    "A network that has learned the colours."
    seed_everything(0)
    net = create_model(name, n_classes=3, n_frames=8, size=32)
    for m in net.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.momentum = .3                                   # of so few steps
    fit(net, loaders(table, net.spec, bs=8), epochs=6, lr=2e-3, show=False)
    return Classifier(net)


@pytest.fixture(scope='module')
def clf(table): return fitted('videomae_tiny', table)


@pytest.fixture(scope='module')
def files(clf, place):
    export(clf, place/'float.onnx', record=dict(dataset='motion'))
    return place


@pytest.mark.parametrize('name, suffix, how', [
    ('i3d_tiny', '.onnx', 'static'), ('videomae_tiny', '.onnx', 'dynamic'),
    pytest.param('i3d_tiny', '.xml', 'static', marks=vino),
    pytest.param('videomae_tiny', '.xml', 'weights', marks=vino)])
def test_int8_agrees_and_is_small(place, table, name, suffix, how):
    source, out = place/f'{name}{suffix}', place/f'{name}.{how}{suffix}'
    export(fitted(name, table), source)
    found = quantize(source, out, table)
    judged = table.select_split('train')
    clips = np.concatenate([np.asarray(b.clips) for b in loader(judged, read_facts(source).spec)])
    z, z2 = (RuntimeClassifier(f).score_clips(clips) for f in (source, out))
    right = np.mean(z.argmax(1) == [read_facts(source).labels.index(l) for l in judged.df.label])
    assert right > .8 and (z.argmax(1) == z2.argmax(1)).mean() >= .97
    assert found.share < .4 and found.moved <= .02 and found.path == out and found.about['how'] == how
    assert 0 < np.abs(z-z2).max()                                   # it is another network
    facts, was = read_facts(out), read_facts(source)
    assert facts.quantized == found.about and replace(facts, quantized={}) == was
    assert how in repr(found) and 'others' in repr(found)
    named = Classifier.load(out)
    assert named.labels == table.labels and named.predict(table.paths[0])[0]['label'] in named.labels


def test_a_raw_file_stays_raw(clf, table, place):
    export(clf, place/'raw.onnx', raw=True)
    quantize(place/'raw.onnx', place/'raw.int8.onnx', table)
    assert read_facts(place/'raw.int8.onnx').raw
    assert read_facts(place/'raw.int8.onnx').quantized['how'] == 'dynamic'             # products, mostly


def test_sensitive_parts_are_measured_and_left_out(files, table, place):
    whole = quantize(files/'float.onnx', place/'whole.onnx', table, 'static', most_moved=1)
    most = whole.moved*.95
    found = quantize(files/'float.onnx', place/'left.onnx', table, 'static', most_moved=most)
    assert found.moved <= most and found.about['left_out'] and found.share > whole.share
    moves = list(found.about['sensitivity'].values())
    assert moves == sorted(moves, reverse=True) and len(moves) == 8
    assert found.about['left_out'] == list(found.about['sensitivity'])[:len(found.about['left_out'])]
    assert 'left out' in repr(found) and read_facts(place/'left.onnx').quantized == found.about
    again = quantize(files/'float.onnx', place/'some.onnx', table, 'static', leave_out=[1, 8])
    assert [p[0] for p in again.about['left_out']] == ['1', '8'] and not again.about['sensitivity']
    with pytest.raises(ArgumentError, match='leave_out'):
        quantize(files/'float.onnx', place/'some.onnx', table, 'static', leave_out=[9])


def test_what_moves_too_much_is_not_kept(files, table, place):
    with pytest.raises(ArgumentError, match='not kept'):
        quantize(files/'float.onnx', place/'never.onnx', table, 'static', most_moved=1e-9)
    assert not (place/'never.onnx').exists()
    assert not [f for f in place.iterdir() if f.name.startswith('.int8')]


def test_clips_that_do_not_fit(files, table, place):
    facts = read_facts(files/'float.onnx')
    good = example_clips(facts.spec, 8)
    assert calibration_clips(good, facts).shape == good.shape
    bad = good.astype(np.float32)
    bad[0] = np.nan
    with pytest.raises(SpecMismatchError, match='NaN'):
        calibration_clips(bad, facts)
    with pytest.raises(SpecMismatchError, match='uint8'):
        calibration_clips(good[:,:4], facts)
    with pytest.raises(DataError, match='7 clips'):
        calibration_clips(good[:7], facts)
    with pytest.raises(DataError, match='one colour'):
        calibration_clips(good*0, facts)
    with pytest.raises(DataError, match='test'):
        calibration_clips(table.select_split('test'), facts)


def test_clips_of_another_data_set_are_told(files, table, clf):
    facts = read_facts(files/'float.onnx')
    with pytest.warns(UserWarning, match='judged on weizmann'):
        calibration_clips(table, replace(facts, record=dict(dataset='weizmann')))
    with pytest.warns(UserWarning, match='other labels'):
        calibration_clips(table, replace(facts, labels=['walk', 'run']))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        clips = calibration_clips(table, facts, 16)
    assert len(clips) == 16
    assert (clips == calibration_clips(table, facts, 16)).all()
    assert not (clips == calibration_clips(table, facts, 16, seed=1)).all()


def test_files_that_do_not_fit(files, table, place):
    with pytest.raises(ArgumentError, match='INT8 already'):
        quantize(quantize(files/'float.onnx', place/'q.onnx', table).path, place/'qq.onnx', table)
    with pytest.raises(ArgumentError, match='.onnx and .xml'):
        facts = read_facts(files/'float.onnx')
        (place/'m.pte').write_bytes(b'x')
        quantize(seal_file(place/'m.pte', facts), place/'n.pte', table)
    with pytest.raises(ArgumentError, match='another name'):
        quantize(files/'float.onnx', files/'float.onnx', table)
    with pytest.raises(ArgumentError, match='how'):
        quantize(files/'float.onnx', place/'w.onnx', table, 'weights')
    content = (files/'float.onnx').read_bytes()
    (place/'short.onnx').write_bytes(content[:len(content)//2])
    with pytest.raises(CheckpointError, match='damaged'):
        quantize(place/'short.onnx', place/'w.onnx', table)


def test_a_missing_extra_is_named(files, table, place, monkeypatch):
    def gone(name, why, extra='deploy'):
        raise VidclsError(f"{why} needs {name}: pip install 'vidcls[{extra}]'")
    monkeypatch.setattr(page, 'need_package', gone)
    with pytest.raises(VidclsError, match=r'vidcls\[deploy\]'):
        quantize(files/'float.onnx', place/'w.onnx', table)


def test_at_the_command_line(files, table, place):
    out, kept = place/'cli.int8.onnx', place/'verdict.json'
    run = CliRunner().invoke(app, ['quantize', str(files/'float.onnx'), '--clips', str(place/'motion'),
                                   '--out', str(out), '--leave-out', '1'])
    assert run.exit_code == 0 and 'left out: 1 ' in run.output
    assert f'vidcls verdict {files/"float.onnx"}' in run.output
    run = CliRunner().invoke(app, ['verdict', str(files/'float.onnx'), str(out), str(place/'motion'),
                                   '--rounds', '1', '--out', str(kept)])
    assert run.exit_code == 0 and ExportVerdict.load(kept).sentence in run.output
    n = len(table.select_split('test'))                   # never those that calibrated, or trained
    assert 0 < n < len(table) and ExportVerdict.load(kept).n == n and f'the {n} test clips' in run.output
    run = CliRunner().invoke(app, ['quantize', str(files/'float.onnx'), '--clips', str(place/'motion'),
                                   '--out', str(out), '--leave-out', 'all'])
    assert run.exit_code == 2 and 'numbers of parts' in run.output


def test_parts_follow_each_other():
    parts = layer_parts({f'l{i}': f'blocks.{i//2}' for i in range(20)})
    assert len(parts) == 8 and sum(parts.values(), []) == [f'l{i}' for i in range(20)]
    assert list(layer_parts({'a': 'x'})) == ['1 x']


def test_moved_probability_by_hand(files):
    facts = read_facts(files/'float.onnx')
    z, z2 = np.log([[.8, .2]]), np.log([[.7, .3]])
    assert np.isclose(moved_probability(z, z2, facts), .1)
    assert moved_probability(z, z, facts) == 0
