"What the tests share."
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('VIDCLS_PROGRESS', '0')


@pytest.fixture(scope='module')
def hf():
    "transformers, without its chatter; where it is not installed, the test is skipped."
    os.environ['TRANSFORMERS_VERBOSITY'] = 'error'
    return pytest.importorskip('transformers')


@pytest.fixture
def small_disk():
    "Function (folder, size) that gives a context: the folder, made, is a file system of this size, as '1m'."
    @contextmanager
    def mounted(place, size):
        place.mkdir()
        mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', place]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip('file systems cannot be mounted here')
        try:
            yield place
        finally:
            subprocess.run(['umount', '-l', place])
    return mounted


@pytest.fixture(scope='session')
def real_data():
    "The folder of real clips that VIDCLS_TEST_DATA names; without it the test is skipped, and says so."
    folder = os.environ.get('VIDCLS_TEST_DATA')
    if not folder:
        pytest.skip("real clips are not here; VIDCLS_TEST_DATA names their folder")
    assert Path(folder).is_dir(), f"VIDCLS_TEST_DATA={folder} is no folder"
    return Path(folder)


def pytest_configure(config): config.addinivalue_line('markers', 'slow: left out by `make quick`')
