"Files for other runtimes: the scores of the network, read with suspicion, and answers without PyTorch."
import configparser, importlib.util, json, os, re, subprocess, sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from torch import nn
from typer.testing import CliRunner

from vidcls.calibrate import Calibration
from vidcls.cli import app, in_words
from vidcls.core import ArgumentError, CheckpointError, ClipSpec, SpecMismatchError, VidclsError
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader
from vidcls.data.synthetic import make_motion_clips
from vidcls.deploy import runtime
from vidcls.deploy.export import example_clips, export
from vidcls.deploy.quantize import quantize
from vidcls.deploy.runtime import ExportFacts, RuntimeClassifier, read_facts, seal_file
from vidcls.evaluate import evaluate
from vidcls.models.logits import predict_logits
from vidcls.models.zoo import MODELS, create_model, list_models, register_model
from vidcls.predict import Classifier

root = Path(__file__).resolve().parents[1]
there = {name: importlib.util.find_spec(name) is not None
         for name in ('onnxruntime', 'onnxscript', 'openvino', 'executorch')}
onnx = pytest.mark.skipif(not (there['onnxruntime'] and there['onnxscript']), reason='needs the extra deploy')
vino = pytest.mark.skipif(not (there['openvino'] and there['onnxscript']), reason='needs the extra deploy')
phone = pytest.mark.skipif(not there['executorch'], reason='needs the extra mobile')

# families without a tiny form: their usual one on small clips
SMALL = {n: dict(size=32, n_frames=8) for n in ('efficientnet_lite0_inflated', 'efficientnet_lite0_frames',
                                                'resnet50_inflated', 'handcrafted')}
VIVIT = dict(model_type='vivit', num_frames=8, image_size=32, tubelet_size=[2, 8, 8], hidden_size=32,
             num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
TINY = [n for n in list_models() if n.endswith('_tiny')]


def made(name, **more):
    "A classifier whose scores say something: batch norms have seen clips, and the head is not near zero."
    torch.manual_seed(0)
    if name == 'pooled':
        trunks = [dict(model='efficientnet_lite0_frames', pool='mean')]
        more = dict(trunks=trunks, size=32, n_frames=4)
    if name == 'transformers':
        more = dict(config=VIVIT)
    model = create_model(name, n_classes=5, **{**SMALL.get(name, {}), **more})
    x = model.spec.to_model(torch.from_numpy(example_clips(model.spec, 4)))
    with torch.no_grad():
        for m in model.modules():                                    # those of frozen trunks, too
            m.training = isinstance(m, nn.modules.batchnorm._BatchNorm)
        for _ in range(3):
            model(x)
        model.eval()
        spread = model(x).std().clamp(min=1e-6)
        for p in model.head.parameters():
            p.mul_(1/spread)
    return Classifier(model, list('abcde'))

def distance(file, clf, n):
    "The largest difference of scores, on n clips that export did not compare."
    clips = example_clips(clf.spec, 8)[::-1, ::-1].copy()[:n]
    z = predict_logits(clf.model, clips).numpy()
    assert np.abs(z).max() > .05
    return np.abs(file.score_clips(clips) - z).max()

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A classifier, its .onnx file, and a few videos."
    d = tmp_path_factory.mktemp('small')
    clf = made('videomae_tiny')
    clf.calibration = Calibration(temperature=.5, threshold=.3, none_below=-.5, n=7, fitted_on='motion/valid')
    videos = sorted(Path(make_motion_clips(d/'motion', n_groups=1, n_frames=12, size=40)).rglob('*.mp4'))
    clf.save(d/'clf')
    if there['onnxruntime'] and there['onnxscript']:
        export(clf, d/'clf.onnx')
    return d, clf, videos


# Parity

def test_every_family_is_compared():
    "A new model of the zoo comes into these tests by itself, or this test asks for it."
    families = {n.split('_')[0].replace('videomaev2', 'videomae').replace('v2', '') for n in MODELS}
    tested = {n.split('_')[0] for n in (*TINY, *SMALL, 'transformers', 'pooled')}
    assert families <= tested | {'test'}, families - tested

@onnx
@pytest.mark.parametrize('name', [*TINY, *SMALL, 'transformers', 'pooled'])
def test_onnx_has_the_scores_of_the_network(name, tmp_path):
    clf = made(name)
    report = export(clf, tmp_path/'model.onnx')
    file = RuntimeClassifier(report.path)
    assert report.difference < 1e-4
    assert max(distance(file, clf, n) for n in (1, 3, 8)) < 1e-4
    assert file.facts.opset >= 18 and report.bytes == report.path.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == ['model.onnx']               # one file, nothing left

@vino
@pytest.mark.parametrize('name', ['videomae_tiny', 'i3d_tiny', 'swin3d_tiny', 'efficientnet_lite0_frames'])
def test_openvino_has_the_scores_of_the_network(name, tmp_path):
    clf = made(name)
    file = RuntimeClassifier(export(clf, tmp_path/'model.xml').path)
    assert max(distance(file, clf, n) for n in (1, 3, 8)) < 1e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == ['model.bin', 'model.xml']

@phone
def test_the_phone_file_has_the_scores_of_the_network(tmp_path):
    clf = made('timesformer_tiny', depth=1)
    back = Classifier.load(export(clf, tmp_path/'model.pte').path)
    clips = example_clips(clf.spec, 3)[:, ::-1]
    assert np.abs(back.score_clips(clips) - clf.score_clips(clips)).max() < 1e-4
    assert (back.labels, back.spec) == (clf.labels, clf.spec)

@onnx
@pytest.mark.parametrize('task', ['single-label', 'multi-label'])
@pytest.mark.parametrize('suffix', ['.onnx', pytest.param('.xml', marks=vino)])
def test_raw_bytes_give_the_same_as_normalised_clips(task, suffix, tmp_path):
    "Calibration, channels and sigmoid included; the file alone gives the probabilities."
    clf = made('videomae_tiny', channels='BGR', mean=(.4, .5, .6), std=(.2, .3, .4))
    cal = Calibration(temperature=.5) if task == 'single-label' else Calibration()
    clf = Classifier(clf.model, clf.labels, cal, task=task)
    plain = RuntimeClassifier(export(clf, tmp_path/f'plain{suffix}').path)
    raw = RuntimeClassifier(export(clf, tmp_path/f'raw{suffix}', raw=True).path)
    clips = example_clips(clf.spec, 3)
    assert np.abs(raw.score_clips(clips) - plain.score_clips(clips)).max() < 1e-5
    frames = clips[1]
    for file in (raw, plain, Classifier.load(raw.path), Classifier.load(plain.path)):
        assert np.abs(file.probs(frames) - clf.probs(frames)).max() < 1e-6
    if suffix == '.onnx':
        session = raw.session.session
        p = session.run(['probs'], {'clips': frames[None]})[0][0]
        assert np.abs(p - clf.probs(frames)).max() < 1e-6


# The same answers

@onnx
def test_files_answer_as_the_classifier(small):
    d, clf, videos = small
    for file in (RuntimeClassifier(d/'clf.onnx'), Classifier.load(d/'clf.onnx')):
        assert file.calibration == clf.calibration
        for views in (None, 'videomae-ssv2'):
            a, b = file.predict(videos[0], views=views), clf.predict(videos[0], views=views)
            assert [x['label'] for x in a] == [x['label'] for x in b]
            assert np.allclose([x['score'] for x in a], [x['score'] for x in b], atol=1e-6)
        said = [file.decide(v) for v in videos]
        assert [x['label'] for x in said] == [clf.decide(v)['label'] for v in videos]
        assert {x['reason'] for x in said} == {clf.decide(v)['reason'] for v in videos}
        assert np.allclose(file.logits(videos[0].read_bytes()), clf.logits(videos[0]), atol=1e-5)

@onnx
def test_a_file_is_judged_and_calibrated_as_a_network(small, tmp_path):
    d, clf, _ = small
    table = from_folder(make_motion_clips(tmp_path/'m', n_groups=4, n_frames=8, size=32))
    table = table.select_classes(table.labels[:5])
    net = Classifier(create_model('videomae_tiny', n_classes=5), table.labels)
    export(net, tmp_path/'m.onnx', raw=True)
    back, dl = Classifier.load(tmp_path/'m.onnx'), loader(table, net.spec, bs=3)
    a, b = (evaluate(c, dl, show=False, optimistic=True) for c in (net, back))
    assert np.allclose(a.probs, b.probs, atol=1e-6)
    assert a.confusion == b.confusion
    cals = [c.calibrate(dl, show=False) for c in (net, back)]
    assert np.isclose(cals[0].none_below, cals[1].none_below, atol=1e-5)
    assert back.model.name == 'videomae_tiny' and 'videomae_tiny' in repr(back)

@onnx
def test_a_file_is_not_trained_saved_or_exported_again(small, tmp_path):
    d, *_ = small
    back = Classifier.load(d/'clf.onnx')
    with pytest.raises(ArgumentError, match="can't be trained"):
        back.model.train()
    with pytest.raises(ArgumentError, match='copy the file'):
        back.save(tmp_path/'again')
    with pytest.raises(ArgumentError, match='exported already'):
        export(back, tmp_path/'again.onnx')
    assert not list(tmp_path.iterdir())


# Bad input

@onnx
def test_damaged_changed_and_foreign_files_are_refused(small, tmp_path):
    d, *_ = small
    whole = (d/'clf.onnx').read_bytes()
    bad = {
        'truncated': (whole[:len(whole)//2], 'damaged'),
        'tail': (whole[:-1], 'damaged'),
        'spec': (whole.replace(b'"n_frames": 8', b'"n_frames": 4'), 'changed after its export'),
        'labels': (whole.replace(b'"labels": ["a", "b"', b'"labels": ["b", "a"'), 'changed after its export'),
        'weights': (whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], 'changed after its export'),
        'foreign': (whole[:whole.rfind(b'\x0a\x06vidcls\x12')-4], 'does not say what its scores mean'),
        'text': (b'hello', 'does not say what its scores mean'),
        'empty': (b'', 'does not say what its scores mean'),
    }
    for name, (content, said) in bad.items():
        (tmp_path/f'{name}.onnx').write_bytes(content)
        assert content != whole
        for load in (RuntimeClassifier, Classifier.load):
            with pytest.raises(CheckpointError, match=said):
                load(tmp_path/f'{name}.onnx')
    with pytest.raises(CheckpointError, match='no such file'):
        Classifier.load(tmp_path/'none.onnx')

@onnx
def test_a_sealed_file_that_is_no_network_is_refused(small, tmp_path):
    d, *_ = small
    (tmp_path/'a.onnx').write_bytes(b'no network')
    seal_file(tmp_path/'a.onnx', read_facts(d/'clf.onnx'))
    with pytest.raises(CheckpointError, match="onnxruntime can't open it"):
        RuntimeClassifier(tmp_path/'a.onnx')

@vino
def test_openvinos_second_file_belongs_to_it(small, tmp_path):
    _, clf, _ = small
    export(clf, tmp_path/'a.xml')
    weights = (tmp_path/'a.bin').read_bytes()
    (tmp_path/'a.bin').write_bytes(weights[:-4] + b'abcd')
    with pytest.raises(CheckpointError, match='a.bin: is damaged'):
        RuntimeClassifier(tmp_path/'a.xml')
    (tmp_path/'a.bin').unlink()
    with pytest.raises(CheckpointError, match='not beside it'):
        RuntimeClassifier(tmp_path/'a.xml')

@onnx
def test_clips_of_another_kind_are_refused(small):
    d, clf, _ = small
    file, clips = RuntimeClassifier(d/'clf.onnx'), example_clips(clf.spec, 1)
    for odd in (clips/255, clips[0], clips[:, :4], clips.tolist()):
        with pytest.raises(SpecMismatchError, match='expected uint8'):
            file.score_clips(odd)
    with pytest.raises(ArgumentError, match='device'):
        Classifier.load(d/'clf.onnx', device='gpu')

def test_a_missing_runtime_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(VidclsError, match=r"needs onnxruntime.*pip install 'vidcls\[deploy\]'"):
        runtime.OnnxSession('a.onnx')
    monkeypatch.setitem(sys.modules, 'executorch.runtime', None)            # it may be imported already
    with pytest.raises(VidclsError, match=r"needs executorch.*pip install 'vidcls\[mobile\]'"):
        runtime.ExecuTorchSession('a.pte')

def test_a_missing_exporter_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(VidclsError, match=r"export to ONNX needs onnxscript.*vidcls\[deploy\]"):
        export(made('videomae_tiny'), tmp_path/'a.onnx')
    for odd, said in (('a.tflite', 'suffix'), ('none/a.onnx', 'its folder is not there')):
        with pytest.raises(ArgumentError, match=said):
            export(made('videomae_tiny'), tmp_path/odd)
    assert not list(tmp_path.iterdir())

class OwnNet(nn.Module):
    "A network of somebody's own, with one layer and whatever is done to its scores."
    def __init__(self, spec=ClipSpec(4, 16), n_classes=3):
        super().__init__()
        self.spec, self.n_classes = spec, n_classes
        self.head = nn.Linear(3, n_classes)
        self.also = lambda z: z
    def forward(self, x):
        return self.also(self.head(x.mean((2, 3, 4))))

@onnx
def test_an_unknown_operator_is_named(tmp_path):
    net = OwnNet().eval()
    net.also = lambda z: torch.special.bessel_j0(z)
    with pytest.raises(ArgumentError, match=r'no operator for \S*bessel_j0'):
        export(Classifier(net, list('abc')), tmp_path/'a.onnx')
    assert not list(tmp_path.iterdir())

@onnx
def test_a_file_with_other_scores_is_not_kept(tmp_path):
    "What depends on the values of a tensor is traced once, and wrong for other clips."
    net = OwnNet().eval()
    net.also = lambda z: z + (1. if torch.compiler.is_exporting() else 0.)
    with pytest.raises(ArgumentError, match="differ from the network's by 1, more than most=0.001"):
        export(Classifier(net, list('abc')), tmp_path/'a.onnx')
    assert not list(tmp_path.iterdir())

@onnx
def test_a_network_of_ones_own_is_exported_and_half_precision_is_float(tmp_path):
    register_model('own_for_export', OwnNet)
    clf = Classifier(create_model('own_for_export', n_classes=3, n_frames=4, size=16), list('abc'))
    clf.model.half()
    file = RuntimeClassifier(export(clf, tmp_path/'a.onnx', record=dict(accuracy=.5)).path)
    assert file.facts.model == 'own_for_export' and file.facts.record == dict(accuracy=.5)
    del MODELS['own_for_export']


def test_a_seal_that_another_library_copied_is_not_taken_for_the_files_own(tmp_path):
    "onnxruntime's quantiser copies it into its file, which may be larger than the first one was."
    facts = ExportFacts('own', ClipSpec(2, 8), ['a', 'b'])
    first = tmp_path/'first.onnx'
    first.write_bytes(b'short')
    copied = seal_file(first, facts).read_bytes()[5:]
    second = tmp_path/'second.onnx'
    second.write_bytes(b'a longer network' + copied)
    assert seal_file(second, facts).read_bytes().startswith(b'a longer network' + copied)
    assert read_facts(second).labels == ['a', 'b']
    once = second.read_bytes()
    assert seal_file(second, facts).read_bytes() == once               # its own seal is replaced


@onnx
def test_operators_of_another_version_are_refused(tmp_path):
    clf = Classifier(OwnNet().eval(), list('abc'))
    for opset in (7, 99):
        with pytest.raises(ArgumentError, match=f'opset={opset}: .* version 18'):
            export(clf, tmp_path/'a.onnx', opset=opset)
    assert export(clf, tmp_path/'a.onnx', opset=19).facts.opset == 19


@onnx
@pytest.mark.parametrize('suffix', ['.onnx', pytest.param('.xml', marks=vino)])
def test_weights_too_large_for_one_file_lie_beside_it(suffix, tmp_path, monkeypatch):
    "ONNX ends at 2 GiB; here the limit is lowered, so that a small network meets it."
    monkeypatch.setattr('vidcls.deploy.export.ONE_FILE', 1e3)
    clf = made('videomae_tiny')
    report = export(clf, tmp_path/f'a{suffix}')
    beside = tmp_path/('a.onnx.data' if suffix == '.onnx' else 'a.bin')
    assert sorted(tmp_path.iterdir()) == sorted([report.path, beside])
    assert report.bytes == sum(f.stat().st_size for f in tmp_path.iterdir())
    if suffix == '.xml':
        return
    (tmp_path/'elsewhere').mkdir()
    for f in (report.path, beside):
        f.rename(tmp_path/'elsewhere'/f.name)
    moved = tmp_path/'elsewhere'/'a.onnx'
    assert distance(RuntimeClassifier(moved), clf, 3) < 1e-4
    clips = np.concatenate([example_clips(clf.spec, 8)]*2)
    small = quantize(moved, tmp_path/'q.onnx', clips, how='dynamic', most_moved=1.)
    assert small.share < 1 and not (tmp_path/'q.onnx.data').exists()
    content = bytearray((moved.parent/beside.name).read_bytes())
    content[len(content)//2] ^= 1
    (moved.parent/beside.name).write_bytes(content)
    with pytest.raises(CheckpointError, match='a.onnx.data: is damaged'):
        RuntimeClassifier(moved)
    (moved.parent/beside.name).unlink()
    with pytest.raises(CheckpointError, match='not beside it; copy both'):
        RuntimeClassifier(moved)


@onnx
def test_the_command_names_its_own_options(small, tmp_path):
    d = small[0]
    (tmp_path/'folder.onnx').mkdir()
    for out, more, said in (('a.tflite', [], 'accepted: .onnx (onnxruntime), .xml (openvino), .pte'),
                            ('folder.onnx', [], 'folder.onnx: is a folder'),
                            ('a.onnx', ['--opset', '7'], '--opset 7: PyTorch')):
        ran = CliRunner().invoke(app, ['export', str(d/'clf'), '--out', str(tmp_path/out), *more])
        told = in_words(ran.exception)
        assert said in told and '--path-column' not in told


# Without PyTorch

WITHOUT = """
import sys, json
blocked = {blocked}
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in blocked: raise ImportError(name + ' is blocked')
sys.meta_path.insert(0, Finder())
"""

def python(code, *args, **env):
    got = subprocess.run([sys.executable, '-c', code, *map(str, args)], cwd=root, text=True,
                         capture_output=True, timeout=300, env={**os.environ, **env})
    assert got.returncode == 0, got.stdout + got.stderr
    return got.stdout

def closure(names):
    "The distributions that these bring, with those that they need."
    found, todo = set(), [n.lower() for n in names]
    while todo:
        name = re.sub('[-_.]+', '-', todo.pop().lower())
        if name in found:
            continue
        found.add(name)
        try:
            asked = [Requirement(r) for r in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        todo += [r.name for r in asked if r.marker is None or r.marker.evaluate({'extra': ''})]
    return found

@onnx
def test_an_answer_needs_the_extra_runtime_and_no_more(small):
    "By Python and by the command line: what is imported is what settings.ini lists for `runtime`, and used."
    d, clf, videos = small
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf-8')
    listed = [Requirement(r).name for r in ini['DEFAULT']['runtime_requirements'].split()]
    code = WITHOUT.format(blocked=['torch', 'pandas', 'transformers', 'matplotlib']) + """
from vidcls.deploy.runtime import RuntimeClassifier
file, videos = RuntimeClassifier(sys.argv[1]), sys.argv[2:]
answers = file.predict(videos*21)[:len(videos)]
said = [file.decide(v)['label'] for v in videos]
file.predict(videos[0], views='videomae-ssv2')
import vidcls.cli
sys.argv = ['vidcls', 'predict', sys.argv[1], sys.argv[2], '--json']
try: vidcls.cli.main()
except SystemExit as e: assert not e.code
from importlib import metadata
of = metadata.packages_distributions()
dists = {d.lower() for m in list(sys.modules) if m.partition('.')[0] not in sys.stdlib_module_names
         for d in of.get(m.partition('.')[0], [])}
print(json.dumps([answers, said, sorted(dists)]))
"""
    line, last = python(code, d/'clf.onnx', *videos[:2], VIDCLS_PROGRESS='1').strip().splitlines()
    answers, said, dists = json.loads(last)
    names = [[a['label'] for a in x] for x in answers]
    assert names == [[a['label'] for a in clf.predict(v)] for v in videos[:2]]
    assert said == [clf.decide(v)['label'] for v in videos[:2]]
    assert json.loads(line)['answer'][0]['label'] == clf.predict(videos[0])[0]['label']
    used = {re.sub('[-_.]+', '-', d) for d in dists} - {'vidcls'}
    assert used <= closure(listed) | {'setuptools'}, used - closure(listed)
    assert {n.lower() for n in listed} <= used, set(listed) - used

@onnx
def test_the_command_answers_from_a_file_as_from_the_folder(small, tmp_path):
    d, clf, videos = small
    def vidcls(*args):
        code = "import sys\nfrom vidcls.cli import main\nmain()"
        return subprocess.run([sys.executable, '-c', code, *map(str, args)], cwd=root, text=True,
                              capture_output=True, timeout=300)
    got = vidcls('export', d/'clf', '--out', tmp_path/'out'/'m.onnx', '--raw')
    assert got.returncode == 0, got.stderr
    assert 'largest difference' in got.stdout
    assert f"next: vidcls predict {tmp_path/'out'/'m.onnx'}" in got.stdout
    a, b = (vidcls('predict', c, videos[0].parents[1]) for c in (d/'clf', tmp_path/'out'/'m.onnx'))
    assert a.stdout == b.stdout and len(a.stdout.splitlines()) == len(videos), b.stderr
    (tmp_path/'bad.onnx').write_bytes(b'hello')
    got = vidcls('predict', tmp_path/'bad.onnx', videos[0])
    assert got.returncode == 2 and 'Traceback' not in got.stderr
    assert 'does not say what its scores mean' in got.stderr
