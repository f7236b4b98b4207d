"Loaders under what a notebook can't hold: killed and stopped workers, a million rows, accelerate."
import os, pickle, signal, subprocess, sys, threading, time

import numpy as np
import pandas as pd
import pytest
import torch

from vidcls.core import ClipSpec, WorkerError
from vidcls.data.datasets import ClipTable, from_folder
from vidcls.data.loaders import ClipDataset, loader
from vidcls.data.synthetic import make_motion_clips

SPEC = ClipSpec(n_frames=4, size=32, sampling='random')


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    return from_folder(make_motion_clips(tmp_path_factory.mktemp('clips'), n_groups=6, n_frames=12, size=32))


def million(n, root):
    "A table whose rows look like Kinetics'."
    i = np.arange(n)
    path = [f'train/playing_harmonica/a{k:011d}_{k%300:06d}_{k%300+10:06d}.mp4' for k in i]
    return ClipTable(
        pd.DataFrame(
            dict(path=path, label=np.char.add('c', (i % 400).astype(str)), group=path, split='train')
        ),
        root,
    )


def test_a_killed_worker_is_named_with_its_file(table):
    dl = loader(table, SPEC, bs=2, shuffle=True, workers=1, timeout_s=3)
    l = iter(dl)
    next(l)
    # PyTorch's raises wherever the test is just then, perhaps not in the loader
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for p in dl._iterator._workers:
            os.kill(p.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r'\.mp4') as e:
            list(l)
    finally:
        signal.signal(signal.SIGCHLD, handler)
    assert isinstance(e.value, RuntimeError)


@pytest.mark.parametrize('how', [dict(threads=1), dict(workers=1)])
def test_a_clip_that_never_comes_is_given_up(table, how, monkeypatch):
    import vidcls.data.clips as module
    real = module.load_clip
    def load(path, *args):
        if path == table.paths[5]:
            time.sleep(3)
        return real(path, *args)
    monkeypatch.setattr(module, 'load_clip', load)
    l = loader(table, SPEC, bs=4, ram_gb=0, timeout_s=1, **how)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=table.paths[5].name):
        list(l)
    assert time.monotonic()-start < 8


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_million_rows_are_cheap_for_every_further_process(tmp_path):
    n = 1_000_000
    ds = ClipDataset(million(n, tmp_path), SPEC)
    with open(tmp_path/'ds.pickle', 'wb') as f:
        pickle.dump(ds, f)
    script = ("import gc, pickle, sys; from vidcls.data.loaders import ClipDataset\n"
              "memory = lambda: int(open('/proc/self/statm').read().split()[1])*4096\n"
              "before = memory(); ds = pickle.load(open(sys.argv[1], 'rb')); gc.collect()\n"
              "ds.paths[123456], ds.targets[5]; print(memory()-before, len(ds))")
    out = subprocess.run(
        [sys.executable, '-c', script, tmp_path / 'ds.pickle'], capture_output=True, text=True, check=True
    ).stdout.split()
    used, rows = map(int, out)
    assert rows == n and 40 < used/n < 200, used/n
    print(f'{used/n:.0f} bytes a row')


@pytest.mark.slow
def test_the_order_of_a_million_rows_needs_no_python_objects(tmp_path):
    from vidcls.data.loaders import EpochSampler
    order = EpochSampler(1_000_000, True, repeats=2).order(0)
    assert order.nbytes == 16_000_000 and (order[::2,0] == order[1::2,0]).all() and (order[1::2,1] == 1).all()
    drawn = EpochSampler(1000, True, weights=np.r_[np.ones(10), np.zeros(990)]).order(3)
    seen = {}
    for row, draw in drawn.tolist():
        assert draw == seen.get(row, 0)
        seen[row] = draw+1


def test_threads_and_accelerate(table):
    "fit's way of keeping the threads: the same batches, the last one known as the last."
    from accelerate import Accelerator
    acc = Accelerator(cpu=True)
    l = loader(table, SPEC, bs=5, shuffle=True)
    ready = acc.prepare(l)
    assert hasattr(ready, 'base_dataloader'), "accelerate has changed; see fit's _share"
    ready.base_dataloader = l
    ends, rows = [], []
    for b in ready:
        ends.append(acc.gradient_state.end_of_dataloader)
        rows.append(b.rows)
    assert ends == [False]*(len(l)-1) + [True]
    assert torch.equal(torch.cat(rows), torch.cat([b.rows for b in loader(table, SPEC, bs=5, shuffle=True)]))


def test_threads_leave_nothing_behind(table):
    l = loader(table, SPEC, bs=4, shuffle=True, threads=3)
    before = threading.active_count()
    for _ in range(3):
        for b in l:
            break                                         # left in the first batch
        del b
    import gc
    gc.collect()
    for _ in range(100):  # an idle thread ends by itself, a moment later
        if threading.active_count() <= before:
            break
        time.sleep(.05)
    assert threading.active_count() <= before


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_pinned_buffers_are_not_written_over_under_a_copy(table):
    l = loader(table, SPEC, bs=8, shuffle=True)
    want = [b.clips for b in loader(table, SPEC, bs=8, shuffle=True)]
    got = [b.clips.cuda(non_blocking=True) for b in l]
    assert all(torch.equal(a, b.cpu()) for a,b in zip(want, got))
