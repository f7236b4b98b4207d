"What the tests share."
import os
from pathlib import Path

import pytest

os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('VIDCLS_PROGRESS', '0')


@pytest.fixture(scope='session')
def real_data():
    "The folder of real clips that VIDCLS_TEST_DATA names; without it the test is skipped, and says so."
    folder = os.environ.get('VIDCLS_TEST_DATA')
    if not folder:
        pytest.skip("real clips are not here; VIDCLS_TEST_DATA names their folder")
    assert Path(folder).is_dir(), f"VIDCLS_TEST_DATA={folder} is no folder"
    return Path(folder)


def pytest_configure(config): config.addinivalue_line('markers', 'slow: left out by `make quick`')
