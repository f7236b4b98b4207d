"The audit names every kind of broken file, survives workers that hang or die, and leaves a good table."
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hostile import BROKEN, encode, numbered
from vidcls.core import seed_everything
from vidcls.data.datasets import from_csv
from vidcls.data.doctor import audit
from vidcls.data.synthetic import make_motion_clips
from vidcls.show import write_video


def run(*args):
    return subprocess.run(
        [sys.executable, '-c', 'from vidcls.cli import main; main()', *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, 'VIDCLS_PROGRESS': '0'},
        timeout=300,
    )


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    return make_motion_clips(tmp_path_factory.mktemp('d') / 'clips', n_groups=10, n_frames=8, size=32)


@pytest.mark.slow
def test_every_kind_of_broken_file_is_named_and_the_rest_trains(clips, tmp_path):
    from vidcls.data.loaders import loaders
    from vidcls.evaluate import evaluate
    from vidcls.models.zoo import create_model
    from vidcls.train import fit
    shutil.copytree(clips, tmp_path/'sick', ignore=shutil.ignore_patterns('*.csv'))
    for name, (make, _) in BROKEN.items():
        make(tmp_path/name)
        shutil.move(tmp_path/name, tmp_path/'sick'/'left'/name)
    r = run('doctor', tmp_path/'sick', '--out', tmp_path/'audit', '--frames', 8)
    assert r.returncode == 1 and 'Traceback' not in r.stderr, r.stderr
    listed = (tmp_path/'audit'/'problems.csv').read_text()
    assert len(BROKEN) >= 20 and not [n for n in BROKEN if n not in listed]
    assert sum(n in r.stdout for n in BROKEN) >= 10 and 'problems.csv' in r.stdout
    table = from_csv(tmp_path/'audit'/'clips.csv')
    assert len(table) == 80 and sum(table.dropped.values()) == len(BROKEN)
    seed_everything(0)
    model = create_model('videomae_tiny', n_classes=8, n_frames=8, size=32)
    dls = loaders(table, model.spec, bs=16)
    hist = fit(model, dls, epochs=1, show=False)
    rec = evaluate(model, dls.test, show=False)
    assert (
        len(hist) == 1
        and not hist.skipped
        and sum(rec.dropped.values()) == len(BROKEN)
        and 'dropped before' in repr(rec)
    )


@pytest.mark.slow
def test_a_clean_set_passes(clips, tmp_path):
    r = run('doctor', clips, '--out', tmp_path/'audit', '--frames', 8)
    assert r.returncode == 0 and '0 errors, 0 warnings' in r.stdout, r.stdout + r.stderr
    r = run('doctor', tmp_path/'nowhere', '--out', tmp_path/'a2')
    assert r.returncode == 2 and 'nowhere' in r.stderr and not (tmp_path/'a2').exists()


@pytest.mark.slow
def test_hanging_and_dying_workers(tmp_path):
    "One worker is stopped, one is killed, while they decode: two files are named, the audit ends."
    (tmp_path/'a').mkdir()
    (tmp_path/'b').mkdir()
    long = write_video(
        tmp_path / 'a' / '0.mp4',
        np.random.default_rng(0).integers(0, 256, (150, 240, 320, 3), dtype=np.uint8),
    )
    for i in range(1, 16):
        shutil.copy(long, tmp_path/'ab'[i % 2]/f'{i}.mp4')
    hit = []
    def at_work(pid):
        try:
            return any(
                str(tmp_path) in os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')
            )
        except OSError:
            return False
    def disturb():
        while len(hit) < 2:
            for p in multiprocessing.active_children():
                if p.pid not in hit and len(hit) < 2 and at_work(p.pid):
                    try:
                        os.kill(p.pid, signal.SIGSTOP if not hit else signal.SIGKILL)
                        hit.append(p.pid)
                    except ProcessLookupError:
                        pass
            time.sleep(.01)
    threading.Thread(target=disturb, daemon=True).start()
    start = time.monotonic()
    found = audit(tmp_path, n_frames=8, workers=2, timeout_s=15, show=False)
    assert time.monotonic() - start < 150 and len(hit) == 2
    faults = found.df.fault[found.df.fault != '']
    assert sorted(f.split(' ')[0] for f in faults) == ['ended', 'took']
    assert (found.df.n_frames[found.df.fault == ''] == 150).all() and len(found.df) == 16


def test_copies_and_leaks(clips, tmp_path):
    a = sorted((clips/'left').glob('*.mp4'))[0]
    for f in ('train/left', 'test/left', 'train/up', 'test/up'):
        (tmp_path/f).mkdir(parents=True)
    shutil.copy(a, tmp_path/'train'/'left'/'x_g01_c01.mp4')
    shutil.copy(a, tmp_path/'test'/'left'/'y_g02_c01.mp4')
    frames = numbered(20)
    encode(tmp_path/'train'/'up'/'p_g03_c01.mp4', frames=frames, qp=10)
    import cv2
    # coded anew, smaller
    write_video(
        tmp_path / 'test' / 'up' / 'q_g04_c01.mp4', np.stack([cv2.resize(f, (96, 72)) for f in frames]), qp=26
    )
    encode(tmp_path/'train'/'up'/'r_g05_c01.mp4', frames=frames[:, :, ::-1])
    encode(tmp_path/'test'/'up'/'s_g05_c02.mp4', frames=frames[:, ::-1])
    found = audit(tmp_path, n_frames=8, workers=1, show=False, valid=0)
    kinds = set(found.problems.kind)
    assert {
        'the same clip in two splits',
        'looks like a clip of another split',
        'a group in two splits',
    } <= kinds, found
    good = found.repaired()
    assert (
        good.dropped == {'also in another split': 2}
        and len(good) == 4
        and set(good.df.split) == {'train', 'test'}
    )


def test_real_clips(real_data):
    found = audit(real_data/'weizmann'/'clips.csv', group='actor', workers=2, show=False)
    assert found.ok and len(found.df) == len(found.table)


def test_a_name_can_not_write_into_the_page(clips, tmp_path):
    (tmp_path/'a').mkdir()
    (tmp_path/'b').mkdir()
    (tmp_path/'a'/'<script>alert(1)<!--.mp4').write_text('x')
    shutil.copy(next((clips/'up').glob('*.mp4')), tmp_path/'b'/'ok.mp4')
    page = audit(tmp_path, workers=1, show=False).save(tmp_path/'out').read_text()
    assert '<script>' not in page and '&lt;script&gt;' in page
