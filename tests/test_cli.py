"The command as people run it: in a process of its own, on files, to an exit code."
import json, os, signal, socket, subprocess, sys

import numpy as np
import pandas as pd
import pytest

from vidcls.data.synthetic import make_motion_clips
from vidcls.predict import Classifier
from vidcls.show import write_video

VIDCLS = [sys.executable, '-c', 'from vidcls.cli import main; main()']


def vidcls(*args, cwd=None, **kwargs):
    return subprocess.run(
        [*VIDCLS, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs
    )


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    return make_motion_clips(tmp_path_factory.mktemp('clips')/'motion', n_groups=12, n_frames=8, size=32)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    "The folder of a small demo; nothing is learned in two epochs, but everything is made."
    folder = tmp_path_factory.mktemp('demo')
    r = vidcls('demo', '--groups', 12, '--epochs', 2, cwd=folder)
    assert r.returncode == 0, r.stderr
    assert 'single frames: top-1' in r.stdout and 'not above chance yet' in r.stdout  # an honest last word
    return folder/'runs'/'demo'


def test_demo_leaves_what_it_says(demo):
    assert {p.name for p in demo.iterdir() if not p.name.startswith('clips')} == {
        'record.json', 'record.csv', 'single_frame.json', 'single_frame.csv', 'history.json',
        'curves.png', 'confusion.png', 'predictions.png', 'classifier', 'settings.json'}
    assert {p.name for p in (demo/'classifier').iterdir()} == {'config.json', 'model.safetensors'}


def test_a_new_process_predicts_what_the_record_says(demo):
    clips, root = pd.read_csv(demo/'record.csv'), next(demo.glob('clips-*'))
    r = vidcls('predict', demo/'classifier', *[root/p for p in clips.path], '--json', '--top-k', 8)
    answers = [{a['label']: a['score'] for a in json.loads(line)['answer']} for line in r.stdout.splitlines()]
    labels = Classifier.load(demo/'classifier').labels
    probs = np.array([[a[l] for l in labels] for a in answers])
    assert [max(a, key=a.get) for a in answers] == clips.predicted.tolist()
    assert np.abs(probs - clips[[f'p_{l}' for l in labels]].to_numpy()).max() < 1e-6


def test_predict_looks_several_times(demo):
    clip = next(demo.glob('clips-*'))/'up'/'up_g0001_c01.mp4'
    r = vidcls('predict', demo/'classifier', clip, '--json', '--top-k', 8, '--views', 'videomae-ssv2')
    asked = Classifier.load(demo/'classifier').predict(clip, top_k=8, views='videomae-ssv2')
    answer = json.loads(r.stdout)['answer']
    assert [a['label'] for a in answer] == [a['label'] for a in asked]
    assert np.allclose([a['score'] for a in answer], [a['score'] for a in asked], atol=1e-6)
    r = vidcls('predict', demo/'classifier', clip, '--views', 'videomae')
    assert r.returncode == 2 and r.stderr.startswith('vidcls: --views videomae') and "'slowfast'" in r.stderr


def test_the_seed_decides(demo, tmp_path):
    record = json.loads((demo/'record.json').read_text())
    for seed, same in ((0, True), (1, False)):
        vidcls('demo', '--groups', 12, '--epochs', 2, '--seed', seed, '--out', tmp_path/str(seed))
        again = json.loads((tmp_path/str(seed)/'record.json').read_text())
        csv = (tmp_path/str(seed)/'record.csv').read_text()
        assert (again == record) == same and (csv == (demo/'record.csv').read_text()) == same


def black(*paths):
    "Write black clips of eight frames."
    for path in paths:
        write_video(path, np.zeros((8, 32, 32, 3), np.uint8))

def no_video(data):
    black(*(data/l/f'{g}.mp4' for l in 'ab' for g in range(10)))
    (data/'a'/'3.mp4').write_text('this is no film')

# kind: (what is written into the folder of the clips first, the command, what has to be said)
BAD = {
    'empty folder': (None, 'train DATA', 'found no videos'),
    'no folder': (None, 'train DATA/gone', 'no such folder'),
    'no file': (None, 'train DATA/gone.csv', 'no such file'),
    'one class': (lambda d: black(*(d/'jump'/f'{g}.mp4' for g in range(10))), 'train DATA', 'one class only'),
    'no video': (no_video, 'train DATA', '3.mp4: not a video'),
    'short': (None, 'train CLIPS --frames 16 --short error',
              "has 8 frames and the spec asks for --frames 16; set --short repeat"),
    'unknown model': (None, 'train CLIPS --model videomae_tini', "Did you mean 'videomae_tiny'?"),
    'bad size': (None, 'train CLIPS --model videomae_tiny --size 33', '--size 33'),
    'no column': (None, 'train CLIPS --group actor', "no column 'actor'"),
    'one clip a class': (lambda d: black(*(d/l/'0.mp4' for l in 'ab')), 'train DATA', 'has no test split'),
    'out is a file': (lambda d: (d.parent/'out').write_text('precious'), 'train CLIPS',
                      'out is a file; choose another folder'),
}


@pytest.mark.parametrize('kind', BAD)
def test_bad_input_is_one_sentence(tmp_path, clips, kind):
    write, line, says = BAD[kind]
    (tmp_path/'data').mkdir()
    if write:
        write(tmp_path/'data')
    args = [w.replace('DATA', str(tmp_path/'data')).replace('CLIPS', str(clips)) for w in line.split()]
    r = vidcls(*args, '--out', tmp_path/'out', '--epochs', 1)
    assert r.returncode == 2 and says in r.stderr and 'Traceback' not in r.stderr
    assert r.stderr.strip().splitlines()[-1].startswith('vidcls: ')
    assert not (tmp_path/'out').exists() or (tmp_path/'out').read_text() == 'precious'


def test_bad_questions_to_a_classifier(demo, clips, tmp_path):
    write_video(tmp_path/'other'/'hop'/'a.mp4', np.zeros((8, 32, 32, 3), np.uint8))
    (tmp_path/'page.mp4').write_text('<html>404</html>')
    write_video(tmp_path/'short.mp4', np.zeros((4, 32, 32, 3), np.uint8))
    clf = demo/'classifier'
    assert vidcls('predict', clf, tmp_path/'short.mp4').returncode == 0  # its frames are repeated
    for args, says in [
        (
            ('evaluate', clf, tmp_path / 'other', '--split', 'all'),
            "labels ['hop'] are not among the known ones",
        ),
        (('evaluate', tmp_path, clips), 'holds no classifier'),
        (('predict', clf, tmp_path / 'page.mp4'), 'HTML'),
        (('predict', clf, tmp_path / 'gone.mp4'), 'no such file'),
        (('evaluate', clf, clips, '--split', 'tset'), "--split tset"),
    ]:
        r = vidcls(*args)
        assert r.returncode == 2 and says in r.stderr and r.stderr.count('\n') == 1, r.stderr


def test_skipped_clips_are_counted(tmp_path, clips, demo):
    import shutil
    shutil.copytree(clips, tmp_path/'clips')
    for g in range(12):
        (tmp_path/'clips'/'up'/f'up_g{g:04}_c01.mp4').write_bytes(b'broken')
    r = vidcls(
        'evaluate',
        demo / 'classifier',
        tmp_path / 'clips',
        '--split',
        'all',
        '--on-error',
        'skip',
        '--out',
        tmp_path / 'rec.json',
    )
    rec = json.loads((tmp_path/'rec.json').read_text())
    assert r.returncode == 0 and (rec['n_expected'], rec['n_evaluated'], len(rec['failures'])) == (96, 84, 12)


@pytest.mark.skipif(os.name == 'nt', reason='POSIX signals')
def test_ctrl_c_keeps_the_best_weights(tmp_path, clips):
    run = subprocess.Popen(
        [*VIDCLS, 'train', str(clips), '--epochs', '5000', '--out', str(tmp_path / 'out')],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'VIDCLS_PROGRESS': '1', 'PYTHONUNBUFFERED': '1'},
        # a shell's background job ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in run.stdout:
        if line.startswith('epoch   2'):
            break
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 130 and 'best weights and history' in said
    hist = json.loads((tmp_path/'out'/'history.json').read_text())
    assert hist['interrupted'] and len(hist['rows']) >= 2
    assert Classifier.load(tmp_path/'out'/'classifier').predict(clips/'up'/'up_g0000_c01.mp4')


@pytest.mark.parametrize('name, group', [('weizmann', 'actor'), ('surv_fight', 'source')])
def test_real_clips_to_a_record(real_data, tmp_path, name, group):
    "Eleven frame rates, nineteen sizes, splits by person or by film: the same command, to an honest record."
    out = tmp_path/'run'
    r = vidcls('train', real_data/name, '--group', group, '--epochs', 1, '--out', out)
    assert r.returncode == 0, r.stderr
    rec = json.loads((out/'record.json').read_text())
    csv = pd.read_csv(real_data/name/'clips.csv')
    assert rec['n_evaluated'] == rec['n_expected'] == (csv.split == 'test').sum()
    assert rec['interval'][0] <= rec['video_top1'] <= rec['interval'][1]
    again = vidcls(
        'evaluate', out / 'classifier', real_data / name, '--group', group, '--out', tmp_path / 'again.json'
    )
    assert (
        again.returncode == 0
        and json.loads((tmp_path / 'again.json').read_text())['video_top1'] == rec['video_top1']
    )


def test_train_with_cache_augmentation_and_balance(clips, tmp_path):
    r = vidcls(
        'train',
        clips,
        '--epochs',
        1,
        '--sampling',
        'random',
        '--augment',
        'light',
        '--balance',
        'weighted',
        '--cache',
        tmp_path / 'cache',
        '--cache-format',
        'raw',
        '--out',
        tmp_path / 'run',
    )
    assert r.returncode == 0, r.stderr
    assert list((tmp_path/'cache').glob('raw-*/*.data')) and (tmp_path/'run'/'record.json').exists()
    for args, says in (
        (['--augment', 'wild'], "--augment wild"),
        (['--balance', 'even'], "--balance even"),
        (['--cache', clips / 'clips.csv'], 'cannot be written'),
    ):
        r = vidcls('train', clips, '--epochs', 1, '--out', tmp_path/'x', *args)
        assert r.returncode == 2 and says in r.stderr and r.stderr.count('\n') == 1, r.stderr


def test_shards_are_written_and_trained_on(clips, tmp_path):
    pytest.importorskip('webdataset')
    r = vidcls('shard', clips, tmp_path/'tars', '--shard-mb', .05)
    assert r.returncode == 0 and 'shards: train' in r.stdout, r.stderr
    r = vidcls('train', tmp_path/'tars', '--epochs', 1, '--out', tmp_path/'run')
    assert (
        r.returncode == 0 and json.loads((tmp_path / 'run' / 'record.json').read_text())['n_evaluated'] > 0
    ), r.stderr
    for args, says in (
        (['shard', clips, tmp_path / 'tars'], 'holds shards already'),
        (['shard', tmp_path / 'nothing', tmp_path / 'y'], 'nothing'),
        (['train', tmp_path / 'tars', '--cache', tmp_path / 'c', '--out', tmp_path / 'z'], 'not on shards'),
    ):
        r = vidcls(*args)
        assert r.returncode == 2 and says in r.stderr, (r.stdout, r.stderr)


def test_download_names_what_there_is(tmp_path):
    r = vidcls('download', 'imagenet', tmp_path)
    assert r.returncode == 2 and 'ucf101' in r.stderr
    r = vidcls('download', 'kinetics400', tmp_path)
    assert r.returncode == 2 and not list(tmp_path.iterdir())


def test_benchmark(tmp_path):
    r = vidcls(
        'benchmark',
        'loader',
        '--kind',
        'ucf',
        '--clips',
        8,
        '--size',
        32,
        '--frames',
        2,
        '--rounds',
        1,
        '--out',
        tmp_path / 'b.json',
    )
    assert r.returncode == 0, r.stderr
    rows = json.loads((tmp_path/'b.json').read_text())['rows']
    assert len(rows) == 8 and all(x['clips_per_s'] > 0 for x in rows)
    r = vidcls('benchmark', 'loader', '--kind', 'hmdb')
    assert r.returncode == 2 and "--kind hmdb" in r.stderr


def test_as_a_module():
    "Launchers start it so: accelerate launch -m vidcls.cli train CLIPS."
    r = subprocess.run(
        [sys.executable, '-m', 'vidcls.cli', 'train', 'nowhere'], capture_output=True, text=True, timeout=120
    )
    assert r.returncode == 2 and r.stderr.startswith('vidcls: ') and 'nowhere' in r.stderr

@pytest.mark.skipif(sys.platform != 'linux', reason='gloo, tried on Linux')
def test_two_machines_train_by_accelerate_launch(tmp_path):
    "The lines of page 49, both machines on this one: one result, said once, the same as of one process."
    make_motion_clips(tmp_path/'clips', n_groups=11, n_frames=8, size=32)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = {**os.environ, 'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1'}
    def train(*launcher, bs, out):
        words = [
            *launcher,
            '-m',
            'vidcls.cli',
            'train',
            tmp_path / 'clips',
            '--epochs',
            2,
            '--bs',
            bs,
            '--out',
            tmp_path / out,
        ]
        return subprocess.Popen(
            [str(w) for w in words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    where = ('--main_process_ip', '127.0.0.1', '--main_process_port', port)
    accelerate = (
        sys.executable,
        '-m',
        'accelerate.commands.accelerate_cli',
        'launch',
        '--multi_gpu',
        '--num_machines',
        2,
        '--num_processes',
        2,
    )
    both = [train(*accelerate, '--machine_rank', i, *where, bs=8, out='two') for i in (0,1)]
    (said, err), (other, err1) = (p.communicate(timeout=240) for p in both)
    assert [p.returncode for p in both] == [0,0], err[-2000:] + err1[-2000:]
    assert said.count('kept in') == 1 and 'kept in' not in other
    one = train(sys.executable, bs=16, out='one')
    assert one.wait(timeout=240) == 0
    a, b = (json.loads((tmp_path/o/'history.json').read_text())['rows'] for o in ('one', 'two'))
    assert all(abs(x['valid_loss']-y['valid_loss']) < 1e-2 for x,y in zip(a, b))
