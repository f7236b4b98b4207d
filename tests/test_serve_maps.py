"What counted: the service answers as Python does, and only where judges let the maps pass."
import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip('httpx', reason='needs the extra serve')
pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('onnxruntime', reason='needs the extra deploy')
pytest.importorskip('onnxscript', reason='needs the extra deploy')

from services import KEY, RUN, serving, small_model

from vidcls.core import seed_everything
from vidcls.data.one_clip import load_clip
from vidcls.data.synthetic import MOVES, make_motion_clips
from vidcls.interpret import explain
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.serve.app import as_jpegs
from vidcls.serve.client import ServiceClient
from vidcls.serve.limits import RequestError
from vidcls.serve.models import open_model


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "Paths of four clips, each in another scene."
    root = make_motion_clips(tmp_path_factory.mktemp('clips'), 4, n_frames=8, size=32)
    return [sorted(root.glob(f'{label}/*.mp4'))[i] for i,label in enumerate(list(MOVES)[:4])]


@pytest.fixture(scope='module')
def judged(tmp_path_factory):
    "A random network in a folder; the verdict is written by hand, for these tests need no good map."
    home = tmp_path_factory.mktemp('judged')
    seed_everything(0)
    net = create_model('videomae_tiny', n_classes=3, patch=4)
    folder = Classifier(net, ['left', 'right', 'up']).save(home/'net')
    row = dict(method='rollout', sane=True, d_high=-.1, i_low=.1)
    said = dict(weights=json.loads((folder/'config.json').read_text())['sha256'], n=24, judged=[row])
    (folder/'map.json').write_text(json.dumps(said))
    return folder


def test_a_map_is_that_of_python(judged, clips):
    with serving(judged, key='') as (url, _):
        client = ServiceClient(url)
        assert client.models()[0].map.model_dump() == dict(method='rollout', n_judged=24)
        said = client.explain(clips[0])
    net = Classifier.load(judged).model
    own = explain(net, load_clip(clips[0], net.spec), 'rollout')
    assert said.method == 'rollout' and said.label == ['left', 'right', 'up'][own.target]
    assert said.score == pytest.approx(own.probability, abs=1e-6)
    assert said.frames == as_jpegs(own.overlay())


def test_maps_answers_and_features_at_once(judged, clips):
    "Maps and features put hooks into the network; nobody gets the clip of another request."
    with serving(judged, '--decoders', '2', key='') as (url, _):
        client = ServiceClient(url, tries=50)
        ask = {'map': client.explain, 'answer': client.predict, 'vector': client.embed}
        alone = {(k, p): f(p).model_dump_json() for k,f in ask.items() for p in clips}
        with ThreadPoolExecutor(12) as pool:
            work = [(k, p) for _ in range(4) for p in clips for k in ask]
            found = list(pool.map(lambda w: (w, ask[w[0]](w[1])), work))
    for (k, p), said in found:
        assert_near(json.loads(alone[k, p]), said.model_dump())


def assert_near(a, b):
    "Two answers are the same, up to the order of sums in a batch."
    assert a.keys() == b.keys()
    for k in a:
        if k == 'features' or k == 'score':
            np.testing.assert_allclose(a[k], b[k], atol=1e-5)
        elif k not in ('frames', 'top'):
            assert a[k] == b[k]
    if a.get('method'):
        assert a['frames'] == b['frames']


def failed(folder):
    "Write a verdict that no map passed."
    path = folder/'map.json'
    path.write_text(path.read_text().replace('true', 'false'))


def trained_again(folder):
    Classifier(create_model('videomae_tiny', n_classes=3, patch=4), ['a', 'b', 'c']).save(folder)


@pytest.mark.parametrize('change, why', [
    (lambda f: (f/'map.json').unlink(), 'nobody has judged'),
    (lambda f: (f/'map.json').write_text('{'), 'nobody has judged'),
    (trained_again, 'nobody has judged'),
    (failed, 'judges let pass'),
])
def test_maps_that_are_not_shown(judged, tmp_path, change, why):
    "Without a verdict, with one that is damaged or about other weights, and where no map passed."
    folder = shutil.copytree(judged, tmp_path/'net')
    change(folder)
    model = open_model(folder)
    with pytest.raises(RequestError, match=why) as e:
        model.check_explains()
    assert e.value.status == 409


def test_a_file_has_no_map(tmp_path, clips):
    with serving(small_model(tmp_path)) as (url, _):
        with pytest.raises(RequestError, match='gives scores only') as e:
            ServiceClient(url, key=KEY).explain(clips[0])
    assert e.value.status == 409


def test_evaluate_judges_maps(tmp_path):
    "The verdict lies beside the weights, and the service says it."
    clips = make_motion_clips(tmp_path/'clips', 12, n_frames=8, size=32)
    seed_everything(0)
    folder = Classifier(create_model('i3d_tiny', n_classes=8), sorted(MOVES)).save(tmp_path/'net')
    words = [*RUN, 'evaluate', str(folder), str(clips), '--split', 'all', '--maps']
    said = subprocess.run(words, text=True, capture_output=True)
    assert said.returncode == 0 and 'MapVerdict(24 clips:' in said.stdout, said.stderr
    assert open_model(folder).describe()['map']['n_judged'] == 24
