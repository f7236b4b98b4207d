"The service gives the answers of Python and of the command line, within its limits, and ends well."
import json
import os
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import cv2
import numpy as np
import psutil
import pytest

httpx = pytest.importorskip('httpx', reason='needs the extra serve')
pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('onnxruntime', reason='needs the extra deploy')
pytest.importorskip('onnxscript', reason='needs the extra deploy')

import torch
from hostile import HOSTILE, encode, ffmpeg, numbered
from services import RUN, free_port, wait_until_ready

from vidcls.data.decode import write_video
from vidcls.deploy.export import example_clips, export
from vidcls.deploy.runtime import RuntimeClassifier
from vidcls.locks import lock_folder
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.streams import watch

KEY = 'naïve secret'
posix = pytest.mark.skipif(os.name == 'nt', reason='signals of POSIX')


@contextmanager
def served(folder, *words, key=None, **env):
    "Run a service for the block; gives its address, its process and the file of its log."
    port, log = free_port(), folder/f'log{time.monotonic_ns()}.txt'
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'VIDCLS_KEY': key or '', 'PYTHONUNBUFFERED': '1', **env}
    with log.open('w') as out:
        process = subprocess.Popen([*RUN, 'serve', *map(str, words), '--port', str(port)], env=env,
                                   stdout=out, stderr=out)
        try:
            wait_until_ready(f'http://127.0.0.1:{port}', process)
            yield f'http://127.0.0.1:{port}', process, log
        finally:
            process.terminate()
            process.wait(40)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A classifier whose scores differ from clip to clip: as a folder, as files, and with sets of labels."
    d = tmp_path_factory.mktemp('serve')
    torch.manual_seed(0)
    net = create_model('i3d_tiny', n_classes=5, n_frames=8, size=32)
    x = net.spec.to_model(torch.from_numpy(example_clips(net.spec, 8)))
    with torch.no_grad():
        net.train()
        for _ in range(3):
            net(x)
        spread = net.eval()(x).std()
        for p in net.head.parameters():
            p.mul_(1/spread)
    clf = Classifier(net, list('abcde'))
    clf.save(d/'small')
    export(clf, d/'small.onnx')
    try:
        import openvino  # noqa: F401
        export(clf, d/'small.xml')
    except ImportError:
        pass
    sets = Classifier(net, list('abcde'), task='multi-label', thresholds=np.full(5, .5))
    sets.save(d/'sets')
    return d


@pytest.fixture(scope='module')
def models(folder):
    "{name: (path, the classifier as Python opens it)}"
    found = {'folder': folder/'small', 'onnx': folder/'small.onnx', 'sets': folder/'sets'}
    if (folder/'small.xml').exists():
        found['xml'] = folder/'small.xml'
    opened = {n: RuntimeClassifier(p, threads=1) if p.suffix else Classifier.load(p) for n,p in found.items()}
    return {n: (p, opened[n]) for n,p in found.items()}


@pytest.fixture(scope='module')
def service(folder, models):
    words = [f'{n}={p}' for n,(p,_) in models.items()]
    with served(folder, *words, '--decoders', 1, '--threads', 1) as s:
        yield s


def turned(path):
    "A clip that a phone held upright."
    raw = encode(path.with_suffix('.src.mp4'), g=30)
    ffmpeg('-display_rotation', 90, '-i', raw, '-c', 'copy', path)


CONTAINERS = HOSTILE | {'turned.mp4': turned, 'clip.mkv': lambda p: encode(p, g=30), 'turned.mov': turned}

@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    d = tmp_path_factory.mktemp('containers')
    for name,make in CONTAINERS.items():
        make(d/name)
    return d


def ask(url, path, where='/predict', **params):
    with open(path, 'rb') as f:
        return httpx.post(url + where, params=params, files={'file': f}, timeout=60)


def same_ranking(a, b):
    "Are two lists of labels and scores the same, to 1e-6?"
    assert [x['label'] for x in a] == [x['label'] for x in b]
    np.testing.assert_allclose([x['score'] for x in a], [x['score'] for x in b], atol=1e-6, rtol=0)


# The same answers

@pytest.mark.parametrize('name', CONTAINERS)
def test_every_container_gives_the_answer_of_python(service, models, clips, name):
    url = service[0]
    for model,(_, clf) in models.items():
        said = ask(url, clips/name, model=model)
        assert said.status_code == 200, said.text
        same_ranking(said.json()['top'], clf.predict(clips/name))
    raw = httpx.post(f'{url}/predict', params={'model': model}, content=(clips/name).read_bytes())
    same_ranking(raw.json()['top'], said.json()['top'])


def test_the_command_line_says_the_same(service, models, clips):
    names = ['plain.mp4', 'turned.mp4', 'vp9.webm', 'loop.gif']
    for model in ('onnx', 'folder'):
        words = [*RUN, 'predict', models[model][0], *(clips/n for n in names), '--json', '--top-k', 5]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
        for name,line in zip(names, said, strict=True):
            found = ask(service[0], clips/name, model=model).json()
            same_ranking(line['answer'], found['top'])


def test_views_top_k_and_frames(service, models, clips):
    url, clip = service[0], clips/'plain.mp4'
    for model in models:
        for views in ('3', 'timesformer', 'swin'):
            said = ask(url, clip, model=model, views=views).json()
            from vidcls.view_clips import Views
            how = Views(clips=3) if views == '3' else views
            same_ranking(said['top'], models[model][1].predict(clip, views=how))
    assert len(ask(url, clip, model='onnx', top_k=2).json()['top']) == 2
    whole, part = (ask(url, clip, model='sets', top_k=k).json() for k in (5, 1))
    assert whole['label'] == part['label'] and len(part['top']) == 1 < len(whole['label'].split('|'))
    frames = ask(url, clip, model='onnx', frames=True).json()['frames']
    assert len(frames) == 8 and frames[0].startswith('data:image/jpeg;base64,')
    for bad in (dict(top_k=0), dict(top_k='x'), *(dict(views=v) for v in ('0', '²', '99', 'x'))):
        said = ask(url, clip, **bad)
        assert (said.status_code, set(said.json())) == (422, {'status', 'error', 'request_id'}), bad
        assert next(iter(bad)) in said.json()['error']
    assert ask(url, clip, model='none').status_code == 404


def test_windows_are_those_of_python(service, models, clips):
    for model in ('folder', 'onnx', 'sets'):
        for name in ('plain.mp4', 'vfr.mp4'):
            how = dict(model=model, every_s=.25, length_s=.5)
            said = ask(service[0], clips/name, '/predict/windows', **how).json()
            found = models[model][1].predict_windows(clips/name, .25, .5, show=False)
            table = json.loads(found.segments().to_json(orient='records'))
            assert said['n_windows'] == len(found) + len(found.failures)
            assert len(said['segments']) == len(table)
            for a,b in zip(said['segments'], table):
                assert abs(a.pop('confidence') - b['confidence']) < 1e-6
                assert a == {k: b[k] for k in a}


def test_features_are_those_of_vidcls_embed(service, models, clips, tmp_path):
    from vidcls.features import embed
    (tmp_path/'a').mkdir()
    (tmp_path/'a'/'plain.mp4').write_bytes((clips/'plain.mp4').read_bytes())
    found = embed(models['folder'][1].model, [tmp_path/'a'/'plain.mp4'], show=False)
    said = ask(service[0], clips/'plain.mp4', '/embed', model='folder').json()
    np.testing.assert_allclose(said['features'], found.x[0], atol=1e-6)
    assert ask(service[0], clips/'plain.mp4', '/embed', model='onnx').status_code == 409


def test_many_at_once_get_their_own_answers(service, models, clips):
    names = ['plain.mp4', 'turned.mp4', 'vfr.mp4', 'mjpeg.mov', 'clip.mkv', 'transport.ts']
    alone = {n: ask(service[0], clips/n, model='onnx').json()['top'] for n in names}
    with ThreadPoolExecutor(12) as pool:
        for n,said in [(n, pool.submit(ask, service[0], clips/n, model='onnx')) for n in names*6]:
            same_ranking(said.result().json()['top'], alone[n])


# Limits, key, headers

def test_headers_and_no_cors(service, clips):
    url = service[0]
    other = {'origin': 'http://elsewhere.example'}
    said = httpx.get(f'{url}/models', headers=other | {'x-request-id': 'mine-1'})
    assert said.headers['x-content-type-options'] == 'nosniff' and said.headers['x-request-id'] == 'mine-1'
    assert "default-src 'none'" in said.headers['content-security-policy']
    assert not [h for h in said.headers if h.startswith('access-control')]
    said = httpx.options(f'{url}/predict', headers=other | {'access-control-request-method': 'POST'})
    assert said.status_code == 405 and not [h for h in said.headers if h.startswith('access-control')]
    assert httpx.get(f'{url}/nowhere').json()['status'] == 404
    assert httpx.get(f'{url}/predict').headers['allow'] == 'POST'


def test_key(folder, clips):
    with served(folder, folder/'small.onnx', '--decoders', 1, key=KEY) as (url, _, log):
        assert ask(url, clips/'plain.mp4').status_code == 401
        for wrong in ('', 'x', KEY[:-1]):
            assert httpx.get(f'{url}/models', headers={'x-api-key': wrong.encode()}).status_code == 401
        right = {'x-api-key': KEY.encode()}
        assert httpx.get(f'{url}/models', headers=right).status_code == 200
        for free in ('/healthz', '/readyz'):
            assert httpx.get(url + free).status_code == 200
        for closed in ('/metrics', '/openapi.json', '/predict/windows'):
            assert httpx.get(url + closed).status_code == 401
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{')]
        assert lines and {'time', 'id', 'status', 'path', 'method', 'ms', 'bytes'} <= set(lines[0])
        assert KEY not in log.read_text()


def test_ready_soon_and_without_torch(folder):
    start = time.monotonic()
    with served(folder, folder/'small.onnx', '--decoders', 2) as (url, process, _):
        assert time.monotonic() - start < 5 or os.getloadavg()[0] > 2
        if Path('/proc').is_dir():
            for pid in [process.pid, *children(process.pid)]:
                assert 'libtorch' not in Path(f'/proc/{pid}/maps').read_text()


def children(pid):
    return [p.pid for p in psutil.Process(pid).children(recursive=True)]


def long_clip(folder):
    "A video that takes a while to decode."
    frames = np.random.default_rng(0).integers(0, 255, (40, 300, 400, 3), np.uint8)
    return Path(write_video(folder/'long.mp4', np.concatenate([frames]*4), fps=25))


@pytest.fixture(scope='module')
def slow_clip(tmp_path_factory): return long_clip(tmp_path_factory.mktemp('slow'))


def test_timeouts_and_a_full_queue(folder, clips, slow_clip):
    "504 where the time is over, 429 where there is no place; the next request finds the service well."
    words = ['--decoders', 1, '--limit', 'timeout_s=.5', '--limit', 'waiting=4']
    with served(folder, folder/'small.onnx', *words) as (url, process, _):
        for _ in range(20):                                   # a decoder that just began is slow once
            if ask(url, clips/'plain.mp4').status_code == 200:
                break
        with ThreadPoolExecutor(12) as pool:
            said = list(pool.map(lambda _: ask(url, slow_clip, views=30), range(12)))
        statuses = [s.status_code for s in said]
        assert set(statuses) == {429, 504} and all(s.headers['retry-after'] for s in said)
        for _ in range(20):
            if (found := ask(url, clips/'plain.mp4')).status_code == 200:
                break
        assert found.status_code == 200, found.text
        assert not uploads(process)


def uploads(process):
    "Files in the folder of uploads of a service."
    names = [f.path for f in psutil.Process(process.pid).open_files()]
    found = []
    for d in Path(tempfile.gettempdir()).glob('vidcls-uploads-*'):
        try:
            lock_folder(d, wait_s=0).release()
        except BlockingIOError:
            found += d.iterdir()
    return found + [n for n in names if 'vidcls-uploads' in n]


def test_who_goes_frees_the_decoder(service, clips, slow_clip):
    url, process, log = service
    for _ in range(3):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f'{url}/predict', params={'views': 30, 'model': 'onnx'}, timeout=.3,
                       content=slow_clip.read_bytes())
    start = time.monotonic()
    assert ask(url, clips/'plain.mp4').status_code == 200
    assert time.monotonic() - start < 8
    assert '"status": 499' in log.read_text()
    end = time.monotonic() + 10
    while uploads(process) and time.monotonic() < end:       # the last one may be on its way out
        time.sleep(.1)
    assert 'Traceback' not in log.read_text() and not uploads(process)


@posix
@pytest.mark.parametrize('kind', [signal.SIGTERM, signal.SIGINT])
def test_the_end_waits_for_answers(folder, slow_clip, clips, kind):
    "A request that is inside is answered, though the signal goes to the decoders, too."
    with served(folder, folder/'small.onnx', '--decoders', 1) as (url, process, log):
        with ThreadPoolExecutor(1) as pool:
            said = pool.submit(ask, url, slow_clip, views=30)
            time.sleep(.4)
            for pid in [*children(process.pid), process.pid]:
                os.kill(pid, kind)
            assert said.result().status_code == 200
        assert process.wait(20) in (0, -kind, 128 + kind)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f'{url}/readyz')
    assert 'Traceback' not in log.read_text().replace('KeyboardInterrupt', ''), log.read_text()


@posix
def test_uploads_of_the_dead_are_removed(folder, tmp_path):
    "A service that is killed leaves a folder; the next one removes it, and not that of a living one."
    where = {'TMPDIR': str(tmp_path)}
    with served(folder, folder/'small.onnx', '--decoders', 1, **where):
        living = set(tmp_path.glob('vidcls-uploads-*'))
        with served(folder, folder/'small.onnx', '--decoders', 1, **where) as (_, process, _log):
            pids = children(process.pid)
            process.kill()
            process.wait()
        dead = set(tmp_path.glob('vidcls-uploads-*')) - living
        for d in (*living, *dead):
            os.utime(d, (1, 1))
        assert len(living) == len(dead) == 1
        with served(folder, folder/'small.onnx', '--decoders', 1, **where):
            assert not next(iter(dead)).exists() and next(iter(living)).exists()
    assert not list(tmp_path.glob('vidcls-*'))
    until = time.monotonic() + 10
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < until, 'decoders outlive their service'
        time.sleep(.1)


def test_several_workers_count_together(folder, clips, tmp_path):
    where = {'TMPDIR': str(tmp_path)}
    with served(folder, folder/'small.onnx', '--decoders', 1, '--workers', 2, **where) as (url, _, _log):
        for _ in range(6):
            assert ask(url, clips/'plain.mp4').status_code == 200
        found = [httpx.get(f'{url}/metrics').text for _ in range(4)]
    assert all('vidcls_requests_total{path="/predict",status="200"} 6.0' in t for t in found), found[0]
    assert not list(tmp_path.glob('vidcls-*'))


# Streams

def stream(url, messages, headers=None, **params):
    "Send messages to /stream; return what is said until the end."
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    address = f'{url.replace("http", "ws")}/stream?{urlencode(params)}'
    found = []
    with connect(address, additional_headers=headers, max_size=None) as socket:
        def send():
            try:
                for m in messages:
                    socket.send(m if isinstance(m, bytes) else json.dumps(m))
            except ConnectionClosed:
                pass
        with ThreadPoolExecutor(1) as pool:
            pool.submit(send)
            try:
                while True:
                    found.append(json.loads(socket.recv(timeout=60)))
            except ConnectionClosed:
                return found


HOW = dict(every_s=.25, length_s=.5)

def same_windows(said, watched):
    "Are the messages of a stream the answers of `watch`?"
    *said, last = said
    assert last['done'] and last['windows'] == len(said) == len(watched) > 4
    for a,b in zip(said, watched):
        assert abs(a['start'] - b.start) < 1e-9 and abs(a['end'] - b.end) < 1e-9
        assert a['label'] == b.label and a['reason'] == b.reason and abs(a['score'] - b.score) < 1e-6


def jpegs(n=50):
    return [cv2.imencode('.jpg', f[...,::-1])[1].tobytes() for f in numbered(n)]


def test_frames_get_the_answers_of_watch(service, models):
    "With a rate, and with the time of each frame."
    pictures = jpegs()
    seen = [cv2.imdecode(np.frombuffer(p, np.uint8), 1)[...,::-1] for p in pictures]
    for model in ('onnx', 'sets'):
        wanted = list(watch(models[model][1], iter(seen), fps=25, **HOW))
        same_windows(stream(service[0], [*pictures, {'end': True}], model=model, fps=25, **HOW), wanted)
    times = np.cumsum(np.random.default_rng(0).uniform(.01, .06, 50)).tolist()
    wanted = list(watch(models['onnx'][1], zip(times, seen), **HOW))
    said = [m for t,p in zip(times, pictures) for m in ({'time': t}, p)]
    same_windows(stream(service[0], [*said, {'end': True}], model='onnx', **HOW), wanted)


@pytest.mark.parametrize('name', ['vp9.webm', 'clip.mkv', 'fragmented.mp4', 'transport.ts', 'vfr.mkv'])
def test_chunks_get_the_answers_of_the_file(service, models, clips, name, tmp_path):
    "A file, a stream and the service give the same answers on the same frames."
    path = clips/name
    if name == 'vfr.mkv':
        ffmpeg('-i', clips/'vfr.mp4', '-c', 'copy', path := tmp_path/name)
    content = path.read_bytes()
    chunks = [content[i:i+5000] for i in range(0, len(content), 5000)]
    said = stream(service[0], [*chunks, {'end': True}], model='onnx', kind='video', **HOW)
    same_windows(said, list(watch(models['onnx'][1], path, pace=False, **HOW)))
    found = models['onnx'][1].predict_windows(path, **HOW, show=False)
    np.testing.assert_allclose([a['score'] for a in said[:-1]], found.probs.max(1), atol=1e-6)


def test_streams_that_are_refused(service, slow_clip):
    url, picture = service[0], jpegs(1)[0]
    big = cv2.imencode('.jpg', np.zeros((3000, 3000, 3), np.uint8))[1].tobytes()
    whole = slow_clip.read_bytes()                          # a large MP4 file, its index at the end
    at_end = [whole[i:i+2**20] for i in range(0, len(whole), 2**20)]
    for messages,params,status in (
        ([picture], {}, 422), ([b'GIF89a...'], dict(fps=9), 415), ([picture[:-99]], dict(fps=9), 415),
        ([big], dict(fps=9), 415), (['x'], dict(fps=9), 422), ([{'time': 'x'}], {}, 422),
        ([{'time': float('nan')}], {}, 422), ([b'x'*9999, {'end': True}], dict(kind='video'), 415),
        ([b'#EXTM3U\n#EXTINF:1,\n/etc/passwd\n', {'end': True}], dict(kind='video'), 415),
        ([*at_end, {'end': True}], dict(kind='video'), 415), ([picture], dict(model='none', fps=9), 404),
    ):
        said = stream(url, messages, **{'model': 'onnx', **params})
        assert said[-1].get('status') == status, (said, params)
        assert set(said[-1]) == {'status', 'error', 'request_id'}
    from websockets.exceptions import InvalidStatus
    for headers,params in (({'origin': 'http://elsewhere.example'}, {}), (None, {'kind': 'nonsense'})):
        with pytest.raises(InvalidStatus, match='403'):
            stream(url, [], headers, **params)
    host = {'origin': url}
    assert stream(url, [picture, {'end': True}], host, model='onnx', fps=9)[-1]['done']
    assert len(children(service[1].pid)) == 1, 'a stream leaves its decoder behind'


def test_streams_have_limits_and_a_key(folder):
    pictures = jpegs(30)
    words = ['--limit', 'long_s=3', '--limit', 'upload_s=1', '--limit', 'max_mb=.05', '--decoders', 1]
    with served(folder, folder/'small.onnx', *words, key=KEY) as (url, process, log):
        def asked(*messages, **how):
            return stream(url, messages, fps=25, **how)[-1]
        assert asked({'key': 'wrong'})['status'] == asked(pictures[0])['status'] == 401
        assert asked({'key': KEY}, *pictures[:9], {'end': True})['done']
        shown = {'x-api-key': KEY.encode().decode('latin-1')}             # as websockets wants it
        assert asked(*pictures[:9], {'end': True}, headers=shown)['done']
        assert asked({'key': KEY}, *pictures*9)['status'] == 413
        assert asked({'key': KEY})['status'] == 408
        def dripping():
            yield {'key': KEY}
            for p in pictures:
                time.sleep(.2)
                yield p
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(lambda: stream(url, dripping(), fps=25)[-1])
            time.sleep(.8)
            assert asked({'key': KEY}, pictures[0])['status'] == 429
            assert first.result()['status'] in (413, 504)
        until = time.monotonic() + 5
        while len(children(process.pid)) > 1:
            assert time.monotonic() < until
            time.sleep(.1)
        assert KEY not in log.read_text() and 'Traceback' not in log.read_text()
