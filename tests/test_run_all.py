"The check that pages show what they do: it must see what is stale, and only that."
import re, subprocess, sys
from pathlib import Path

import nbformat
import pytest

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'tools'))
from notebooks import same                                                                  # noqa: E402


@pytest.mark.parametrize('kept, fresh, right', [
    ('8 faults', '8 faults', True), ('7 faults', '6 faults', False), ('format 1', 'format 2', False),
    ('top-1 0.848', 'top-1 0.851', True), ('top-1 0.848', 'top-1 0.800', False), ('1e-07', '3e-08', True),
    ('loss 12.50', 'loss 12.60', True), ('loss 12.50', 'loss 14.00', False),
    ('version 0.1.0', 'version 0.1.1', False),
    ('', 'a line', False), ('left 0.5', 'right 0.5', False), ('-0.5', '0.5', False)])
def test_what_counts_as_the_same(kept, fresh, right):
    "Words and whole numbers exactly; of floats the digits that a processor decides are left free."
    assert same(kept, fresh) is right


def page(path, *cells):
    "A notebook of (source, text that it shows) pairs."
    made = [nbformat.v4.new_code_cell(source, id=f'c{i}', outputs=[] if text is None else
                                      [nbformat.v4.new_output('stream', name='stdout', text=text)])
            for i,(source, text) in enumerate(cells)]
    kernel = dict(name='python3', display_name='python3', language='python')
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=dict(kernelspec=kernel)), path)
    return path

def check(path, *options):
    got = subprocess.run(
        [sys.executable, root / 'tools/notebooks.py', path, *options], text=True, capture_output=True
    )
    return got.returncode, got.stdout + got.stderr


@pytest.mark.slow
def test_a_page_is_run_and_compared(tmp_path):
    sound = page(
        tmp_path / 'sound.ipynb',
        ("x = 1\nprint(x)", '1\n'),
        ("#| varies\nprint('here')", 'elsewhere\n'),
        ("#| slow\nprint('not run')", 'from an earlier day\n'),
        ("raise_nothing = 'nbdev_export('", None),
    )
    assert check(sound)[0] == 0
    code, said = check(page(tmp_path/'stale.ipynb', ("print(6*7)", '41\n')))
    assert code == 1 and re.search(r"stale.ipynb: cell 'c0': kept '41', fresh '42'", said)


@pytest.mark.slow
def test_what_a_reader_would_stumble_over(tmp_path):
    code, said = check(page(tmp_path/'fails.ipynb', ("print(1)", '1\n'), ("1/0", None)))
    assert code == 1 and 'fails.ipynb: fails' in said and 'ZeroDivisionError' in said and '\x1b' not in said
    moved = page(
        tmp_path / 'moved.ipynb',
        ("import os; os.chdir('/')", None),
        ("import nbdev; nbdev.nbdev_export()", None),
    )
    code, said = check(moved)
    assert code == 1 and 'leaves its folder' in said


@pytest.mark.slow
def test_outputs_are_stored_as_a_kernel_gives_them(tmp_path):
    kept = page(
        tmp_path / 'page.ipynb',
        ("import sys\nprint('new')\nprint('a warning', file=sys.stderr)", 'old\n'),
        ("#| varies\nprint('here')", 'elsewhere\n'),
        ("[1];", None),
    )
    code, said = check(kept, '--store')
    assert code == 0 and 'a warning' in said
    first, varies, silent = nbformat.read(kept, 4).cells
    assert (
        [o.text for o in first.outputs] == ['new\n']
        and varies.outputs[0].text == 'elsewhere\n'
        and not silent.outputs
    )
    before = kept.read_bytes()
    assert check(kept, '--store')[0] == 0 and kept.read_bytes() == before


@pytest.mark.slow
def test_no_kernel_outlives_its_page(tmp_path):
    "Each page's kernel writes its number; while the last page runs, the others are gone."
    for name in 'ab':
        source = f"import os, pathlib\n_ = pathlib.Path('{name}.pid').write_text(str(os.getpid()))"
        page(tmp_path/f'{name}.ipynb', (source, None))
    alive = ("import pathlib, psutil\n"
             "older = [int(f.read_text()) for f in pathlib.Path('.').glob('*.pid')]\n"
             "print(len(older), [psutil.pid_exists(p) for p in older])")
    page(tmp_path/'c.ipynb', (alive, '2 [False, False]\n'))
    files = [tmp_path/f'{name}.ipynb' for name in 'abc']
    got = subprocess.run([sys.executable, root/'tools/notebooks.py', '--workers', '1', *files], text=True,
                         capture_output=True)
    assert got.returncode == 0, got.stdout + got.stderr
