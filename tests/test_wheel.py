"The wheel: what it holds, and that it works where there is no checkout."
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

root = Path(__file__).resolve().parents[1]
# an editable install finds the checkout by a finder of its own
ALONE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in str(f)]\n"
SOURCES = ('setup.py', 'settings.ini', 'pyproject.toml', 'README.md', 'LICENSE', 'vidcls', 'nbs',
           'benchmarks')
RUN = 'from vidcls.cli import main; main()'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built without a network from a copy of the sources, so that nothing is left in the checkout."
    pytest.importorskip('setuptools', reason='setuptools builds the wheel')
    place = tmp_path_factory.mktemp('wheel')
    (place/'sources').mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (root/name).is_dir() else shutil.copy
        copy(root/name, place/'sources'/name)
    build = [sys.executable, '-m', 'pip', 'wheel', '-w', '.', '-q', '--no-deps', '--no-build-isolation',
             '--no-index', './sources']
    made = subprocess.run(build, cwd=place, capture_output=True, text=True, timeout=300)
    if 'No module named pip' in made.stderr:
        pytest.skip('no pip here')
    assert made.returncode == 0, made.stderr
    return next(place.glob('*.whl'))


@pytest.fixture(scope='module')
def unpacked(wheel):
    "The folder of the unpacked wheel."
    folder = wheel.parent/'unpacked'
    with zipfile.ZipFile(wheel) as z:
        z.extractall(folder)
    return folder


def run(unpacked, code, *args):
    "Run code where the unpacked wheel is the only vidcls."
    env = {**os.environ, 'PYTHONPATH': str(unpacked)}
    return subprocess.run([sys.executable, '-c', ALONE + code, *args], cwd=unpacked, env=env,
                          capture_output=True, text=True, timeout=300)


def test_it_holds_the_library_and_no_study(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    course = {n for n in names if n.startswith('vidcls/course/pages/')}
    modules = {n for n in names if n.startswith('vidcls/')} - course
    there = {str(f.relative_to(root)) for f in (root/'vidcls').rglob('*.py') if 'studies' not in f.parts}
    page = {str(f.relative_to(root)) for f in (root/'vidcls/serve/page').iterdir()}
    page |= {str(f.relative_to(root)) for f in (root/'vidcls/course').rglob('*.toml')}
    page |= {'vidcls/course/scoreboard.csv'}
    assert modules == there | page and 'vidcls/serve/page/index.html' in page
    assert not [n for n in names if 'studies' in n]


def test_it_holds_the_course_without_outputs(wheel, unpacked):
    pages = unpacked/'vidcls'/'course'/'pages'
    folders = ('nbs', 'nbs/walkthroughs', 'nbs/reference', 'nbs/inside')
    there = {f.name for folder in folders for f in (root/folder).glob('[!.]*.ipynb')}
    assert {f.name for f in pages.rglob('*.ipynb')} == there
    cells = json.loads((pages/'01_whole_game.ipynb').read_text(encoding='utf-8'))['cells']
    assert len(cells) > 20 and not any(c.get('outputs') for c in cells)
    assert (pages/'benchmarks'/'README.md').is_file()
    assert wheel.stat().st_size < 6e6


def test_its_lab_copies_the_course(unpacked, tmp_path):
    got = run(unpacked, RUN, 'lab', str(tmp_path/'mine'), '--no-open')
    assert got.returncode == 0, got.stderr
    assert 'new pages' in got.stdout and '0 of' in got.stdout and '01.1' in got.stdout
    page = tmp_path/'mine'/'pages'/'01_whole_game.ipynb'
    assert "check('01.1', answer)" in page.read_text(encoding='utf-8')
    page.write_text(page.read_text(encoding='utf-8').replace('answer = None', 'answer = 2'), encoding='utf-8')
    again = run(unpacked, RUN, 'lab', str(tmp_path/'mine'), '--no-open')
    assert 'is up to date' in again.stdout and 'answer = 2' in page.read_text(encoding='utf-8')


def test_its_modules_need_no_checkout(unpacked):
    names = sorted('.'.join(f.relative_to(unpacked).with_suffix('').parts)
                   for f in (unpacked/'vidcls').rglob('[!_]*.py'))
    assert len(names) > 40
    code = (f"import importlib, sys\nfor m in {names}: importlib.import_module(m)\n"
            "print(sys.modules['vidcls'].__file__)\nassert not [m for m in sys.modules if 'studies' in m]")
    got = run(unpacked, code)
    assert got.returncode == 0 and got.stdout.strip() == str(unpacked/'vidcls'/'__init__.py'), got.stderr


def test_its_commands_work_and_studies_say_where_they_are(unpacked):
    for args in (('--help',), ('train', '--help'), ('benchmark', '--help')):
        got = run(unpacked, RUN, *args)
        assert got.returncode == 0 and 'Usage' in got.stdout, got.stderr
    assert 'loader' in got.stdout and 'models' in got.stdout
    assert 'In a checkout only.' in run(unpacked, RUN, 'benchmark', 'models', '--help').stdout
    for args in (('models', '--seeds', '3'), ('real', 'clips')):
        got = run(unpacked, RUN, 'benchmark', *args)
        assert got.returncode == 2 and got.stderr.count('\n') == 1, got.stderr
        assert f'`vidcls benchmark {args[0]}` is a study' in got.stderr and 'git clone' in got.stderr


def test_a_checkout_has_every_study_that_the_package_names():
    import vidcls.studies.cli                                                                # noqa: F401
    from vidcls.commands.benchmark import STUDIES
    from vidcls.commands.options import bench
    own = {c.name for c in bench.registered_commands if c.callback.__module__ == 'vidcls.studies.cli'}
    assert own == set(STUDIES)


def test_its_lessons_find_the_measurements(unpacked):
    "As in Colab, where the page itself lies in no folder of ours."
    code = "from vidcls.exercises import measurements; print(measurements('real_features')/'fights.npz')"
    found = run(unpacked, code)
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()) == unpacked/'vidcls/course/pages/benchmarks/real_features/fights.npz'
    assert Path(found.stdout.strip()).is_file()
