"""Faults 77 to 88 against a running service: each has its status, and nothing is left behind.

VIDCLS_MUTATIONS: how many damaged uploads are sent; VIDCLS_SCHEMA_EXAMPLES: how many requests schemathesis
makes for each address.
"""
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

httpx = pytest.importorskip('httpx', reason='needs the extra serve')
pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('onnxruntime', reason='needs the extra deploy')
pytest.importorskip('onnxscript', reason='needs the extra deploy')

import psutil
from hostile import BROKEN, encode, mutate, numbered
from services import small_model
from test_serve import ask, children, posix, same_ranking, served

from vidcls.deploy.runtime import RuntimeClassifier

LIMITS = ['max_mb=2', 'max_s=60', 'max_pixels=1000000', 'max_frames=2000', 'upload_s=2', 'timeout_s=10',
          'waiting=24']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp('faults')
    small_model(d)
    encode(d/'good.mp4', g=30)
    return d


@pytest.fixture(scope='module')
def service(folder):
    tmp = folder/'tmp'
    tmp.mkdir()
    words = [w for limit in LIMITS for w in ('--limit', limit)]
    with served(folder, folder/'small.onnx', '--decoders', 2, '--threads', 1, *words, TMPDIR=str(tmp)) as s:
        yield s


@pytest.fixture(scope='module')
def right(folder):
    return RuntimeClassifier(folder/'small.onnx', threads=1).predict(folder/'good.mp4')


def check_well(service, folder, right):
    "A good request is answered rightly, and nothing is left behind."
    url, process, log = service
    said = ask(url, folder/'good.mp4')
    assert said.status_code == 200, said.text
    same_ranking(said.json()['top'], right)
    until = time.monotonic() + 10
    while list((folder/'tmp').glob('vidcls-uploads-*/*')) or open_sockets(process) > 1:
        assert time.monotonic() < until, 'uploads or connections are left behind'
        time.sleep(.1)
    assert len(children(process.pid)) <= 2
    assert {p.name.split('-')[0] for p in (folder/'tmp').iterdir()} <= {'vidcls'}
    assert 'Traceback' not in log.read_text(), log.read_text()[-3000:]


def open_sockets(process):
    "How many connections and sockets that listen on the network it has."
    return len(psutil.Process(process.pid).net_connections('inet'))


def send_raw(url, content, more=(), wait_s=0., read_s=20):
    "Send bytes as they are, part by part; return the status and the body of the answer, (0, b'') if none."
    to = urlsplit(url)
    with socket.create_connection((to.hostname, to.port), timeout=read_s) as s:
        try:
            s.sendall(content)
            for part in more:
                time.sleep(wait_s)
                s.sendall(part)
        except OSError:                                    # it has answered and closed already
            pass
        found = b''
        try:
            while part := s.recv(65536):
                found += part
        except OSError:
            pass
    head, _, body = found.partition(b'\r\n\r\n')
    return (int(head.split()[1]) if head else 0), body


def head(url, length=None, path='/predict', kind='video/mp4', chunked=False):
    "The head of a request."
    lines = [f'POST {path} HTTP/1.1', f'Host: {urlsplit(url).netloc}', f'Content-Type: {kind}']
    lines += [] if length is None else [f'Content-Length: {length}']
    lines += ['Transfer-Encoding: chunked'] if chunked else []
    return '\r\n'.join([*lines, 'Connection: close', '', '']).encode()


def form(*files, boundary='b', end=True):
    "A body of files: (field, name as bytes, content)."
    body = b''
    for field,name,content in files:
        start = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="'.encode()
        body += start + name + b'"\r\nContent-Type: video/mp4\r\n\r\n' + content + b'\r\n'
    return body + (f'--{boundary}--\r\n'.encode() if end else b'')


def post(url, content, kind='video/mp4', path='/predict'):
    said = httpx.post(url + path, content=content, headers={'content-type': kind}, timeout=60)
    return said.status_code, said.content


# The faults, each a function of (address, folder) that returns the status, and the statuses that are right

def too_large(length, chunked=False, sent=0):
    "77: what is said of the length, and what comes."
    def send(url, folder):
        part = (b'10000\r\n' + bytes(2**16) + b'\r\n') if chunked else bytes(2**16)
        return send_raw(url, head(url, length, chunked=chunked), [part]*sent)
    return send


def with_form(*files, kind='multipart/form-data; boundary=b', **how):
    "78 and 79: a form that is odd."
    def send(url, folder):
        good = (folder/'good.mp4').read_bytes()
        made = [(field, name, good if content is None else content) for field,name,content in files]
        return post(url, form(*made, **how), kind)
    return send


def with_file(make, name):
    "80 to 83: a file."
    def send(url, folder):
        with tempfile.TemporaryDirectory(dir=folder) as d:
            make(path := Path(d)/name)
            return post(url, path.read_bytes())
    return send


def listing(text):
    def send(url, folder): return post(url, text.replace('GOOD', str(folder/'good.mp4')).encode())
    return send


def bomb_of_seconds(path):
    encode(path, frames=numbered(20), pts=np.arange(20)*250)


def bomb_of_frames(path):
    encode(path, frames=np.zeros((2100, 16, 16, 3), np.uint8), g=250)


def bomb_of_pixels(path):
    encode(path, 'mpeg4', frames=np.zeros((3, 1200, 1600, 3), np.uint8))


def of_codec(codec, pix_fmt):
    def make(path): encode(path, codec, frames=numbered(20), pix_fmt=pix_fmt)
    return make


HLS = '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://GOOD\n#EXT-X-ENDLIST\n'
DASH = ('<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        '<AdaptationSet><Representation id="1"><BaseURL>file://GOOD</BaseURL></Representation></AdaptationSet></Period></MPD>')

FAULTS = {
    '77 says too much': (too_large(10**12), {413}),
    '77 says a negative length': (too_large(-1), {400, 413}),
    '77 says no number': (too_large('²'), {400, 413}),
    '77 sends more than it says': (too_large(99, sent=40), {415, 422}),
    '77 sends less than it says': (too_large(10**6, sent=1), {408}),
    '77 chunk by chunk': (too_large(None, True, 60), {413}),
    '78 no file': (with_form(), {400, 422}),
    '78 empty file': (with_form(('file', b'a.mp4', b'')), {422}),
    '78 empty body': (lambda url, folder: post(url, b''), {422}),
    '78 wrong field': (with_form(('video', b'a.mp4', None)), {422}),
    '78 two files': (with_form(('file', b'a.mp4', None), ('file', b'b.mp4', None)), {400, 422}),
    '78 no boundary': (with_form(('file', b'a.mp4', None), kind='multipart/form-data'), {400}),
    '78 other boundary': (with_form(('file', b'a.mp4', None), boundary='c'), {400, 422}),
    '78 no end': (with_form(('file', b'a.mp4', None), end=False), {400, 422}),
    '78 JSON': (lambda url, folder: post(url, b'{"file": "x"}', 'application/json'), {415}),
    '81 HLS': (listing(HLS), {415}),
    '81 ffconcat': (listing("ffconcat version 1.0\nfile 'GOOD'\n"), {415}),
    '81 SDP': (listing('v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n'), {415}),
    '81 DASH': (listing(DASH), {415}),
    '82 seconds': (with_file(bomb_of_seconds, 'a.mp4'), {413}),
    '82 frames': (with_file(bomb_of_frames, 'a.mp4'), {413}),
    '82 pixels': (with_file(bomb_of_pixels, 'a.mp4'), {413}),
    '83 ffv1': (with_file(of_codec('ffv1', 'yuv420p'), 'a.mkv'), {415}),
    '83 huffyuv': (with_file(of_codec('huffyuv', 'yuv422p'), 'a.avi'), {415}),
    '83 magicyuv': (with_file(of_codec('magicyuv', 'gbrp'), 'a.avi'), {415}),
    '84 slow': (lambda url, folder: send_raw(url, head(url, 5000), [b'x']*9, .4), {408}),
    '88 address': (lambda url, folder: post(url, b'http://127.0.0.1:9/a.mp4'), {415}),
}
ODD_NAMES = {'up': b'../../x.mp4', 'back': b'..\\\\..\\\\x.mp4', 'nul': b'a\0b.mp4', 'long': b'a'*4096,
             'absolute': b'/etc/passwd', 'html': b'<img src=x onerror=alert(1)>.mp4', 'bytes': b'\xff\xfe'}
FAULTS |= {f'79 {k}': (with_form(('file', name, None)), {200}) for k,name in ODD_NAMES.items()}
FAULTS |= {f'80 {name}': (with_file(make, name), {415, 422, 200} if name.startswith('holed') else {415, 422})
           for name,(make, _) in BROKEN.items()}


def run(fault, url, folder):
    "Run one fault, and check its status and the form of its answer."
    send, wanted = FAULTS[fault]
    status, body = send(url, folder)
    assert status in wanted, (fault, status, body[:300])
    if status != 200 and (status != 400 or not fault.startswith('77')):   # uvicorn answers what is no HTTP
        said = json.loads(body)
        assert set(said) == {'status', 'error', 'request_id'} and said['status'] == status, (fault, said)
        assert said['error'].endswith('.') and str(folder) not in said['error'], (fault, said)
    return status


@pytest.mark.parametrize('fault', FAULTS)
def test_each_fault_has_its_status(service, folder, fault):
    run(fault, service[0], folder)
    assert service[1].poll() is None


def test_after_each_of_them(service, folder, right):
    check_well(service, folder, right)
    assert not list(folder.rglob('x.mp4'))


def test_all_together_under_load(service, folder, right):
    "In a random order, twelve at once; then the service is as it was."
    url, process, _ = service
    proc = psutil.Process(process.pid)
    before = proc.num_fds() if hasattr(proc, 'num_fds') else 0
    work = [f for f in FAULTS if '82' not in f]*2 + ['good']*40
    random.Random(0).shuffle(work)
    with ThreadPoolExecutor(12) as pool:
        def one(f):
            return ask(url, folder/'good.mp4').status_code if f == 'good' else run(f, url, folder)
        statuses = Counter(zip(work, pool.map(one, work)))
    assert {status for (f, status) in statuses if f == 'good'} == {200}
    check_well(service, folder, right)
    if before:
        assert proc.num_fds() <= before + 8


def test_no_address_is_fetched(service, folder):
    "81, 88: a local server would know."
    asked = []
    class Ears(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)
    ears = HTTPServer(('127.0.0.1', 0), Ears)
    threading.Thread(target=ears.serve_forever, daemon=True).start()
    there = f'http://127.0.0.1:{ears.server_port}/a.mp4'
    texts = [*(t.replace('file://GOOD', there) for t in (HLS, DASH)), there,
             f"ffconcat version 1.0\nfile '{there}'\n"]
    assert {post(service[0], t.encode())[0] for t in texts} == {415}
    assert httpx.post(f'{service[0]}/predict', params={'url': there}, content=b'').status_code == 422
    assert httpx.post(f'{service[0]}/predict', data={'file': there}).status_code in (400, 415, 422)
    ears.shutdown()
    assert not asked


def test_a_hundred_at_once_and_slow_ones(service, folder, right):
    "84: who finds no place is sent away at once; twenty slow clients don't keep others out."
    url = service[0]
    slow = [threading.Thread(target=send_raw, args=(url, head(url, 5000), [b'x']*9, .4)) for _ in range(20)]
    for t in slow:
        t.start()
    time.sleep(.3)
    assert ask(url, folder/'good.mp4').status_code == 200
    with ThreadPoolExecutor(100) as pool:
        said = list(pool.map(lambda _: ask(url, folder/'good.mp4'), range(100)))
    counts = Counter(s.status_code for s in said)
    assert set(counts) == {200, 429}, counts
    assert all(s.headers['retry-after'] for s in said if s.status_code == 429)
    for t in slow:
        t.join()
    check_well(service, folder, right)


@posix
def test_a_decoder_is_killed_in_the_middle(service, folder, right):
    "It costs the requests that it worked for, and no other one."
    url, process, _ = service
    with ThreadPoolExecutor(8) as pool:
        said = [pool.submit(ask, url, folder/'good.mp4', views=30) for _ in range(24)]
        for _ in range(3):
            time.sleep(.1)
            for pid in children(process.pid)[:1]:
                os.kill(pid, signal.SIGKILL)
        counts = Counter(s.result().status_code for s in said)
    assert set(counts) <= {200, 422, 503} and counts[200] >= 24 - 2*3, counts
    check_well(service, folder, right)


def send_mutations(url, sources, total, seed=0):
    "Send damaged files; return how often each status came."
    rng, counts = np.random.default_rng(seed), Counter()
    jobs = [(sources[i % len(sources)], mutate(sources[i % len(sources)].read_bytes(), rng))
            for i in range(total)]
    def one(job):
        path = random.Random(len(job[1])).choice(['/predict', '/predict', '/predict/windows'])
        return post(url, job[1], path=path)
    with ThreadPoolExecutor(4) as pool:
        for (source, _), (status, body) in zip(jobs, pool.map(one, jobs)):
            assert status in (200, 413, 415, 422), (source, status, body[:300])
            counts[status] += 1
    return counts


def test_mutated_uploads(service, folder, right):
    sources = [
        folder/'good.mp4',
        encode(folder/'vp9.webm', 'libvpx-vp9', numbered(30), g=10, cpu_used=8, deadline='realtime'),
        encode(folder/'a.ts', frames=numbered(30), g=10),
        encode(folder/'m.avi', 'mpeg4', numbered(30), g=10, bf=1),
        encode(folder/'a.gif', 'gif', numbered(20), pix_fmt='rgb8'),
        encode(folder/'m.mov', 'mjpeg', numbered(20), pix_fmt='yuvj420p', qscale=8),
    ]
    counts = send_mutations(service[0], sources, int(os.environ.get('VIDCLS_MUTATIONS', 150)))
    print(counts)
    assert counts[200] and counts[415] + counts[422]
    check_well(service, folder, right)


def test_schemathesis(service, folder, right):
    "Requests made from the OpenAPI document: no mistake of the service, all answers as the document says."
    pytest.importorskip('schemathesis')
    n = os.environ.get('VIDCLS_SCHEMA_EXAMPLES', '4')
    checks = ('not_a_server_error,status_code_conformance,content_type_conformance,'
              'response_schema_conformance,unsupported_method')
    done = subprocess.run(
        [sys.executable, '-m', 'schemathesis.cli', 'run', f'{service[0]}/openapi.json', '--checks', checks,
         '-n', n, '--phases', 'examples,coverage,fuzzing', '--seed', '0', '--no-color',
         '--suppress-health-check', 'all'],
        capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    check_well(service, folder, right)


@posix
def test_a_full_disk(folder, small_disk):
    "507 where there is no room for the upload; then, with room, an answer."
    with small_disk(folder/'disk', '300k') as place:
        with served(folder, folder/'small.onnx', '--decoders', 1, TMPDIR=str(place)) as (url, _, log):
            for kind in ('video/mp4', 'multipart/form-data; boundary=b'):
                content = bytes(2**21) if kind == 'video/mp4' else form(('file', b'a.mp4', bytes(2**21)))
                status, body = post(url, content, kind)
                assert status == 507, body
                assert ask(url, folder/'good.mp4').status_code == 200
            assert 'Traceback' not in log.read_text()


def test_not_ready_before_the_start():
    "87: 503 until the decoders run; health is another question."
    import asyncio
    from vidcls.serve.app import Service, create_app
    async def asked():
        transport = httpx.ASGITransport(create_app(Service({}, decoders=1)))
        async with httpx.AsyncClient(transport=transport, base_url='http://here') as client:
            return [(await client.get(p)).status_code for p in ('/readyz', '/healthz')]
    assert asyncio.run(asked()) == [503, 200]


def test_a_missing_model_is_said_at_once(folder):
    done = subprocess.run([sys.executable, '-m', 'vidcls.cli', 'serve', str(folder/'none.onnx')],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode and 'none.onnx' in done.stderr + done.stdout
    assert 'Traceback' not in done.stderr


def test_nothing_is_reported(service, folder):
    "No telemetry: where onnxruntime reports to its maker, it keeps a file .ses among temporary files."
    assert ask(service[0], folder/'good.mp4').status_code == 200
    assert not (folder/'tmp'/'.ses').exists()
    far = [c for pid in [service[1].pid, *children(service[1].pid)]
           for c in psutil.Process(pid).net_connections('inet') if c.raddr and c.raddr.ip != '127.0.0.1']
    assert not far


def test_who_sends_too_much_gets_to_read_why(service):
    "The answer comes while the body is still sent, and the connection is not reset before it is read."
    url, *_ = service
    body = (b'0'*1_000_000 for _ in range(60))
    said = httpx.post(f'{url}/predict', content=body, headers={'content-length': '60000000'}, timeout=60)
    assert said.status_code == 413 and 'larger than' in said.json()['error']
