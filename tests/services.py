"A service in a process of its own, for tests."
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx

from vidcls.deploy.export import export
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier

KEY = 'a secret for the tests'
RUN = [sys.executable, '-m', 'vidcls.cli']


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s:
        return s.getsockname()[1]


@contextmanager
def serving(model, *options, key=KEY):
    "Run a service for the block; gives its address and its process."
    port = free_port()
    url = f'http://127.0.0.1:{port}'
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'VIDCLS_KEY': key}
    words = [*RUN, 'serve', str(model), '--port', str(port), '--decoders', '1', *options]
    process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(url, process)
        yield url, process
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(url, process=None, seconds=60):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process is None or process.poll() is None, 'the service has ended'
        try:
            if httpx.get(f'{url}/readyz').status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(.1)
    raise AssertionError(f'{url} is not ready after {seconds} s')


def small_model(folder):
    "Write a random network as an .onnx file."
    net = create_model('i3d_tiny', n_classes=3, n_frames=4, size=32)
    clf = Classifier(net, ['left', 'right', '<b>up</b>'])
    export(clf, folder/'small.onnx')
    return folder/'small.onnx'
