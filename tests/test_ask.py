"`vidcls ask` and ServiceClient, against a service in a process of its own."
import json
import os
import subprocess

import httpx
import numpy as np
import pytest
from services import KEY, RUN, free_port, serving, small_model

from vidcls.core import VidclsError
from vidcls.data.decode import write_video
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.serve.client import ServiceClient
from vidcls.serve.limits import RequestError


def vidcls(*words, **env):
    "Run a command."
    env = {**os.environ, 'OMP_NUM_THREADS': '1', **env}
    return subprocess.run([*RUN, *map(str, words)], env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def service(model):
    with serving(model) as (url, _):
        yield url


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "A folder of three clips, and a long one beside it."
    folder, rng = tmp_path_factory.mktemp('clips'), np.random.default_rng(0)
    for i in range(3):
        write_video(folder/f'{i}.mp4', rng.integers(0, 255, (24, 48, 64, 3), np.uint8), fps=8)
    return folder


@pytest.fixture
def client(service): return ServiceClient(service, KEY)


@pytest.mark.parametrize('how', [
    '', '--top-k 2', '--json --top-k 3 --views videomae-ssv2', '--every 1 --length 1',
    '--every 1 --length 1 --json',
])
def test_it_prints_what_predict_prints(service, model, clips, how):
    there = vidcls('ask', service, clips, *how.split(), VIDCLS_KEY=KEY)
    here = vidcls('predict', model, clips, *how.split())
    assert there.returncode == here.returncode == 0, there.stderr + here.stderr
    assert '--json' in how or there.stdout == here.stdout
    assert there.stderr.count('note: 3 parts') == here.stderr.count('note: 3 parts')
    if '--json' in how:
        for a, b in zip(there.stdout.splitlines(), here.stdout.splitlines(), strict=True):
            assert_close(json.loads(a), json.loads(b))


def assert_close(a, b):
    "The same in the same order, and numbers to 1e-6."
    if isinstance(a, dict):
        assert list(a) == list(b)
        a, b = list(a.values()), list(b.values())
    if isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_close(x, y)
    elif isinstance(a, float):
        assert a == pytest.approx(b, abs=1e-6)
    else:
        assert a == b


def test_what_fails_is_said_and_the_others_are_answered(service, clips, tmp_path):
    (tmp_path/'text.mp4').write_text('no video')
    said = vidcls('ask', service, tmp_path/'text.mp4', tmp_path/'none.mp4', clips/'0.mp4', VIDCLS_KEY=KEY)
    assert said.returncode == 2
    assert 'not a video' in said.stderr and 'none.mp4' in said.stderr
    assert said.stdout.startswith(str(clips/'0.mp4'))


@pytest.mark.parametrize('words, key, sentence', [
    ([], 'guessed', 'is not the key of this service'),
    (['--model', 'smal'], KEY, "accepted"),
    (['--length', '2'], KEY, 'add --every'),
])
def test_what_concerns_all_files_is_said_once(service, clips, words, key, sentence):
    said = vidcls('ask', service, clips, *words, VIDCLS_KEY=key)
    assert said.returncode == 2 and not said.stdout
    assert sentence in said.stderr and len(said.stderr.splitlines()) == 1


def test_no_service(clips):
    said = vidcls('ask', f'http://127.0.0.1:{free_port()}', clips)
    assert said.returncode == 2 and 'no service answers there' in said.stderr
    assert 'Traceback' not in said.stderr
    assert 'It begins with http' in vidcls('ask', 'localhost', clips).stderr


def test_the_client_is_typed(client, clips, monkeypatch):
    answer = client.predict(clips/'0.mp4', top_k=2, views='2', model='small')
    assert (answer.model, answer.views, len(answer.top)) == ('small', 2, 2)
    assert client.predict([clips/'0.mp4'], top_k=2, views='2') == [answer]
    assert client.windows(clips/'0.mp4', every_s=1, length_s=1).n_windows == 3
    assert client.models()[0].labels == ['left', 'right', '<b>up</b>']
    with pytest.raises(RequestError, match='scores only') as e:
        client.embed(clips/'0.mp4')
    assert e.value.status == 409
    monkeypatch.setenv('VIDCLS_KEY', KEY)
    assert ServiceClient(client.url + '/').models() == client.models()


def test_a_busy_service_is_asked_again(clips, monkeypatch):
    "A stand-in that is busy twice, and hangs up once."
    said = [httpx.Response(429, headers={'retry-after': after}) for after in ('0', 'soon')]
    said.append(httpx.Response(200, json=[]))
    waited, got = [], []
    monkeypatch.setattr('vidcls.serve.client.patiently.__defaults__', (5, waited.append))
    def answer(request):
        got.append(request)
        return said[len(got) - 1]
    client = ServiceClient('http://here')
    client.http = httpx.Client(transport=httpx.MockTransport(answer))
    assert client.models() == [] and waited == [0, 1]
    def hang_up(request): raise httpx.ReadError('reset')
    client.http = httpx.Client(transport=httpx.MockTransport(hang_up))
    with pytest.raises(VidclsError, match='larger than the service takes'):
        client.models()
    client.http = httpx.Client(transport=httpx.MockTransport(lambda r: httpx.Response(429)))
    with pytest.raises(RequestError, match='429'):
        client.models()
    assert len(waited) == 6


def test_an_exported_run_keeps_its_record(tmp_path):
    "From the folder of a run to what its service says of itself."
    net = create_model('i3d_tiny', n_classes=2, n_frames=4, size=32)
    Classifier(net, ['left', 'right']).save(tmp_path/'run'/'classifier')
    (tmp_path/'run'/'record.json').write_text(json.dumps({'video_top1': .75, 'n_evaluated': 40}))
    said = vidcls('export', tmp_path/'run', '--out', tmp_path/'run.onnx')
    assert said.returncode == 0, said.stderr
    with serving(tmp_path/'run.onnx') as (url, _):
        assert ServiceClient(url, KEY).models()[0].record == {'video_top1': .75, 'n_evaluated': 40}
