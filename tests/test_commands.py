"The command line as people type it: what it takes over, keeps, refuses and says."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import pytest

from vidcls.cli import in_words
from vidcls.core import ArgumentError, CheckpointError, span
from vidcls.data.datasets import from_folder
from vidcls.data.doctor import audit
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import make_motion_clips
from vidcls.models.zoo import create_model
from vidcls.show import write_video
from vidcls.train import Callback, fit

VIDCLS = [sys.executable, '-c', 'from vidcls.cli import main; main()']
FEW = ('--epochs', 1, '--folds', 0)


def vidcls(*args, cwd=None, **kwargs):
    return subprocess.run(
        [*VIDCLS, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs
    )


def interrupted(*args, cwd=None):
    "What a training said that Ctrl-C stopped after its first epochs."
    run = subprocess.Popen(
        [*VIDCLS, *map(str, args)],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'VIDCLS_PROGRESS': '1', 'PYTHONUNBUFFERED': '1'},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in run.stdout:
        if line.startswith('epoch') and '2' in line.split()[1]:
            break
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 130, said
    return said


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with clips/ in it."
    folder = tmp_path_factory.mktemp('place')
    make_motion_clips(folder/'clips', n_groups=12, n_frames=8, size=32)
    return folder


@pytest.fixture(scope='module')
def trained(place):
    "What the first training said."
    r = vidcls('train', 'clips', *FEW, cwd=place)
    assert r.returncode == 0, r.stderr
    return r


def test_it_says_what_it_trains(trained, place):
    line = next(l for l in trained.stdout.splitlines() if l.startswith('training '))
    for word in ('i3d_tiny', 'M weights', 'frames of', 'from scratch', '4 steps (1 epoch of 4)'):
        assert word in line, line
    assert 'validation: 8 clips of 1 group' in trained.stdout and 'too few to choose by' in trained.stdout
    assert 'not shown to be better than guessing' in trained.stdout and '--steps' in trained.stdout
    assert json.loads((place/'runs/train/settings.json').read_text())['epochs'] == 1


def test_nothing_is_overwritten(trained, place):
    before = (place/'runs/train/record.json').read_bytes()
    r = vidcls('train', 'clips', *FEW, cwd=place)
    assert r.returncode == 0 and 'this training goes to runs/train-2' in r.stdout
    assert (place / 'runs/train-2/record.json').exists() and (
        place / 'runs/train/record.json'
    ).read_bytes() == before
    for out, says in (('runs/train', '--overwrite replaces it'), ('clips', 'is the folder of the clips')):
        r = vidcls('train', 'clips', *FEW, '--out', out, cwd=place)
        assert r.returncode == 2 and says in r.stderr, r.stderr
    r = vidcls('train', 'clips', *FEW, '--out', 'runs/train-2', '--overwrite', '--seed', 1, cwd=place)
    assert r.returncode == 0 and json.loads((place / 'runs/train-2/record.json').read_text())['seed'] == 1, (
        r.stderr
    )


def test_a_run_folder_is_a_classifier(trained, place):
    r = vidcls('predict', 'runs/train', 'clips/up/*_g000[12]_c01.mp4', 'clips/down', cwd=place)
    assert r.returncode == 0 and len(r.stdout.splitlines()) == 14, r.stderr         # a pattern and a folder
    r = vidcls('evaluate', 'runs/train', 'clips', cwd=place)
    assert (
        r.returncode == 0
        and '24 of 24 videos' in r.stdout
        and 'judged on the 24 test clips of 96' in r.stdout
    ), r.stderr


def test_other_clips_are_judged_whole(trained, place, tmp_path):
    make_motion_clips(tmp_path/'held', n_groups=10, n_frames=8, size=32, seed=3)
    r = vidcls('evaluate', place/'runs/train', tmp_path/'held')
    assert r.returncode == 0 and '80 of 80 videos' in r.stdout, r.stdout + r.stderr
    r = vidcls('evaluate', place/'runs/train', place/'clips', '--split', 'all')
    assert '96 of 96 videos' in r.stdout and '64 of these clips are training clips' in r.stdout


def test_an_exported_file_is_not_judged_on_its_training_clips(trained, place, tmp_path):
    r = vidcls('export', 'runs/train', '--out', tmp_path/'m.onnx', cwd=place)
    assert r.returncode == 0, r.stderr
    r = vidcls('evaluate', tmp_path/'m.onnx', 'clips', cwd=place)
    assert r.returncode == 0 and 'judged on the 24 test clips of 96' in r.stdout, r.stdout + r.stderr
    r = vidcls('evaluate', tmp_path/'m.onnx', 'clips', '--split', 'all', cwd=place)
    assert r.returncode == 0 and '96 of 96 videos' in r.stdout, r.stdout + r.stderr


def test_folders_called_train_and_val(trained, place, tmp_path):
    for split, groups in (('train', 6), ('val', 2)):
        for move in ('up', 'down'):
            (tmp_path/'d'/split/move).mkdir(parents=True)
            files = (
                sorted((place / 'clips' / move).glob('*.mp4'))[:6]
                if split == 'train'
                else sorted((place / 'clips' / move).glob('*.mp4'))[-4:]
            )
            for f in files:
                os.link(f, tmp_path/'d'/split/move/f.name)
    r = vidcls('train', 'd', *FEW, cwd=tmp_path)
    assert r.returncode == 0 and 'optimistic' in r.stdout, r.stderr
    rec = json.loads((tmp_path/'runs/train/record.json').read_text())
    assert (rec['split'], rec['n_evaluated'], rec['optimistic']) == ('valid', 8, True)
    r = vidcls('evaluate', 'runs/train', 'd', '--split', 'val', cwd=tmp_path)
    assert r.returncode == 0 and '8 of 8 videos' in r.stdout, r.stderr


def test_the_demo_and_the_doctor_overwrite_nothing_either(trained, place, tmp_path):
    before = (place/'runs/train/record.json').read_bytes()
    r = vidcls('demo', '--groups', 10, '--epochs', 1, '--out', 'runs/train', cwd=place)
    assert r.returncode == 2 and '--overwrite replaces it' in r.stderr, r.stderr
    assert (place/'runs/train/record.json').read_bytes() == before
    (tmp_path/'clips.csv').write_text('path,label,camera\n')                       # somebody's own list
    with pytest.raises(ArgumentError, match='no audit has written'):
        audit(place/'clips', workers=1).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['clips.csv']


def test_shards_take_no_options_about_files(place, tmp_path):
    assert vidcls('shard', place/'clips', tmp_path/'shards').returncode == 0
    for option, value in (('--label', 'kind'), ('--group', 'parent'), ('--folds', 3)):
        r = vidcls('train', tmp_path/'shards', '--epochs', 1, option, value, '--out', tmp_path/'run')
        assert r.returncode == 2 and f'{option} {value} works on files' in r.stderr, r.stderr


@pytest.mark.skipif(os.name == 'nt', reason='POSIX signals')
def test_the_same_line_with_resume_goes_on_from_any_folder(trained, place, tmp_path):
    "Relative names of cache and weights mean what they meant when the training began."
    (tmp_path/'w').symlink_to(place/'runs/train/classifier')
    line = [
        'train',
        place / 'clips',
        '--folds',
        0,
        '--cache',
        'frames',
        '--pretrained',
        'w',
        '--out',
        'run',
        '--epochs',
    ]
    run = interrupted(*line, 4000, cwd=tmp_path)
    assert 'the same line with --resume goes on' in run
    done = len(json.loads((tmp_path/'run/history.json').read_text())['rows'])
    shutil.copytree(tmp_path/'run', tmp_path/'copy')
    (tmp_path/'elsewhere').mkdir()
    same = vidcls(*line, done+1, '--resume', cwd=tmp_path)
    other = vidcls('train', '--resume', '--out', '../copy', '--epochs', done+1, cwd=tmp_path/'elsewhere')
    for r in (same, other):
        assert r.returncode == 0, r.stderr
    for folder in ('run', 'copy'):
        rows = json.loads((tmp_path/folder/'history.json').read_text())['rows']
        assert [row['epoch'] for row in rows] == list(range(1, done+2))
    assert not (tmp_path/'elsewhere'/'frames').exists()


def test_going_on_with_other_clips_under_the_old_names_is_refused(tmp_path):
    make_motion_clips(tmp_path/'clips', n_groups=12, n_frames=8, size=32)
    make_motion_clips(tmp_path/'other', n_groups=12, n_frames=8, size=32, seed=9)

    class Stop(Callback):
        def after_epoch(self, run): os.kill(os.getpid(), signal.SIGINT)

    def train(**kwargs):
        table = from_folder(tmp_path/'clips', seed=0)
        net = create_model('videomae_tiny', n_classes=table.n_classes)
        return fit(net, loaders(table, net.spec), epochs=2, out=tmp_path/'run', show=False, **kwargs)

    train(callbacks=[Stop()])
    for f in (tmp_path/'clips').rglob('*.mp4'):
        shutil.copy(tmp_path/'other'/f.relative_to(tmp_path/'clips'), f)
    with pytest.raises(CheckpointError, match='what the clips hold has changed'):
        train(resume=True)


@pytest.mark.skipif(os.name == 'nt', reason='POSIX signals')
def test_resume_knows_its_options_and_can_go_on_for_longer(place, tmp_path):
    said = interrupted(
        'train',
        place / 'clips',
        '--epochs',
        4000,
        '--folds',
        0,
        '--bs',
        8,
        '--lr',
        0.0007,
        '--out',
        tmp_path / 'run',
    )
    assert '--resume goes on' in said
    r = vidcls('train', '--resume', '--out', tmp_path/'run', '--lr', '.1')
    assert r.returncode == 2 and 'was begun with 0.0007' in r.stderr, r.stderr
    done = len(json.loads((tmp_path/'run/history.json').read_text())['rows'])
    r = vidcls('train', '--resume', '--out', tmp_path/'run', '--epochs', done+1)
    assert r.returncode == 0, r.stderr
    rows = json.loads((tmp_path/'run/history.json').read_text())['rows']
    assert [row['epoch'] for row in rows] == list(range(1, done+2))
    assert vidcls('train', '--resume', cwd=tmp_path).returncode == 2  # nothing there to go on with


@pytest.mark.skipif(os.name == 'nt', reason='POSIX signals')
def test_ctrl_c_before_the_first_step_says_so(place, tmp_path):
    run = subprocess.Popen(
        [*VIDCLS, 'train', place / 'clips', '--out', tmp_path / 'run'],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in run.stdout:
        if line.startswith('ClipTable'):
            break
    run.send_signal(signal.SIGINT)
    assert 'nothing was kept' in run.communicate(timeout=120)[1] and run.returncode == 130
    assert not (tmp_path/'run').exists()


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='Linux')
def test_output_that_cannot_be_written_costs_no_training(place, tmp_path):
    with open('/dev/full', 'w') as full:
        r = subprocess.run(
            [*VIDCLS, 'train', place / 'clips', '--epochs', '1', '--folds', '0', '--out', tmp_path / 'run'],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    assert r.returncode == 0 and r.stderr.count('cannot be written') == 1 and 'Traceback' not in r.stderr, (
        r.stderr
    )
    assert (tmp_path/'run/record.json').exists()


@pytest.mark.parametrize('args, says', [
    (('train',), 'DATA is missing'),
    (('train', 'clips', '--size', 33, '--model', 'videomae_tiny'), '--size 33'),
    (('train', 'clips', '--frames', 16, '--short', 'error'), '--short repeat'),
    (('train', 'clips', '--steps', 5, '--epochs', 5), 'give one of them'),
    (('train', 'clips', '--minutes', 0), '--minutes 0.0; accepted: a number'),
    (('train', 'clips', '--how', 'probe', '--minutes', 3), '--minutes belongs to --how auto'),
    (('train', 'clips', '--how', 'probe', '--lr', .1), '--lr 0.1 belongs to a training'),
    (('train', 'clips', '--how', 'scratch', '--pretrained', 'x'), '--pretrained x is no start from scratch'),
    (('train', 'clips', '--how', 'finetune', '--model', 'i3d_tiny'), 'name some by --pretrained'),
    (('train', 'clips', '--freeze', 'some'), "'all', or a whole number"),
    (('train', 'clips', '--augment', 'wild'), 'light'),
    (('train', 'clips', '--device', 'tpu'), "--device tpu"),
    (('train', 'clips', '--folds', 40), '--folds 40; this table has 12 groups'),
    (('train', 'clips', '--folds', 1), '--folds 1; accepted'),
    (('train', 'clips', '--cache', 'frames', '--cache-format', 'gif'), '--cache-format gif; accepted'),
    (('train', 'clips', '--sampling', 'random', '--step-s', .1), 'give --step-s, in seconds, with '
                                                                 '--sampling time'),
    (('train', 'clips', '--label', 'kind'), 'Name another one with --label.'),
    (('evaluate', 'nowhere', 'clips', '--out', 'record.txt'), 'record.txt: the name must end in .json'),
    (('doctor', 'clips', '--out', 'clips'), '--out clips is the folder of the clips'),
    (('doctor', 'clips', '--out', '.'), 'or above it'),
    (('shard', 'clips', 'clips'), 'FOLDER clips is the folder of the clips'),
    (('train', 'https://a.org/clips'), 'https://a.org/clips is an address'),
    (('predict', 'clips', 'clips/up'), 'clips'),
    (('evaluate', 'nowhere', 'clips'), 'nowhere')])
def test_errors_speak_of_options(place, args, says):
    files = {p for p in place.rglob('*') if 'runs' not in p.parts}
    r = vidcls(*args, cwd=place)
    assert r.returncode == 2 and says in r.stderr and 'Traceback' not in r.stderr, r.stderr
    assert {p for p in place.rglob('*') if 'runs' not in p.parts} == files and 'epoch ' not in r.stderr


def test_small_things():
    for args in (('-h',), ('train', '-h'), ('benchmark', '-h')):
        assert vidcls(*args).returncode == 0
    assert vidcls('--version').stdout.startswith('vidcls 0.')
    assert '--install-completion' in vidcls('--help').stdout
    assert [span(s) for s in (.2, 30, 200, 7200)] == ['1 s', '30 s', '3 min', '2.0 h']
    assert in_words("set short='repeat', or on_error='skip'; leaks='allow'") == (
        'set --short repeat, or --on-error skip; --leaks allow')
    assert (
        in_words("a group in two splits (n_frames=16, shape=(2, 3))")
        == "a group in two splits (--frames 16, shape=(2, 3))"
    )


def test_a_home_folder_is_understood(place, tmp_path):
    os.symlink(place/'clips', tmp_path/'mine')
    r = vidcls(
        'train', '~/mine', *FEW, '--out=~/run', cwd=tmp_path, env={**os.environ, 'HOME': str(tmp_path)}
    )
    assert r.returncode == 0 and (tmp_path/'run/classifier').is_dir(), r.stderr


def test_a_list_beside_the_clips_and_other_columns(tmp_path):
    rng = np.random.default_rng(0)
    rows = ['filename,category,film']
    for i in range(24):
        write_video(tmp_path/'d'/f'{i}.mp4', rng.integers(0, 255, (8, 32, 32, 3), np.uint8))
        rows.append(f'{i}.mp4,{"ab"[i % 2]},f{i//2}')
    (tmp_path/'d'/'labels.csv').write_text('\n'.join(rows) + '\n')
    r = vidcls('train', tmp_path/'d', *FEW, '--group', 'film', '--out', tmp_path/'run')
    assert (
        r.returncode == 0
        and "12 groups" in r.stdout
        and 'note: ' in r.stderr
        and 'UserWarning' not in r.stderr
    ), r.stderr
    (tmp_path/'d'/'labels.csv').rename(tmp_path/'d'/'odd.csv')
    odd = (tmp_path/'d'/'odd.csv').read_text().replace('filename', 'where')
    (tmp_path/'d'/'odd.csv').write_text(odd)
    r = vidcls(
        'train',
        tmp_path / 'd' / 'odd.csv',
        *FEW,
        '--path-column',
        'where',
        '--label',
        'category',
        '--out',
        tmp_path / 'run2',
    )
    assert r.returncode == 0, r.stderr


def test_folders_of_people_are_groups(place, tmp_path):
    for move in ('up', 'down'):
        for i,f in enumerate(sorted((place/'clips'/move).glob('*.mp4'))):
            (tmp_path/'d'/move/f'person{i//2}').mkdir(parents=True, exist_ok=True)
            os.link(f, tmp_path/'d'/move/f'person{i//2}'/f.name)
    r = vidcls('train', tmp_path/'d', *FEW, '--group', 'parent', '--out', tmp_path/'run')
    assert r.returncode == 0 and '6 groups' in r.stdout, r.stdout + r.stderr


def test_folds_and_the_announced_time(place, tmp_path):
    start = time.monotonic()
    r = vidcls(
        'train',
        place / 'clips',
        '--steps',
        48,
        '--folds',
        2,
        '--frames',
        8,
        '--size',
        32,
        '--out',
        tmp_path / 'run',
    )
    took = time.monotonic() - start
    assert r.returncode == 0, r.stderr
    line = next(l for l in r.stdout.splitlines() if l.startswith('training '))
    assert 'judged by 2 folds besides; about ' in line and line.endswith(' in all'), line
    folds = json.loads((tmp_path/'run/folds.json').read_text())
    assert folds['n_evaluated'] == 96 and 'folds' in folds['split'] and took > 0
