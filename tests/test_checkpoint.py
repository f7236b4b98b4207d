"Kills in the middle of a save, a full disk, damaged files, readers and writers side by side."
import json, os, signal, subprocess, sys, time, warnings

import pytest
import torch

from vidcls.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from vidcls.core import CheckpointError

WRITER = """
import os, sys, torch
from vidcls.training.checkpoint import save_checkpoint
torch.manual_seed(0)
step, x = int(sys.argv[2]), torch.randn(200, 1000)
print('ready', flush=True)
while True:
    step += 1
    save_checkpoint(sys.argv[1], {'step': step, 'x': x*step, 'nest': [{3: (x[:2], 'a')}]}, step)
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == 'nt', reason='kills by signal')
def test_fifty_kills_leave_a_whole_checkpoint(tmp_path):
    "A process that saves without pause is killed fifty times; what is read is whole and not older than said."
    g, half = torch.Generator().manual_seed(0), 0
    torch.manual_seed(0)
    x = torch.randn(200, 1000)
    script = ZYGOTE.replace('BODY', WRITER.split("print('ready', flush=True)")[1].replace('\n', '\n        '))
    run = subprocess.Popen(
        [sys.executable, '-c', script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(50):
            print('go', file=run.stdin, flush=True)
            pid = int(run.stdout.readline())
            time.sleep(.02 + .1*torch.rand((), generator=g).item())
            os.kill(pid, signal.SIGKILL)
            said = run.stdout.readline()                                # the zygote has waited for it
            half += any(p.name.startswith('.') for p in tmp_path.iterdir())
            with warnings.catch_warnings():
                warnings.simplefilter('error')  # a newest one that is damaged would be said
                path, state = latest_checkpoint(tmp_path)
            if state is None:
                continue
            assert torch.equal(state['x'], x*state['step']) and path.name == f"step_{state['step']:09}"
            assert state['nest'][0][3][1] == 'a' and said
    finally:
        run.kill()
    assert state['step'] > 10 and half > 0  # it was met while writing, more than once
    assert len([p for p in tmp_path.iterdir() if not p.name.startswith('.')]) <= 3


ZYGOTE = """
import os, sys, torch
from vidcls.training.checkpoint import latest_checkpoint, save_checkpoint
torch.manual_seed(0); x = torch.randn(200, 1000); torch.set_num_threads(1)
for line in sys.stdin:                           # forks, so that torch is imported once
    pid = os.fork()
    if not pid:
        sys.stdout = open(os.devnull, 'w')
        step = (latest_checkpoint(sys.argv[1])[1] or {'step': 0})['step']
        BODY
    print(pid, flush=True); os.waitpid(pid, 0); print('gone', flush=True)
"""


def test_a_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
    "The disk says no in the middle of writing."
    import vidcls.training.checkpoint as c
    save_checkpoint(tmp_path, {'x': torch.ones(3)}, 1)
    def full(path):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(c, '_sync', full)
    with pytest.raises(
        CheckpointError,
        match='no space; the checkpoint needs 4 MB and .* MB are free. The one before is untouched',
    ):
        save_checkpoint(tmp_path, {'x': torch.ones(1_000_000)}, 2)
    assert [p.name for p in tmp_path.iterdir()] == ['step_000000001']
    assert torch.equal(latest_checkpoint(tmp_path)[1]['x'], torch.ones(3))


def test_a_step_that_is_kept_twice_is_there_at_each_moment(tmp_path, monkeypatch):
    "Ended between any two calls that change the folder, one of the two is found."
    import vidcls.training.checkpoint as c
    save_checkpoint(tmp_path, {'x': torch.zeros(3)}, 7, keep=1)
    rename, seen = os.rename, []
    def watched(a, b):
        for moment in range(2):
            seen.append(float(latest_checkpoint(tmp_path)[1]['x'][0]))
            if not moment:
                rename(a, b)
    monkeypatch.setattr(c.os, 'rename', watched)
    for k in (1,2):
        assert save_checkpoint(tmp_path, {'x': k*torch.ones(3)}, 7, keep=1).name == f'step_000000007_{k:03}'
    assert seen == [0,1,1,1, 1,2,2,2] and len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    assert (
        save_checkpoint(tmp_path, {}, 8, keep=1).name == 'step_000000008'
        and len(list(tmp_path.iterdir())) == 1
    )


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs a real full device')
def test_a_real_small_disk(tmp_path, small_disk):
    "A file system of one megabyte, where it can be made."
    with small_disk(tmp_path/'small', '1m') as place:
        save_checkpoint(place, {'x': torch.ones(50_000)}, 1)
        with pytest.raises(CheckpointError, match='no space'):
            save_checkpoint(place, {'x': torch.ones(500_000)}, 2)
        assert [p.name for p in place.iterdir()] == ['step_000000001']
        load_checkpoint(place/'step_000000001')


@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match='could not be written'):
        save_checkpoint(tmp_path/'x', {}, 1)


@pytest.mark.parametrize('damage', ['cut', 'empty', 'flip', 'no manifest', 'other manifest', 'newer', 'list'])
def test_damage_is_noticed(tmp_path, damage):
    path = save_checkpoint(tmp_path, {'x': torch.randn(1000), 'n': 3}, 1)
    f, m = path/'state.safetensors', path/'manifest.json'
    raw = f.read_bytes()
    if damage == 'cut':
        f.write_bytes(raw[:len(raw)//2])
    if damage == 'empty':
        f.write_bytes(b'')
    if damage == 'flip':
        f.write_bytes(raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:])
    if damage == 'no manifest':
        m.unlink()
    if damage == 'other manifest':
        m.write_text(json.dumps({'format': 1, 'sha256': {'../../../etc/passwd': 'x'}}))
    if damage == 'newer':
        m.write_text(json.dumps({'format': 9, 'sha256': {}}))
    if damage == 'list':
        m.write_text('[]')
    with pytest.raises(CheckpointError, match='step_000000001'):
        load_checkpoint(path)
    if damage != 'no manifest':
        with pytest.raises(
            CheckpointError, match='newer vidcls' if damage == 'newer' else 'No other can be read either'
        ):
            latest_checkpoint(tmp_path)
    save_checkpoint(tmp_path, {'n': 4}, 0)
    if damage == 'newer':
        return
    if damage not in ('no manifest',):
        # the damaged one is not one of those kept
        assert [p.name for p in tmp_path.iterdir()] == ['step_000000000']
    assert latest_checkpoint(tmp_path)[1]['n'] == 4

def test_what_a_process_of_the_same_number_left_is_swept_away(tmp_path):
    "In a container each process is number 1."
    for name in (
        f'.step_000000005.{os.getpid()}.0a0b0c0d',
        f'.step_000000005.{os.getpid()}.0a0b0c0d.old',
        f'.step_000000005.{os.getpid()}',
    ):
        (tmp_path/name).mkdir()
        (tmp_path/name/'x').write_text('x')
    for step in (5, 6, 7):
        save_checkpoint(tmp_path, {}, step, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ['step_000000007']


def test_every_kind_of_tensor(tmp_path):
    "Half precision, integers, no dimensions, nothing in it, views, the same memory twice, NaN."
    a = torch.randn(4,4)
    state = dict(
        bf=a.bfloat16(),
        h=a.half(),
        i=torch.arange(3),
        b=torch.tensor([True]),
        zero=torch.tensor(3.0),
        none=torch.zeros(0, 2),
        view=a.T,
        twice=a,
        again=a,
        nan=torch.tensor([float('nan'), float('inf')]),
        u8=torch.get_rng_state(),
    )
    back = load_checkpoint(save_checkpoint(tmp_path, state, 1))
    for k,v in state.items():
        assert back[k].dtype == v.dtype and torch.equal(
            torch.nan_to_num(back[k].float()), torch.nan_to_num(v.float())
        ), k


@pytest.mark.slow
def test_readers_beside_a_writer(tmp_path):
    "While one process saves and removes, another finds a whole checkpoint every time."
    save_checkpoint(tmp_path, {'step': 0, 'x': torch.zeros(1)}, 0)
    p = subprocess.Popen(
        [sys.executable, '-c', WRITER, str(tmp_path), '0'], stdout=subprocess.PIPE, text=True
    )
    try:
        assert p.stdout.readline() == 'ready\n'
        last, end = -1, time.time()+3
        while time.time() < end:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # removed while it was read: the next newest is taken
                _, state = latest_checkpoint(tmp_path)
            if state is not None:
                assert state['step'] >= 0
                last = max(last, state['step'])
        assert last > 2
    finally:
        p.kill()
