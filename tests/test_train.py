"What a notebook cannot hold: several processes, kills, signals, a broken logbook, other people's loops."
import math, os, re, shutil, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import pytest
import torch

from processes import linux, run_script
from vidcls.training.checkpoint import latest_checkpoint
from vidcls.core import ArgumentError, CheckpointError, LabelError, SpecMismatchError, VidclsError
from vidcls.core import WorkerError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import make_motion_clips, roll_clips
from vidcls.distill import Distill, SeededAugment
from vidcls.losses import FocalLoss
from vidcls.mix import Mixup
from vidcls.models.zoo import create_model
from vidcls.optim import freeze_layers
from vidcls.train import Callback, EarlyStopping, fit
from vidcls.tune import lr_find

TIMES = ('seconds', 'waiting', 'clips_per_s')


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    # 64 clips to train on
    return make_motion_clips(tmp_path_factory.mktemp('motion'), n_groups=11, n_frames=8, size=32)

def small(n=8, **kw):
    seed_everything(0)
    return create_model('videomae_tiny', n_classes=n, dim=48, depth=2, **kw)

def flat(model): return torch.cat([p.detach().cpu().flatten() for p in model.parameters()])
def strip(hist): return [{k: v for k,v in r.items() if k not in TIMES} for r in hist.rows]


# --- several processes

SCRIPT = """
import atexit, sys, torch
from accelerate import PartialState
from vidcls.core import WorkerError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import roll_clips
from vidcls.distill import Distill, SeededAugment
from vidcls.evaluate import evaluate
from vidcls.models.zoo import create_model
from vidcls.train import Callback, fit
folder, bs, out, how = sys.argv[1:]
def see(): open(f'{out}.left', 'a').write('no ' if torch.distributed.is_initialized() else 'yes ')
atexit.register(see)                                                     # called last
SHARD
if how == 'sharded': shard()
class Ten(Callback):
    def after_step(self, run):
        if run.sharded:                                  # each holds a half; blocks are fetched one by one
            w = run.net.blocks[0].mlp.fc1.weight
            assert 2*w.to_local().numel() == w.numel() and type(run.net.blocks[0]).__name__ == 'FSDPBlock'
        if run.step == 10: run.stop('ten steps')
seed_everything(0)
model = create_model('videomae_tiny', n_classes=8, head_init_scale=1.)
table = from_folder(folder)
if how == 'uneven': table = table.filter(table.df.index < len(table)-7)
dls = loaders(table, model.spec, bs=int(bs))
extra = dict(optimizer='sgd', lr=.05, wd=0) if how != 'adamw' else {}
if how == 'uneven': extra |= dict(trackers='tensorboard', out=out + ' tracked')
if how == 'frozen': extra |= dict(freeze=-1)
teacher = lambda: create_model('videomae_tiny', n_classes=8, dim=48, depth=2)
cbs = [Ten()] if how in ('ten', 'frozen', 'sharded', 'features') else []
if how == 'features': cbs.append(Distill(teacher(), features=1.))
if how == 'cached':
    extra |= dict(augment=SeededAugment(roll_clips, variants=2))
    known = Distill(teacher(), cache=out + ' answers')
    fit(model, dls, epochs=2, patience=None, show=False, callbacks=[known], **extra)
    PartialState().wait_for_everyone()                       # until the other one has written, too
    asked = known.asked; cbs = [known]
hist = fit(model, dls, epochs=4, patience=None, show=False, callbacks=cbs, **extra)
if how == 'cached': assert known.asked == asked > 0          # what one has asked, the other knows
state = PartialState()
if how == 'uneven':                                          # the processes are still together
    assert evaluate(model, dls.valid, show=False).n_evaluated == len(dls.valid.dataset)
if state.is_main_process:
    weights = torch.cat([p.detach().cpu().flatten() for p in model.parameters()])
    valid = torch.tensor([r['valid_loss'] or 0 for r in hist.rows])
    torch.save({'processes': state.num_processes, 'weights': weights, 'valid': valid,
                'train': torch.tensor([r['train_loss'] for r in hist.rows]), 'n': len(hist)}, out)
"""

SHARD = """
def shard():
    "accelerate shards on cards only; told otherwise, PyTorch does the same on CPUs, over gloo."
    import accelerate
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    class Sharding(accelerate.Accelerator):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            if self.num_processes == 1: return
            plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy='transformer_based_wrap')
            self.state.distributed_type, self.state.fsdp_plugin = DistributedType.FSDP, plugin
    accelerate.Accelerator = Sharding
"""

def run_processes(tmp_path, clips, n, bs, how):
    out = tmp_path/f'{how}{n}.pt'
    run_script(tmp_path/'train.py', SCRIPT.replace('SHARD', SHARD), clips, bs, out, how, n=n, check=True)
    got = torch.load(out, weights_only=True)
    assert got['processes'] == n
    # a group that nobody leaves can abort the end of its processes
    assert Path(f'{out}.left').read_text() == n*'yes '
    return got

@linux
@pytest.mark.parametrize('how', ['ten', 'features', 'sharded', 'frozen'])
def test_two_processes_equal_one_after_ten_steps(tmp_path, clips, how):
    "Also with a teacher whose projector learns too, with sharded weights, and where the head alone learns."
    one, two = (run_processes(tmp_path, clips, n, 16//n, how) for n in (1,2))
    # the best weights are put back; ten steps are two epochs and a half, so they are the second epoch's
    assert (one['weights'] - two['weights']).abs().max() < 1e-6
    assert (one['train'] - two['train']).abs().max() < 1e-5 and one['n'] == two['n'] == 2

@linux
def test_two_processes_with_adamw(tmp_path, clips):
    one, two = (run_processes(tmp_path, clips, n, 16//n, 'adamw') for n in (1,2))
    # AdamW enlarges the rounding of small gradients
    assert (one['weights'] - two['weights']).abs().max() < 1e-3
    assert (one['valid'] - two['valid']).abs().max() < 1e-3

@linux
def test_two_processes_share_the_teachers_answers(tmp_path, clips):
    "Rows are dealt anew in each epoch: a second training asks nothing, whichever process gets a clip."
    assert run_processes(tmp_path, clips, 2, 8, 'cached')['n'] == 4

@linux
def test_two_processes_with_an_uneven_end(tmp_path, clips):
    "57 clips in batches of 8: nobody waits for ever, and validation counts each clip once."
    pytest.importorskip('tensorboard')
    one, two = (run_processes(tmp_path, clips, n, 16//n, 'uneven') for n in (1,2))
    assert two['n'] == 4 and (one['valid'] - two['valid']).abs().max() < .05


PAIR = """
import os, shutil, signal, sys, threading, torch
from vidcls.core import ArgumentError, CheckpointError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.shards import shard_loaders
from vidcls.data.synthetic import roll_clips
from vidcls.models.zoo import create_model
from vidcls.train import Callback, fit
folder, out, mode = sys.argv[1:]
rank = int(os.environ['RANK'])
SHARD
sharded = mode == 'sharded'
how = dict(ends=dict(ram_gb=0), workers=dict(ram_gb=0, workers=1, timeout_s=20)).get(mode, {})
if os.getpgrp() != os.getpid(): os.setpgrp()     # a group of its own, or a signal to it would end the tests
if sharded: shard()
import vidcls.parallel
started, in_thread = [], vidcls.parallel._in_thread
def counted(work): started.append(1); in_thread(work)
vidcls.parallel._in_thread = counted
class One(Callback):
    "What happens to the second process alone."
    def __init__(self, what): self.what = what
    def after_batch(self, run):
        if run.n_steps == 1: torch.save(torch.get_rng_state(), f'{out}/chance{rank}.pt')
        if mode == 'ends' and run.done == 1: assert started                  # each share is made by threads
        if rank == 1 and run.n_steps == 6:
            if self.what == 'stop': run.stop('enough')
            if self.what in ('SIGTERM', 'SIGINT', 'SIGKILL'): os.kill(os.getpid(), getattr(signal, self.what))
            if self.what == 'group': os.killpg(0, signal.SIGTERM)    # to the workers, too
            if self.what == 'dead':
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                workers = run.train_loader.plan._iterator._workers
                for p in workers: os.kill(p.pid, signal.SIGKILL)
    def before_validate(self, run):
        if rank == 1 and run.epoch == 1 and self.what == 'judging': os.kill(os.getpid(), signal.SIGINT)
def train(where, what=None, every=None):
    seed_everything(0)
    model = create_model('videomae_tiny', n_classes=8, dim=48, depth=2, dropout=.1, drop_path=.2)
    if mode == 'shards': dls = shard_loaders(folder, model.spec, bs=8)
    else: dls = loaders(from_folder(folder), model.spec, bs=8, **how)
    kept = dict(out=f'{out}/{where}', every=every, resume='auto')
    try: hist = fit(model, dls, epochs=3, lr=1e-3, augment=roll_clips, ema=None if sharded else .9,
                    patience=None, callbacks=[One(what)], show=False, **kept)
    except SystemExit as e: return str(e.code)
    if hist.stopped: return hist.stopped
    rows = [{k: v for k,v in r.items() if k not in ('seconds', 'waiting', 'clips_per_s')} for r in hist.rows]
    return torch.cat([p.detach().flatten() for p in model.parameters()]), repr(rows)
def is_same(a, b): return torch.equal(a[0], b[0]) and a[1] == b[1]
if mode == 'kill': train('killed', 'SIGKILL', every=1)
whole = train('whole', every='0.001min')         # 60 ms: each by its own clock, they would never meet again
both = lambda *whats: {what: (train(what, what), is_same(train(what), whole)) for what in whats}
said = both('SIGTERM', 'SIGINT', 'judging', 'stop') if mode == 'ends' else {}
if sharded:
    said = {what: (train(what, what), is_same(train(what), whole)) for what in ('SIGTERM', 'stop')}
    model = create_model('videomae_tiny', n_classes=8)
    try: fit(model, loaders(from_folder(folder), model.spec, bs=8), epochs=1, ema=.9)
    except ArgumentError as e: said['ema'] = str(e)
if mode == 'workers':
    said = {what: (train(what, what), is_same(train(what), whole)) for what in ['group']}
    torch.save(said, f'{out}/said{rank}.pt'); train('dead', 'dead')
if mode == 'shards': said = {what: (train(what, what), is_same(train(what), whole)) for what in ['stop']}
if mode == 'gone on':
    said = {'killed': is_same(train('killed', every=1), whole)}
    if rank == 0: shutil.copytree(f'{out}/whole', f'{out}/disk0')
    try: train(f'disk{rank}')                    # a disk of its own for each, as on machines that share none
    except CheckpointError as e: said['own disks'] = 'processes find different checkpoints' in str(e)
torch.save(said, f'{out}/said{rank}.pt')
"""

UNTOLD = """
import sys, torch
from accelerate import PartialState
from vidcls.core import VidclsError
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.models.zoo import create_model
from vidcls.train import fit
folder, out, early = sys.argv[1:]
if early == 'early':
    PartialState()
table = from_folder(folder)
model = create_model('videomae_tiny', n_classes=table.n_classes, dim=24, depth=1, heads=2)
try:
    fit(model, loaders(table, model.spec, bs=8), epochs=1, show=False)
    said = str(PartialState().num_processes)
except VidclsError as e:
    said = str(e)
with open(out, 'a') as f:
    f.write(said + chr(10))
"""


@linux
@pytest.mark.skipif(torch.cuda.is_available(), reason='two processes would meet on one card')
@pytest.mark.parametrize('early', ['no', 'early'])
def test_torchrun_on_cpus_trains_one_network(tmp_path, clips, early):
    "Nobody has told accelerate to take the CPU; where that can't be mended any more, it is an error."
    out = tmp_path/'said'
    run_script(tmp_path/'untold.py', UNTOLD, clips, out, early, told=False, check=True)
    said = out.read_text().splitlines()
    assert said == ['2', '2'] if early == 'no' else all('each would train alone' in s for s in said)


def run_pair(tmp_path, clips, mode):
    return run_script(tmp_path/'pair.py', PAIR.replace('SHARD', SHARD), clips, tmp_path, mode,
                      timeout_s=200, capture_output=True, text=True)

@linux
def test_processes_end_together_and_go_on(tmp_path, clips):
    "A clock, a signal, a stop that only one process has: both end at the same step and go on to the bit."
    done = run_pair(tmp_path, clips, 'ends')
    assert done.returncode == 0, done.stderr[:3000]
    said, other = (torch.load(tmp_path/f'said{r}.pt', weights_only=True) for r in (0,1))
    assert (
        said
        == other
        == {
            'SIGTERM': ('143', True),
            'SIGINT': ('interrupted', True),
            'judging': ('interrupted', True),
            'stop': ('enough', True),
        }
    )
    # other dropout for other clips
    assert not torch.equal(*(torch.load(tmp_path/f'chance{r}.pt', weights_only=True) for r in (0,1)))

@linux
def test_processes_with_workers_end_together(tmp_path, clips):
    "A signal to a process and its workers ends in a checkpoint; of a dead worker the error names the file."
    done = run_pair(tmp_path, clips, 'workers')
    assert [torch.load(tmp_path / f'said{r}.pt', weights_only=True) for r in (0, 1)] == 2 * [
        {'group': ('143', True)}
    ], done.stderr[:3000]
    assert done.returncode != 0 and re.search(
        r'WorkerError: .*the worker processes were at: .*[.]mp4', done.stderr
    ), done.stderr[:3000]

@linux
def test_sharded_processes_go_on(tmp_path, clips):
    "Each holds a half of the weights; what they keep is whole, and what goes on ends as if nothing had been."
    done = run_pair(tmp_path, clips, 'sharded')
    assert done.returncode == 0, done.stderr[:3000]
    said = torch.load(tmp_path/'said0.pt', weights_only=True)
    assert 'EMA: needs whole weights' in said.pop('ema')
    assert said == {'SIGTERM': ('143', True), 'stop': ('enough', True)}
    state = latest_checkpoint(tmp_path/'whole'/'checkpoints')[1]
    create_model('videomae_tiny', n_classes=8, dim=48, depth=2).load_state_dict(state['model'])

@linux
def test_processes_that_stream_shards_go_on(tmp_path, clips):
    pytest.importorskip('webdataset')
    from vidcls.data.shards import write_shards
    write_shards(from_folder(clips), tmp_path/'tars', shard_mb=.02)
    done = run_pair(tmp_path, tmp_path/'tars', 'shards')
    assert done.returncode == 0, done.stderr[:3000]
    assert torch.load(tmp_path/'said0.pt', weights_only=True) == {'stop': ('enough', True)}

@linux
def test_two_processes_killed_and_gone_on(tmp_path, clips):
    assert run_pair(tmp_path, clips, 'kill').returncode != 0
    assert list((tmp_path/'killed'/'checkpoints').glob('step_*')) and not (tmp_path/'said0.pt').exists()
    done = run_pair(tmp_path, clips, 'gone on')
    assert done.returncode == 0, done.stderr[:3000]
    assert all(
        torch.load(tmp_path / f'said{r}.pt', weights_only=True) == {'killed': True, 'own disks': True}
        for r in (0, 1)
    )


# --- accumulation

@pytest.mark.parametrize('bs,accum', [(4,4), (8,2), (3,6)])
def test_accumulation_equals_the_large_batch(clips, bs, accum):
    "Also where the last are short: 64 clips are 3·21+1, and 22 batches are three groups of six and four."
    def run(bs, accum):
        model = small(head_init_scale=1.)
        h = fit(
            model,
            loaders(from_folder(clips), model.spec, bs=bs),
            epochs=2,
            lr=0.05,
            wd=0,
            optimizer='sgd',
            accum=accum,
            show=False,
            smoothing=0.0,
        )
        return flat(model), h['train_loss']
    (a,la), (b,lb) = run(bs*accum, 1), run(bs, accum)
    assert (a-b).abs().max() < 1e-6 and np.allclose(la, lb, atol=1e-5)

def test_an_own_step_is_taken_for_the_short_group(clips):
    "A group that ends short is a step of its own, of the size that it has: by hand."
    model, twin = small(head_init_scale=1.), small(head_init_scale=1.)
    dls = loaders(from_folder(clips), model.spec, bs=24)  # 24 + 24 + 16
    fit(
        model,
        dls,
        epochs=1,
        lr=0.05,
        wd=0,
        optimizer='sgd',
        accum=2,
        schedule='constant',
        warmup=0,
        max_grad_norm=None,
        smoothing=0.0,
        show=False,
    )
    opt, vel = list(twin.parameters()), None
    dls.train.sampler.set_epoch(0)
    batches = [(b.clips.clone(), b.labels.clone()) for b in dls.train]
    twin.train()
    for group in (batches[:2], batches[2:]):
        x, y = torch.cat([c for c,_ in group]), torch.cat([l for _,l in group])
        grads = torch.autograd.grad(torch.nn.functional.cross_entropy(twin(twin.spec.to_model(x)), y), opt)
        vel = [g if vel is None else .9*v+g for v,g in zip(vel or grads, grads)]
        with torch.no_grad():
            for p,v in zip(opt, vel):
                p -= .05*v
    assert (flat(model)-flat(twin)).abs().max() < 1e-6


# --- killed and gone on

KILLED = """
import os, random, signal, sys, time, torch
from pathlib import Path
from vidcls.core import WorkerError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import roll_clips
from vidcls.mix import Mixup
from vidcls.models.zoo import create_model
from vidcls.train import fit
torch.set_num_threads(1)
folder, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def train(where):
    "With all that draws or remembers: dropped paths, augmentation, mixing, EMA, drawn frames, accumulation."
    seed_everything(0)
    how = dict(drop_path=.2, dropout=.1, n_frames=4, sampling='random')
    model = create_model('videomae_tiny', n_classes=8, dim=48, depth=2, **how)
    dls = loaders(from_folder(folder), model.spec, bs=5, threads=2)
    hist = fit(model, dls, epochs=4, lr=2e-3, augment=roll_clips, mix=Mixup(8), ema=.9, accum=2, patience=3,
               out=where, every=1, resume='auto', show=False)
    rows = [{k: v for k,v in r.items() if k not in ('seconds', 'waiting', 'clips_per_s')} for r in hist.rows]
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.save({'weights': weights, 'rows': repr(rows), 'best': hist.best}, where/'end.pt')

def child(where):
    pid = os.fork()                              # torch is imported once for all of them
    if not pid: train(where); os._exit(0)
    return pid

def saving(where): return any((where/'checkpoints').glob('.step_*'))

def await_save(where):
    "Every second kill comes while a checkpoint is written, or soon after it."
    end = time.time()+1
    while time.time() < end and not saving(where): pass

start = time.time(); os.waitpid(child(out/'whole'), 0); whole_s = time.time()-start
want, rng, done, met = torch.load(out/'whole'/'end.pt', weights_only=True), random.Random(0), 0, 0
while done < kills:
    where = out/f'run{done}'
    for _ in range(200):
        pid = child(where); time.sleep(rng.uniform(.1, .6)*whole_s)
        if done % 2: await_save(where)
        if os.waitpid(pid, os.WNOHANG)[0]: break
        os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0); done += 1
        met += saving(where)
        if done % 5 == 0: os.waitpid(child(where), 0); break             # let it end after five
    got = torch.load(where/'end.pt', weights_only=True)
    assert torch.equal(got['weights'], want['weights']), f'weights differ after {done} kills'
    assert got['rows'] == want['rows'] and got['best'] == want['best'], f"{got['rows']}\\n{want['rows']}"
print(f'{done} kills, {met} of them in the middle of a save')
"""

@linux
def test_twenty_kills_end_bit_identical(tmp_path, clips):
    done = subprocess.run(
        [sys.executable, '-c', KILLED, clips, tmp_path, '20'],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert (
        done.returncode == 0
        and done.stdout.startswith('20 kills')
        and not done.stdout.startswith('20 kills, 0 of')
    ), done.stdout + done.stderr

def test_going_on_with_something_else_is_refused(tmp_path, clips):
    dls = loaders(from_folder(clips), small().spec, bs=16)
    fit(small(), dls, epochs=2, out=tmp_path, show=False)
    other = loaders(from_folder(clips), small().spec, bs=16, seed=5)
    swapped = loaders(from_folder(clips), small().spec, bs=16)
    swapped.train.dataset.targets = swapped.train.dataset.targets[::-1].copy()
    for what, call in {
        'lr: 0.001 there, 0.01 here': lambda: fit(
            small(), dls, epochs=2, lr=0.01, out=tmp_path, resume='auto'
        ),
        'augment: None there, .<function roll_clips>. here': lambda: fit(
            small(), dls, epochs=2, augment=roll_clips, out=tmp_path, resume='auto'
        ),
        'mix: None there, .Mixup.n_classes=8, alpha=0.5': lambda: fit(
            small(), dls, epochs=2, mix=Mixup(8, 0.5), out=tmp_path, resume='auto'
        ),
        'loss: None there, .FocalLoss.gamma=2.0. ': lambda: fit(
            small(), dls, epochs=2, loss=FocalLoss(2.0, torch.ones(8)), out=tmp_path, resume='auto'
        ),
        "monitor: 'accuracy' there, 'valid_loss'": lambda: fit(
            small(), dls, epochs=2, monitor='valid_loss', out=tmp_path, resume='auto'
        ),
        "arguments: {'dim': 48, 'depth': 2} there, {.*'drop_path': 0.1}": lambda: fit(
            small(drop_path=0.1), dls, epochs=2, out=tmp_path, resume='auto'
        ),
        'patience: 15 there, 3 here': lambda: fit(
            small(), dls, epochs=2, patience=3, out=tmp_path, resume='auto'
        ),
        "loading: .*'seed': 0.* there, .*'seed': 5": lambda: fit(
            small(), other, epochs=2, out=tmp_path, resume='auto'
        ),
        r"\(clips: '64 \(\w+\)' there, '64 \(\w+\)' here\)": lambda: fit(
            small(), swapped, epochs=2, out=tmp_path, resume='auto'
        ),
        'epochs: 2 there, 3 here': lambda: fit(small(), dls, epochs=3, out=tmp_path, resume='auto'),
        'n_weights': lambda: fit(
            create_model('videomae_tiny', n_classes=8), dls, epochs=2, out=tmp_path, resume='auto'
        ),
        r"clips: '64 \(": lambda: fit(
            small(),
            loaders(from_folder(clips, seed=1).filter(lambda d: d.group != 'g0000'), small().spec, bs=16),
            epochs=2,
            out=tmp_path,
            resume='auto',
        ),
    }.items():
        with pytest.raises(CheckpointError, match=what):
            call()
    again = small()
    # ended already: its result
    assert len(fit(again, dls, epochs=2, out=tmp_path, resume='auto', show=False)) == 2
    with pytest.raises(CheckpointError, match='holds no checkpoint'):
        fit(small(), dls, epochs=2, out=tmp_path/'x', resume=True)


# --- signals

SIGNALLED = """
import sys
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.models.zoo import create_model
from vidcls.train import Callback, fit
class Say(Callback):
    def after_step(self, run): print('step', run.step, flush=True)
model = create_model('videomae_tiny', n_classes=8, dim=48, depth=2)
dls = loaders(from_folder(sys.argv[1]), model.spec, bs=8)
hist = fit(model, dls, epochs=10000, patience=None, out=sys.argv[2], show=False, callbacks=[Say()])
print('returned', hist.interrupted, hist.stopped, model.training, flush=True)
"""

@linux
@pytest.mark.parametrize('number,code', [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_signals_keep_a_checkpoint(tmp_path, clips, number, code):
    from vidcls.training.checkpoint import latest_checkpoint

    p = subprocess.Popen(
        [sys.executable, '-c', SIGNALLED, clips, tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for _ in range(13):
        assert p.stdout.readline().startswith('step')
    p.send_signal(number)
    out, err = p.communicate(timeout=60)
    assert p.returncode == code, err
    _, state = latest_checkpoint(tmp_path/'checkpoints')
    last = int(out.split('step ')[-1].split()[0]) if 'step' in out else 13
    assert state['n_steps'] == last                                             # not one step is lost
    if number == signal.SIGINT:
        assert 'returned True interrupted False' in out


class At(Callback):
    "Does something at an event, once."
    def __init__(self, event, do, when=lambda run: True):
        def once(run):
            if when(run) and not self.done:
                self.done = True
                do(run)
        self.done = False
        setattr(self, event, once)

def drawing(clips, where, *callbacks, load={}, **kw):
    "Three epochs of a model that draws, in a loader that draws when it begins; weights and rows."
    m = small(drop_path=.2, dropout=.1)
    hist = fit(
        m,
        loaders(from_folder(clips), m.spec, bs=16, **load),
        epochs=3,
        augment=roll_clips,
        ema=0.9,
        out=where,
        resume='auto',
        show=False,
        callbacks=callbacks,
        **kw,
    )
    return flat(m), strip(hist), hist

ANYWHERE = ['after_batch', 'after_train', 'before_validate', 'after_validate', 'after_epoch']

@linux
@pytest.mark.parametrize('event', ANYWHERE)
def test_a_signal_anywhere_keeps_a_checkpoint(tmp_path, clips, event):
    "Between two steps, at the end of an epoch, while it is judged; also where the model draws."
    weights, rows, _ = drawing(clips, tmp_path/'whole', At('after_fit', lambda run: None))
    second = lambda run: run.epoch == 1
    _, cut, hist = drawing(
        clips, tmp_path / 'cut', At(event, lambda run: os.kill(os.getpid(), signal.SIGINT), second)
    )
    assert hist.interrupted and len(cut) == (2 if event in ('after_validate', 'after_epoch') else 1)
    again, rows2, _ = drawing(clips, tmp_path/'cut', At('after_fit', lambda run: None))
    assert torch.equal(weights, again) and rows == rows2
    with pytest.raises(SystemExit, match='143'):
        drawing(clips, tmp_path/'left', At(event, lambda run: os.kill(os.getpid(), signal.SIGTERM), second))
    again, rows2, _ = drawing(clips, tmp_path/'left', At('after_fit', lambda run: None))
    assert torch.equal(weights, again) and rows == rows2

def test_a_training_with_workers_goes_on_to_the_bit(tmp_path, clips):
    "The seed that PyTorch draws for workers, once and again on going on, must not move what the model draws."
    load = dict(ram_gb=0, workers=1)
    weights, rows, _ = drawing(clips, tmp_path/'whole', At('after_fit', lambda run: None), load=load)
    drawing(
        clips,
        tmp_path / 'cut',
        At('after_batch', lambda run: run.stop('enough'), lambda run: run.epoch == 1 and run.done == 2),
        load=load,
    )
    again, rows2, _ = drawing(clips, tmp_path/'cut', At('after_fit', lambda run: None), load=load)
    assert torch.equal(weights, again) and rows == rows2

@pytest.mark.parametrize('event', ['after_step', 'after_train', 'before_validate', 'after_validate'])
def test_a_stop_does_not_drop_the_epoch(clips, event):
    "All its steps are done: it is judged, written down, and may be the best."
    # after_step comes before the count
    last = lambda run: event != 'after_step' or run.n_steps == run.n_batches-1
    hist = fit(
        small(),
        loaders(from_folder(clips), small().spec, bs=16),
        epochs=3,
        show=False,
        callbacks=[At(event, lambda run: run.stop('enough'), last)],
    )
    assert (len(hist), hist.best, hist.stopped) == (1, 0, 'enough') and hist['accuracy'][0] is not None


class Snapshot(Callback):
    "Copies of all that lies on the disk, as a power cut would leave it: without the step that runs."
    def __init__(self, folder, steps): self.folder, self.steps = folder, steps
    def after_batch(self, run):
        if run.n_steps in self.steps:
            shutil.copytree(self.folder, self.folder.with_name(f'cut{run.n_steps}'))

TAUGHT = {'features, thawing': dict(features=1.), 'cached answers': dict(alpha=.7),
          'both, layer decay': dict(features=1., alpha=.3)}

@pytest.mark.parametrize('how', TAUGHT.values(), ids=TAUGHT)
def test_a_distillation_goes_on_to_the_bit(tmp_path, clips, how):
    "With its projector and its moments, with frozen stages, and with a teacher's answers from the disk."
    teacher, table = small(), from_folder(clips)
    cached, extra = 'features' not in how, {'features': 1., 'alpha': .3} == how
    def train(folder, cut=()):
        seed_everything(1)
        student = create_model('videomae_tiny', n_classes=8, dim=24, depth=2, heads=2, dropout=.1)
        distil, seen = Distill(teacher, **how, cache=folder/'answers' if cached else None), []
        class Rates(Callback):
            def after_epoch(self, run):
                projector = distil.projector and flat(distil.projector).clone()
                seen.append(([g['lr'] for g in run.opt.param_groups], projector))

        hist = fit(
            student,
            loaders(table, student.spec, bs=16),
            epochs=4,
            lr=1e-3,
            augment=SeededAugment(roll_clips, 2),
            out=folder,
            every=1,
            resume='auto',
            layer_decay=0.5 if extra else 1.0,
            freeze=None if cached else {0: -1, 2: 1, 3: 0},
            callbacks=[distil, Rates(), Snapshot(folder, cut)],
            show=False,
        )
        return flat(student), strip(hist), seen
    weights, rows, seen = train(tmp_path/'whole', (3, 6, 9, 14))
    for cut in (3, 6, 9, 14):
        again, rows2, seen2 = train(tmp_path/f'cut{cut}')
        assert torch.equal(weights, again) and rows == rows2, cut
        if not cached:
            assert torch.equal(seen[-1][1], seen2[-1][1])
    if extra:
        # the projector as the head, at the full rate
        assert all(lrs[-2:] == [max(lrs[:-2])]*2 and min(lrs) < .2*max(lrs) for lrs,_ in seen)
    if not cached:
        assert not torch.equal(seen[0][1], seen[1][1])
    distil = Distill(teacher, **how | dict(alpha=.9), cache=tmp_path/'cut3'/'answers' if cached else None)
    with pytest.raises(CheckpointError, match='taught otherwise: .*alpha=.* there, .*alpha=0.9'):
        fit(
            create_model('videomae_tiny', n_classes=8, dim=24, depth=2, heads=2, dropout=0.1),
            loaders(table, teacher.spec, bs=16),
            epochs=4,
            lr=1e-3,
            augment=SeededAugment(roll_clips, 2),
            out=tmp_path / 'cut3',
            resume='auto',
            layer_decay=0.5 if extra else 1.0,
            freeze=None if cached else {0: -1, 2: 1, 3: 0},
            callbacks=[distil, Callback(), Callback()],
        )


# --- a disk, a logbook, a label, a callback that fail

def test_a_full_disk_does_not_end_the_training(tmp_path, clips, monkeypatch):
    import vidcls.training.checkpoint as c
    dls = loaders(from_folder(clips), small().spec, bs=32)
    def full(path): raise OSError(28, 'No space left on device')

    second = At(
        'after_validate', lambda run: monkeypatch.setattr(c, '_sync', full), lambda run: run.epoch == 1
    )
    with pytest.warns(UserWarning, match='no space.*Training goes on'):
        h = fit(small(), dls, epochs=2, out=tmp_path, show=False, callbacks=[second])
    assert len(h) == 2 and {p.name for p in (tmp_path/'checkpoints').iterdir()} == {'step_000000002', '.lock'}

def test_tensorboard_gets_the_history_and_a_broken_tracker_is_left_behind(tmp_path, clips):
    pytest.importorskip('tensorboard')
    from accelerate.tracking import GeneralTracker
    dls = loaders(from_folder(clips), small().spec, bs=32)
    fit(small(), dls, epochs=2, out=tmp_path, trackers='tensorboard', show=False)
    assert list((tmp_path/'vidcls').rglob('events*'))
    class Broken(GeneralTracker):
        name, requires_logging_directory, main_process_only = 'broken', False, False
        @property
        def tracker(self): return None
        def store_init_configuration(self, values): raise ConnectionError('no route to host')
        def log(self, values, step=None, **kw): raise ConnectionError('no route to host')
    with pytest.warns(UserWarning, match='ConnectionError: no route to host. Training goes on'):
        assert len(fit(small(), dls, epochs=2, trackers=[Broken()], show=False)) == 2

def test_a_tracker_that_cannot_start_is_refused_before_the_first_step(clips, monkeypatch):
    import accelerate.tracking as tracking
    dls = loaders(from_folder(clips), small().spec, bs=32)
    monkeypatch.setattr(tracking, 'get_available_trackers', lambda: [tracking.LoggerType.TENSORBOARD])
    for trackers, said in {
        'tensorbord': "trackers='tensorbord'; .*Did you mean 'tensorboard'",
        'tensorboard': "trackers='tensorboard' needs out=",
        ('wandb',): "trackers='wandb': it is not installed; pip install wandb",
    }.items():
        with pytest.raises(ArgumentError, match=said):
            fit(small(), dls, epochs=1, trackers=trackers)

@pytest.mark.parametrize('first', ['lr_find', 'fit'])
def test_a_second_training_has_its_own_precision(clips, first):
    model = small()
    dls = loaders(from_folder(clips), model.spec, bs=16)
    lr_find(model, dls, n=10, show=False) if first == 'lr_find' else fit(model, dls, epochs=1, show=False)
    seen, hook = (
        set(),
        model.blocks[0].mlp.fc1.register_forward_hook(
            lambda m, x, out: seen.add(out.dtype) if m.training else None
        ),
    )
    fit(model, dls, epochs=1, precision='bf16', show=False)
    hook.remove()
    assert (
        seen == {torch.bfloat16}
        and model(torch.zeros(1, 3, model.spec.n_frames, 32, 32)).dtype == torch.float32
    )

def test_a_terminal_shows_how_it_goes(clips, monkeypatch):
    import io
    class Terminal(io.StringIO):
        def isatty(self): return True
    class Slow(Callback):
        def after_step(self, run): time.sleep(.3)
    monkeypatch.delenv('VIDCLS_PROGRESS', raising=False)
    monkeypatch.setattr(sys, 'stderr', Terminal())
    fit(small(), loaders(from_folder(clips), small().spec, bs=16), epochs=2, callbacks=[Slow()])
    said = sys.stderr.getvalue()
    for word in ('epoch 2/2', 'loss 2.', 'lr 0.', 'clips/s', 'waiting', 'best accuracy 0.', 's left in all'):
        assert word in said, said[-500:]

@pytest.mark.parametrize('policy', ['skip', 'stop'])
def test_a_step_that_is_left_out_is_not_in_the_batch_norms(clips, policy):
    "A batch with infinite values has gone through the network before one knows; the statistics forget it."
    for ema in (None, .9):
        calls, net = [], create_model('i3d_tiny', n_classes=8)
        dls = loaders(from_folder(clips), net.spec, bs=16)
        class Poison(Callback):
            def before_batch(self, run):
                calls.append(1)
                if len(calls) == 2:
                    run.xb = torch.full_like(run.xb, math.inf)
        if policy == 'skip':
            assert math.isfinite(
                fit(net, dls, epochs=1, on_nan='skip', ema=ema, callbacks=[Poison()], show=False)[
                    'valid_loss'
                ][0]
            )
        else:
            with pytest.raises(VidclsError, match='holds the last weights that were finite'):
                fit(net, dls, epochs=1, ema=ema, callbacks=[Poison()], show=False)
        assert all(v.isfinite().all() for v in net.state_dict().values())

def test_a_range_test_covers_its_range_whatever_the_accumulation(clips):
    dls = loaders(from_folder(clips), small().spec, bs=16)
    for accum in (1, 2, 4):
        assert len(lr_find(small(), dls, start=1e-7, end=1e-5, n=12, accum=accum, show=False).lrs) == 12

def test_a_launchers_accumulation_is_not_applied_twice(clips, monkeypatch):
    def norm():
        seen = []
        fit(
            small(),
            loaders(from_folder(clips), small().spec, bs=16),
            epochs=1,
            show=False,
            callbacks=[At('before_step', lambda run: seen.append(float(run.grad_norm)))],
        )
        return seen[0]
    alone = norm()
    monkeypatch.setenv('ACCELERATE_GRADIENT_ACCUMULATION_STEPS', '4')
    assert norm() == alone

def test_one_broken_tracker_does_not_stop_the_others(tmp_path, clips):
    pytest.importorskip('tensorboard')
    from accelerate.tracking import GeneralTracker
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    class Broken(GeneralTracker):
        name, requires_logging_directory, tracker = 'broken', False, None
        def store_init_configuration(self, values): pass
        def log(self, values, step, **kw): raise OSError('no network')
    with pytest.warns(UserWarning, match='tracker broken stopped: OSError: no network'):
        fit(
            small(),
            loaders(from_folder(clips), small().spec, bs=16),
            epochs=3,
            out=tmp_path,
            trackers=[Broken(), 'tensorboard'],
            show=False,
        )
    events = next(tmp_path.rglob('events.out*'))
    got = EventAccumulator(str(events))
    got.Reload()
    assert len(got.Scalars('accuracy')) == 3

def test_a_full_disk_at_the_teachers_answers_does_not_end_the_training(tmp_path, clips, monkeypatch):
    from vidcls import distill_answers
    from vidcls.distill import Distill, SeededAugment
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(distill_answers, 'atomic_path', full)
    dls = loaders(from_folder(clips), small().spec, bs=16)
    with pytest.warns(UserWarning, match='answers could not be kept .*No space left'):
        assert (
            len(
                fit(
                    small(),
                    dls,
                    epochs=2,
                    out=tmp_path / 'out',
                    augment=SeededAugment(roll_clips, 2),
                    callbacks=[Distill(small(), cache=tmp_path / 'kept')],
                    show=False,
                )
            )
            == 2
        )

def test_the_smallest_of_a_metric_can_be_best(clips):
    falling = iter([0., .5, .4, .3])  # the first is asked on made-up logits
    hist = fit(
        small(),
        loaders(from_folder(clips), small().spec, bs=16),
        epochs=3,
        metrics={'error': lambda logits, y: next(falling)},
        monitor='-error',
        show=False,
    )
    assert hist.best == 2

def test_every_callback_hears_the_end(clips):
    "Also where one before it fails; the error is the first one: of the training, or else of the end."
    class Fails(Callback):
        def __init__(self, event): setattr(self, event, self.fail)
        def fail(self, run): raise KeyError('here')
    class Last(Callback):
        def after_fit(self, run):
            heard.append(1)
            raise OSError('there')
    dls = loaders(from_folder(clips), small().spec, bs=16)
    for event in ('after_step', 'after_fit'):
        heard = []
        with pytest.raises(KeyError, match='here'):
            fit(small(), dls, epochs=1, callbacks=[Fails(event), Last()], show=False)
        assert heard == [1]

def test_a_schedule_takes_its_arguments(clips):
    dls = loaders(from_folder(clips), small().spec, bs=16)
    hist = fit(
        small(),
        dls,
        epochs=3,
        lr=1e-3,
        schedule='step',
        schedule_args=dict(at=(1 / 3,), gamma=0.5),
        warmup=0,
        show=False,
    )
    assert hist['lr'] == pytest.approx([1e-3, 5e-4, 5e-4])
    with pytest.raises(ArgumentError, match="'gama'; accepted: 'at', 'gamma'"):
        fit(small(), dls, epochs=1, schedule='step', schedule_args=dict(gama=.5))

def test_a_callback_with_a_misspelt_event_is_refused(clips):
    class Typo(Callback):
        def after_epochs(self, run): pass
    with pytest.raises(ArgumentError, match="after_epochs.*Did you mean 'after_epoch'"):
        fit(small(), loaders(from_folder(clips), small().spec, bs=16), epochs=1, callbacks=[Typo()])

@pytest.mark.parametrize('said', [
    'CUDA error: out of memory',
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
    'not enough memory: you tried to allocate 8 bytes.',
])
def test_out_of_memory_has_many_names(said):
    from vidcls.train import is_out_of_memory

    assert is_out_of_memory(RuntimeError(said)) and not is_out_of_memory(
        RuntimeError('CUDA error: device-side assert triggered')
    )

@pytest.mark.parametrize('native,emulated,want', [
    (True, True, 'bf16'), (False, True, 'fp16'), (False, False, 'fp16'),
])
def test_half_precision_is_what_the_card_has(monkeypatch, native, emulated, want):
    from vidcls.train import half_precision
    if not torch.cuda.is_available():
        assert half_precision() is None
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        'is_bf16_supported',
        lambda including_emulation=True: native or emulated and including_emulation,
    )
    assert half_precision() == want

def with_scaler(monkeypatch, **how):
    "A scaler on the CPU, as fp16 has one on a GPU; so large at first that gradients overflow."
    from vidcls.training import checks, engine
    make = engine.make_accelerator
    def scaled(*args):
        accelerator = make(*args)
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler('cpu', **how)
        return accelerator
    monkeypatch.setattr(engine, 'make_accelerator', scaled)
    monkeypatch.setattr(checks, 'choose_precision', lambda asked: 'fp16')            # refused on a CPU

def test_the_scaler_goes_on_to_the_bit(tmp_path, clips, monkeypatch):
    "It is stopped where the scale has fallen and grown again; one that began anew would skip other steps."
    with_scaler(monkeypatch, init_scale=2.**19, growth_interval=3)
    class Scale(Callback):
        def __init__(self): self.seen = []
        def after_batch(self, run): self.seen.append(run.accelerator.scaler.get_scale())
    def train(out, at=At('after_fit', lambda run: None)):
        see = Scale()
        weights, rows, hist = drawing(clips, out, see, at)
        return weights, rows, hist.bad_steps, see.seen
    whole = train(tmp_path/'whole')
    cut = train(
        tmp_path / 'cut', At('after_batch', lambda run: run.stop('enough'), lambda run: run.n_steps == 5)
    )
    rest = train(tmp_path/'cut')
    assert len(set(whole[3])) > 2 and len(whole[2]) > 1                   # up and down
    assert torch.equal(whole[0], rest[0]) and whole[1:3] == rest[1:3] and whole[3] == cut[3] + rest[3]

def test_steps_that_half_precision_skips_are_in_no_mean(clips, monkeypatch):
    seen, model = [], small()
    with_scaler(monkeypatch, init_scale=2.**19)
    class See(Callback):
        def before_step(self, run): seen.append([float(run.step_loss), math.isfinite(float(run.grad_norm))])
        def after_step(self, run): self.step = run.step
    see = See()
    hist = fit(
        model, loaders(from_folder(clips), model.spec, bs=4), epochs=1, lr=1e-6, callbacks=[see], show=False
    )
    good = [loss for loss,ok in seen if ok]
    assert len(hist.bad_steps) == len(seen)-len(good) > 0 and see.step == len(good) > 0
    assert hist['train_loss'][0] == pytest.approx(np.mean(good), abs=1e-4)

GROUP = """
import os, signal, sys
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.models.zoo import create_model
from vidcls.train import Callback, fit
if __name__ == '__main__':
    os.setpgrp()
    class Kill(Callback):
        def after_step(self, run):
            if run.step == 5: os.killpg(0, signal.SIGTERM)
    model = create_model('videomae_tiny', n_classes=8, dim=48, depth=2)
    dls = loaders(from_folder(sys.argv[1]), model.spec, bs=8, workers=2, ram_gb=0)
    fit(model, dls, epochs=3, out=sys.argv[2], callbacks=[Kill()], show=False)
"""

@linux
def test_a_signal_to_all_processes_ends_in_a_checkpoint(tmp_path, clips):
    "As service managers send it: the loader's workers get it too, and die of it."
    (tmp_path/'killed.py').write_text(GROUP)
    done = subprocess.run(
        [sys.executable, tmp_path / 'killed.py', clips, tmp_path / 'out'],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 143, done.stderr[-2000:]
    assert [p.name for p in (tmp_path/'out'/'checkpoints').glob('step_*')] == ['step_000000005']

def test_a_loader_whose_worker_died_works_again(clips):
    model = small()
    dls = loaders(from_folder(clips), model.spec, bs=8, workers=1, ram_gb=0, timeout_s=10)
    class Kill(Callback):
        def after_step(self, run):
            if run.step == 2:
                # PyTorch's raises wherever we are just then, perhaps in the next test
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for p in dls.train._iterator._workers:
                    os.kill(p.pid, signal.SIGKILL)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        with pytest.raises(WorkerError):
            fit(model, dls, epochs=1, callbacks=[Kill()], show=False)
        assert len(fit(model, dls, epochs=1, show=False)) == 1
    finally:
        signal.signal(signal.SIGCHLD, handler)

@pytest.mark.parametrize('event, split', [('after_pred', 'train'), ('after_validate', 'valid')])
def test_a_worker_that_dies_outside_the_loader_is_named_too(clips, event, split):
    "PyTorch says so by a signal, wherever the training is just then."
    model = small()
    dls = loaders(from_folder(clips), model.spec, bs=8, workers=1, ram_gb=0)
    dead = RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')
    def noticed(run): raise dead

    with pytest.raises(
        WorkerError, match='pid 7.* is killed by signal: Killed; the worker processes were at: .*mp4'
    ) as e:
        fit(model, dls, epochs=1, callbacks=[At(event, noticed)], show=False)
    named = re.search('were at: (.*?)[.] It was killed', str(e.value))[1].split(', ')
    assert set(named) <= set(map(str, getattr(dls, split).dataset.paths))

def test_what_filled_the_memory_is_let_go(clips):
    import weakref
    alive = []
    class Full(Callback):
        def after_pred(self, run):
            big = torch.zeros(1000)
            alive.append(weakref.ref(big))
            raise MemoryError('no room')
    model = small()
    with pytest.raises(VidclsError, match='out of memory') as held:
        fit(model, loaders(from_folder(clips), model.spec, bs=8), epochs=1, callbacks=[Full()], show=False)
    assert alive[0]() is None and held.value

def test_a_comparison_ends_where_a_training_is_interrupted(clips, tmp_path):
    from vidcls.train import fit_or_raise
    class Stop(Callback):
        def after_step(self, run): os.kill(os.getpid(), signal.SIGINT)
    model = small()
    with pytest.raises(KeyboardInterrupt):
        fit_or_raise(
            model, loaders(from_folder(clips), model.spec, bs=8), epochs=1, callbacks=[Stop()], show=False
        )

@pytest.mark.parametrize('bad, words', [
    (dict(augment='standard'), "augment='standard' is a name; say augment=augmentation"),
    (dict(loss='focal'), "loss='focal'"),
    (dict(mix=.8), 'mix=0.8'),
    (dict(callbacks=EarlyStopping()), 'callbacks is a EarlyStopping; accepted: a list'),
    (dict(callbacks=[EarlyStopping]), r'give an object: EarlyStopping\('),
    (dict(metrics=[max]), 'metrics is a list'),
    (dict(metrics={'f': 3}), r"metrics\['f'\]=3"),
    (dict(seed=1.5), 'seed=1.5'),
    (dict(resume='xx', out='x'), "resume='xx'"),
    (dict(every='abcmin', out='x'), "every='abcmin'"),
    (dict(opt_args=dict(eps=-1)), 'opt_args=.*eps'),
    (dict(optimizer='sgd', opt_args=dict(momentum=0., nesterov=True)), 'opt_args'),
    (dict(precision='fp16'), 'needs a GPU'),
])
def test_arguments_of_another_kind_end_in_one_sentence(clips, tmp_path, monkeypatch, bad, words):
    if bad.get('precision') and torch.cuda.is_available():
        pytest.skip('a GPU knows fp16')
    monkeypatch.chdir(tmp_path)
    model = small()
    with pytest.raises(ArgumentError, match=words):
        fit(model, loaders(from_folder(clips), model.spec, bs=16), epochs=1, show=False, **bad)

def test_what_is_frozen_by_hand_and_a_plan_are_not_mixed(clips):
    model = small()
    freeze_layers(model, 1)
    dls = loaders(from_folder(clips), model.spec, bs=16)
    with pytest.raises(ArgumentError, match='frozen by hand'):
        fit(model, dls, epochs=1, freeze={0: -1, 1: 0}, show=False)
    for no in (lambda: fit(model, dls.train), lambda: fit(torch.nn.Linear(2, 2), dls)):
        with pytest.raises(ArgumentError, match='accepted: what'):
            no()

def test_a_curriculum_and_a_balance_are_not_mixed_and_stages_keep_their_own_checkpoints(clips, tmp_path):
    from vidcls.curriculum import Curriculum, fit_stages
    model, table = small(), from_folder(clips)
    dls = loaders(table, model.spec, bs=16, balance='balanced')
    n = len(table.select_split('train'))
    with pytest.raises(ArgumentError, match="balance='balanced'; leave one out"):
        fit(model, dls, epochs=1, callbacks=[Curriculum(np.arange(n))], show=False)
    halt = type(
        'Halt', (Callback,), dict(after_batch=lambda self, run: run.n_steps == 2 and run.stop('enough'))
    )
    again = lambda scores, *more: fit(
        small(),
        loaders(table, model.spec, bs=16),
        epochs=2,
        callbacks=[Curriculum(scores), *more],
        out=tmp_path / 'plan',
        resume='auto',
        show=False,
    )
    again(np.arange(n), halt())
    with pytest.raises(CheckpointError, match='other scores'):
        again(-np.arange(n), halt())
    shutil.rmtree(tmp_path/'plan')
    stages, how = (
        [dict(n_frames=4, bs=32, epochs=1), dict(n_frames=8, bs=16, epochs=1)],
        dict(arguments=dict(dim=48, depth=2), out=tmp_path, show=False),
    )
    fit_stages('videomae_tiny', table, stages, **how)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['stage_0', 'stage_1']
    assert [len(h) for h in fit_stages('videomae_tiny', table, stages, resume='auto', **how)[1]] == [1, 1]

def test_a_teacher_can_learn_afterwards_and_is_not_the_student(clips):
    teacher, model = small(), small()
    dls = loaders(from_folder(clips), model.spec, bs=32)
    fit(model, dls, epochs=1, callbacks=[Distill(teacher)], show=False)
    assert (
        all(p.requires_grad and p.grad is None for p in teacher.parameters())
        and len(fit(teacher, dls, epochs=1, show=False)) == 1
    )
    with pytest.raises(ArgumentError, match='the student itself'):
        fit(model, dls, epochs=1, callbacks=[Distill(model)], show=False)
    with pytest.raises(ArgumentError, match='without a spec'):
        Distill('x')
    with pytest.raises(ArgumentError, match='alpha=2'):
        Distill(teacher, alpha=2)
    with pytest.raises(ArgumentError, match='leave one out'):
        Distill(teacher, features=1., cache='answers')

def test_answers_belong_to_one_teacher_with_its_buffers_and_need_a_seeded_augment(clips, tmp_path):
    teacher, dls = small(), loaders(from_folder(clips), small().spec, bs=32)
    def taught_by(teacher, augment=SeededAugment(roll_clips, 2)):
        fit(small(), dls, epochs=1, augment=augment, callbacks=[Distill(teacher, cache=tmp_path)], show=False)
    taught_by(teacher)
    teacher.register_buffer('running_mean', torch.zeros(3))
    with pytest.raises(ArgumentError, match='another teacher, or about other clips or views'):
        taught_by(teacher)
    with pytest.raises(ArgumentError, match='needs augment=SeededAugment'):
        taught_by(small(), augment=roll_clips)

def test_weight_decay_is_the_optimisers_own(clips):
    model = small()
    class See(Callback):
        def before_fit(self, run): self.wd = {g['weight_decay'] for g in run.opt.param_groups}
    for name,wd in dict(adamw=.05, sgd=1e-4).items():
        see = See()
        fit(
            model,
            loaders(from_folder(clips), model.spec, bs=32),
            epochs=1,
            optimizer=name,
            callbacks=[see],
            show=False,
        )
        assert see.wd == {0, wd}

def test_a_label_out_of_range_is_named_on_the_host(clips):
    dls = loaders(from_folder(clips), small().spec, bs=16)
    dls.train.dataset.targets = dls.train.dataset.targets.copy()
    dls.train.dataset.targets[5] = 8
    with pytest.raises(LabelError, match=r'\.mp4: label 8 is not in \[0, 8\)'):
        fit(small(), dls, epochs=1)

class Fails(Callback):
    def after_step(self, run):
        if run.step == 3:
            raise RuntimeError('my own mistake')

def test_an_error_of_a_callback_ends_cleanly_and_fit_works_again(clips):
    ended = []
    class Last(Callback):
        def after_fit(self, run): ended.append(run.step)
    model, dls = small(), loaders(from_folder(clips), small().spec, bs=16)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match='my own mistake'):
        fit(model, dls, epochs=2, callbacks=[Fails(), Last()], show=False)
    assert ended == [3] and not model.training and signal.getsignal(signal.SIGINT) is before
    assert len(fit(model, dls, epochs=1, precision='bf16', show=False)) == 1

def test_out_of_memory_ends_in_advice(clips):
    class Huge(Callback):
        def after_pred(self, run):
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')

    with pytest.raises(
        VidclsError,
        match=r'batches of 16 clips of 8 x 32 x 32 .*bs=8 with accum=2 '
              r'.*set_grad_checkpointing.*n_frames=4 instead of 8',
    ):
        fit(
            small(),
            loaders(from_folder(clips), small().spec, bs=16),
            epochs=1,
            callbacks=[Huge()],
            show=False,
        )

def test_a_model_that_does_not_fit_ends_in_advice(clips):
    dls, model = loaders(from_folder(clips), small().spec, bs=16), small()
    model.to = lambda *args, **kwargs: torch.empty(2**50)  # as a model that is too large for the device
    with pytest.raises(
        VidclsError,
        match=r"before the first step \(.*can't allocate memory.* the weights of VideoMAE alone take "
              r"0\.0 GB.*smaller model",
    ):
        fit(model, dls, epochs=1, show=False)

def test_a_metric_that_gives_no_number_is_found_before_the_first_step(clips):
    dls, seen = loaders(from_folder(clips), small().spec, bs=16), []
    class Steps(Callback):
        def before_epoch(self, run): seen.append(run.epoch)

    for f, why in (
        (lambda logits, y: None, 'TypeError'),
        (lambda logits, y: logits, '[Ee]lement'),
        (lambda logits: 0.0, 'takes 1 positional argument'),
    ):
        with pytest.raises(
            ArgumentError, match=rf"metrics\['mine'\] fails on logits \(8,8\) and labels \(8,\): .*{why}"
        ):
            fit(small(), dls, epochs=1, metrics={'mine': f}, callbacks=[Steps()], show=False)
    assert not seen

def test_deterministic_algorithms_are_enough(clips):
    torch.use_deterministic_algorithms(True)
    try:
        for name,kw in (('videomae_tiny', {}), ('i3d_tiny', dict(size=32, n_frames=8))):
            dls = loaders(from_folder(clips), create_model(name, n_classes=8, **kw).spec, bs=32)
            def run():
                seed_everything(0)
                model = create_model(name, n_classes=8, **kw)
                return strip(
                    fit(model, dls, epochs=1, augment=roll_clips, mix=Mixup(8), ema=0.9, show=False)
                ), flat(model)
            (h1,w1), (h2,w2) = run(), run()
            assert h1 == h2 and torch.equal(w1, w2), name
    finally:
        torch.use_deterministic_algorithms(False)

def test_two_fits_leave_no_threads_and_no_hooks(clips):
    import gc, threading
    model, dls = small(), loaders(from_folder(clips), small().spec, bs=16)
    fit(model, dls, epochs=1, show=False)
    gc.collect()
    n, hooks = threading.active_count(), sum(len(m._forward_hooks) for m in model.modules())
    for _ in range(3):
        fit(model, dls, epochs=1, show=False)
    gc.collect()
    assert threading.active_count() <= n and sum(len(m._forward_hooks) for m in model.modules()) == hooks


# --- what callbacks do

SECOND = """
import sys
import vidcls.train as t
from vidcls.training import resume
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.models.zoo import create_model
resume.LOCK_PATIENCE_S = .2
model = create_model('videomae_tiny', n_classes=8, dim=48, depth=2)
dls = loaders(from_folder(sys.argv[1]), model.spec, bs=16)
t.fit(model, dls, epochs=1, out=sys.argv[2], resume='auto', show=False)
"""

def test_two_trainings_in_one_folder_are_refused(tmp_path, clips):
    "The second would go on from the first one's checkpoints. Later the folder is free again."
    second = lambda: subprocess.run(
        [sys.executable, '-c', SECOND, clips, tmp_path], capture_output=True, text=True, timeout=120
    )
    said = []
    def meanwhile(run):
        said.append(second())
        raise RuntimeError('my own')
    with pytest.raises(RuntimeError, match='my own'):
        fit(
            small(),
            loaders(from_folder(clips), small().spec, bs=16),
            epochs=1,
            out=tmp_path,
            callbacks=[At('after_step', meanwhile)],
            show=False,
        )
    assert (
        said[0].returncode == 1
        and f"out={str(tmp_path)!r}: another training is running there" in said[0].stderr
    ), said[0].stderr
    assert (done := second()).returncode == 0, done.stderr

def test_events_come_in_the_order_of_the_picture(clips):
    "EVENTS is what the picture on the page says; a real training calls them so."
    from vidcls.train import EVENTS
    seen = []
    watch = type('Watch', (Callback,), {e: lambda self, run, e=e: seen.append(e) for e in EVENTS})()
    fit(small(), loaders(from_folder(clips), small().spec, bs=8), epochs=3, accum=2, show=False,
        callbacks=[watch, At('after_epoch', lambda run: run.stop('enough'), lambda run: run.epoch == 1)])
    batch, judged = (
        ['before_batch', 'after_pred', 'after_loss'],
        ['after_train', 'before_validate', 'after_validate', 'after_epoch'],
    )
    step = [*2*batch, 'before_step', 'after_step', 'after_batch']
    assert seen == [
        'before_fit',
        *2 * ['before_epoch', *4 * step, *judged],
        'after_stop',
        'after_fit',
    ] and set(seen) == set(EVENTS)

def test_a_line_of_the_log_tells_rate_and_speed(clips, monkeypatch, capsys):
    monkeypatch.delenv('VIDCLS_PROGRESS', raising=False)
    hist = fit(small(), loaders(from_folder(clips), small().spec, bs=16), epochs=1)
    assert re.search(
        rf'epoch   1/\d+  train [.\d]+  valid [.\d]+  accuracy [.\d]+  lr {hist["lr"][0]:.2g}  [.\d]+ '
        r's, [.e+\d]+ clips/s',
        capsys.readouterr().out,
    )

def test_a_training_that_cannot_begin_leaves_nothing_frozen(clips):
    model = small()
    with pytest.raises(ArgumentError, match='nonsense'):
        fit(
            model,
            loaders(from_folder(clips), model.spec, bs=16),
            1,
            freeze=-1,
            opt_args=dict(nonsense=1),
            show=False,
        )
    assert all(p.requires_grad for p in model.parameters())

@pytest.mark.skipif(not shutil.which('g++'), reason='torch.compile on a CPU needs a compiler')
def test_a_compiled_training_is_the_same(tmp_path, clips):
    "Also one that is stopped and goes on; checkpoints know nothing of it."
    def train(compiled, out, at=At('after_fit', lambda run: None)):
        model = small()
        start, dls = flat(model), loaders(from_folder(clips), model.spec, bs=16)
        hist = fit(
            model,
            dls,
            epochs=2,
            lr=1e-4,
            compile=compiled,
            out=out,
            resume='auto',
            callbacks=[at],
            show=False,
        )
        return start, hist, flat(model)
    start, plain, want = train(False, tmp_path/'plain')
    train(
        True,
        tmp_path / 'compiled',
        At('after_batch', lambda run: run.stop('enough'), lambda run: run.n_steps == 5),
    )
    _, compiled, got = train(True, tmp_path/'compiled')
    # AdamW enlarges the rounding of small gradients
    assert (got-want).abs().max() < .02*(want-start).abs().max()
    assert compiled['train_loss'] == pytest.approx(plain['train_loss'], abs=1e-4)

def test_early_stopping_and_monitor(clips):
    class Worse(Callback):
        def after_validate(self, run): run.row['accuracy'] = 1/(1+run.epoch)

    h = fit(
        small(),
        loaders(from_folder(clips), small().spec, bs=32),
        epochs=20,
        patience=3,
        callbacks=[Worse()],
        show=False,
    )
    assert (len(h), h.best, h.stopped) == (4, 0, 'nothing better for 3 epochs')
    h = fit(small(), loaders(from_folder(clips), small().spec, bs=32), epochs=3, monitor='top3', show=False,
            metrics={'top3': lambda logits, y: (logits.topk(3).indices == y[:,None]).any(1).float().mean()})
    assert h.rows[h.best]['top3'] == max(h['top3'])

def test_ema_is_the_average_by_hand(clips):
    seen = []
    class Watch(Callback):
        def after_step(self, run): seen.append(flat(run.net))
    model = small()
    start = flat(model)
    fit(
        model,
        loaders(from_folder(clips), model.spec, bs=16),
        epochs=1,
        ema=0.5,
        callbacks=[Watch()],
        show=False,
    )
    mean = start
    for i,w in enumerate(seen, 1):
        d = min(.5, i/(i+9))
        mean = d*mean + (1-d)*w
    assert (flat(model)-mean).abs().max() < 1e-6

def test_thawing_trains_the_head_first(clips):
    model = small()
    moved = {}
    class Watch(Callback):
        def before_epoch(self, run): self.before = {k: v.clone() for k,v in run.net.state_dict().items()}

        def after_train(self, run):
            moved[run.epoch] = {
                k for k, v in run.net.state_dict().items() if not torch.equal(v, self.before[k])
            }

    fit(
        model,
        loaders(from_folder(clips), model.spec, bs=16),
        epochs=2,
        freeze={0: -1, 1: 0},
        callbacks=[Watch()],
        show=False,
    )
    assert moved[0] == {'head.weight', 'head.bias', 'fc_norm.weight', 'fc_norm.bias'}
    assert 'patch_embed.proj.weight' in moved[1] and all(p.requires_grad for p in model.parameters())

def test_lr_find_puts_everything_back_also_after_an_error(clips):
    model, dls = small(), loaders(from_folder(clips), small().spec, bs=16)
    before, chance, where = flat(model).clone(), torch.get_rng_state(), dls.train.sampler.epoch
    with pytest.raises(RuntimeError, match='my own'):
        lr_find(model, dls, n=20, augment=lambda x, y, g: (_ for _ in ()).throw(RuntimeError('my own')))
    assert torch.equal(before, flat(model)) and torch.equal(chance, torch.get_rng_state())
    assert dls.train.sampler.epoch == where and dls.valid is not None


def test_a_training_that_was_over_stays_over(clips, tmp_path):
    lengths = []
    for _ in range(3):
        m = small(2)
        hist = fit(
            m,
            loaders(from_folder(clips).select_classes(['left', 'right']), m.spec, bs=8),
            20,
            lr=1e-9,
            patience=1,
            out=tmp_path,
            resume='auto',
            show=False,
        )
        lengths.append((len(hist), hist.stopped))
    assert lengths[0][0] < 20 and lengths == lengths[:1]*3

def test_a_refused_training_leaves_nothing_behind(clips, tmp_path):
    m = small(2)
    dls = loaders(from_folder(clips).select_classes(['left','right']), m.spec, bs=8)
    fit(m, dls, 1, lr=1e-4, precision='bf16', out=tmp_path, show=False)
    x = torch.randn(2,3,8,32,32)
    before = m.eval()(x)
    with pytest.raises(CheckpointError, match='another training'):
        fit(m, dls, 2, lr=1e-4, precision='bf16', out=tmp_path, resume='auto', show=False)
    with pytest.raises(ArgumentError, match='nonsense'):
        fit(m, dls, 1, lr=1e-4, precision='bf16', opt_args=dict(nonsense=1), show=False)
    assert torch.equal(m.eval()(x), before)  # in full precision, and no better and no worse
    fit(m, dls, 1, lr=1e-4, precision='no', show=False)


# --- what the lesson leaves out: arguments that make no sense, and numbers that are none

@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "Left and right: 84 clips to train on, in six batches."
    root = make_motion_clips(tmp_path_factory.mktemp('two'), n_groups=60, n_frames=8, size=32)
    table = from_folder(root).select_classes(['left', 'right'])
    return loaders(table, few().spec, bs=14)

def few(**kw):
    seed_everything(0)
    return create_model('videomae_tiny', n_classes=2, depth=1, dim=48, **kw)

@pytest.mark.parametrize('bad, words', [
    (dict(epochs=0), 'epochs=0'),
    (dict(lr=-1), 'lr=-1'),
    (dict(precision='fp8'), "precision='fp8'"),
    (dict(optimizer='adam'), "Did you mean 'adamw'\\?"),
    (dict(monitor='f1'), "monitor='f1'; accepted: 'accuracy'"),
    (dict(resume='auto'), 'need out='),
    (dict(freeze={0: -1, 3: 99}), '99 layers from epoch 3 on; accepted: from -'),
    (dict(metrics={'lr': lambda logits, y: 0.}), "metrics has 'lr'"),
    (dict(loss=lambda logits, y: logits.sum(1)), 'loss gave a tensor of shape \\('),
    (dict(loss=lambda logits, y: .5), 'loss gave a float'),
    (dict(augment=lambda x, y, gen: x), 'augment gave a Tensor; accepted: '),
    (dict(trackers='tensorbord', out='x'), "Did you mean 'tensorboard'\\?"),
    (dict(opt_args={'weight_decay': .1}), 'wd='),
    (dict(max_grad_norm=0), 'max_grad_norm=0'),
    (dict(clip=1.), 'clip=1.0 is no argument of fit: say max_grad_norm='),
    (dict(learning_rate=1e-3), 'is no argument of fit: say lr='),
])
def test_arguments_that_make_no_sense_are_refused(two, bad, words):
    with pytest.raises(ArgumentError, match=words):
        fit(few(), two, show=False, **{'epochs': 1} | bad)

def test_a_model_with_another_number_of_classes_is_refused(two):
    with pytest.raises(LabelError, match=r'call model.reset_classifier\(2\)'):
        fit(create_model('videomae_tiny', n_classes=3), two)

def test_a_model_for_other_clips_is_refused(two):
    with pytest.raises(SpecMismatchError, match='n_frames: model 4, clips 8'):
        fit(create_model('videomae_tiny', n_classes=2, n_frames=4), two)

def test_a_folder_with_checkpoints_or_without_room_is_refused(two, tmp_path):
    "Two trainings in one folder would delete each other's checkpoints."
    (tmp_path/'run'/'checkpoints'/'step_000000300').mkdir(parents=True)
    with pytest.raises(ArgumentError, match=r"resume='auto' \(--resume\) goes on with it"):
        fit(few(), two, out=tmp_path/'run')
    (tmp_path/'file').touch()
    with pytest.raises(ArgumentError, match='no checkpoint can be written there'):
        fit(few(), two, out=tmp_path/'file')

def test_a_metric_that_is_nan_is_worse_than_any_other(two):
    recalls = iter([0., math.nan, .3, .2])  # the first is asked for before the training
    metrics = {'recall': lambda logits, labels: next(recalls)}
    assert fit(few(), two, epochs=3, lr=1e-6, metrics=metrics, monitor='recall', show=False).best == 1

def test_without_validation_the_training_loss_decides_or_the_last_weights_are_kept(two):
    blind = loaders(two.table, two.spec, bs=14)
    blind.valid = None
    by_loss = fit(few(dropout=.5), blind, epochs=3, lr=1e-9, monitor='train_loss', show=False)
    assert by_loss.best == np.argmin(by_loss['train_loss'])
    assert fit(few(dropout=.5), blind, epochs=3, lr=1e-9, show=False).best == 2
    with pytest.raises(ArgumentError, match='needs validation clips'):
        fit(few(), blind, monitor='valid_loss')

def halves(xb, yb, gen):
    "Each clip averaged with the next one: no model can do better than half-sure."
    q = torch.nn.functional.one_hot(yb, 2).float()
    return (xb + xb.roll(1, 0))/2, (q + q.roll(1, 0))/2

def test_soft_targets_and_a_loss_are_passed_on(two):
    mixed = fit(few(), two, epochs=1, mix=halves, loss=FocalLoss(gamma=0), show=False)
    assert abs(mixed['train_loss'][0] - .69) < .1                    # the coin, and no error

def test_a_training_that_is_stopped_by_hand_keeps_the_better_weights(two):
    def tired(run): raise KeyboardInterrupt
    stop = At('before_batch', tired, lambda run: run.epoch == 2)
    hist = fit(few(), two, epochs=9, lr=1e-6, callbacks=[stop], show=False)
    assert (len(hist), hist.interrupted, hist.best in (0,1)) == (2, True, True)

def test_one_bad_batch_is_left_out(two):
    def spoil(run): run.xb = run.xb*math.inf
    bad = At('before_batch', spoil, lambda run: run.n_steps == 2)
    hist = fit(few(), two, epochs=2, callbacks=[bad], on_nan='skip', show=False)
    assert [(b['step'], b['what'], len(b['clips'])) for b in hist.bad_steps] == [(3, 'loss', 14)]
    assert all(np.isfinite(hist['train_loss']))

def test_mixed_precision_is_for_training_only(two):
    "Afterwards the model computes in full precision again, and the next training may choose otherwise."
    mixed, fresh = few(), few()
    fit(mixed, two, epochs=1, precision='bf16', show=False)
    fresh.load_state_dict(mixed.state_dict())
    x = mixed.spec.to_model(next(iter(two.test)).clips)
    with torch.no_grad():
        assert torch.equal(mixed(x), fresh.eval()(x))
    assert len(fit(mixed, two, epochs=1, precision='no', show=False)) == 1

def test_seeds_draw_other_augmentations(two):
    def weights(seed):
        m = few()
        fit(m, two, epochs=1, lr=.1, optimizer='sgd', seed=seed, augment=roll_clips, show=False)
        return flat(m)
    assert not torch.equal(weights(0), weights(1))

def test_what_differs_from_the_checkpoint_is_named(two, tmp_path):
    halt = At('after_batch', lambda run: run.stop('enough'), lambda run: run.n_steps == 8)
    how = dict(epochs=3, ema=.9, out=tmp_path, callbacks=[halt], show=False)
    go = lambda **kw: fit(few(), two, **how | kw)
    go(every=3)
    with pytest.raises(CheckpointError, match='epochs: 3 there, 4 here'):
        go(epochs=4, resume='auto')
    with pytest.raises(CheckpointError, match="mix: None there, '<function halves>' here"):
        go(mix=halves, resume='auto')

def test_a_range_test_goes_upwards(two):
    with pytest.raises(ArgumentError, match='start=1 and end=0.1'):
        lr_find(few(), two, start=1, end=.1)

def test_a_range_test_without_a_step_is_an_error():
    from vidcls.tune import LRFound
    with pytest.raises(ArgumentError, match='lrs is empty'):
        LRFound([], [])

def test_the_search_for_a_batch_and_an_estimate_leave_all_as_it_was(two):
    from vidcls.tune import estimate, find_batch_size
    model, drawn = few(), torch.get_rng_state()
    before = flat(model).clone()
    assert find_batch_size(model, limit=4, device='cpu', show=False) == 4
    assert torch.equal(torch.get_rng_state(), drawn) and all(p.grad is None for p in model.parameters())
    estimate(model, two, steps=2)
    assert torch.equal(flat(model), before) and two.valid is not None
    with pytest.raises(ArgumentError, match='steps=0'):
        estimate(model, two, steps=0)

def test_names_of_callbacks_in_checkpoints_stay(two, tmp_path):
    "Checkpoints of the first version go on: what was renamed keeps its old name there."
    fit(few(), two, epochs=1, out=tmp_path, freeze=-1, ema=.9, show=False)
    state = latest_checkpoint(tmp_path/'checkpoints')[1]
    names = [name for name,_ in state['callbacks']]
    assert names == ['Finite', 'Thaw', 'EMA', 'EarlyStopping', 'Checkpoints']
    assert {'clip', 'files', 'loading', 'processes'} <= set(state['about']) and {'rate', 'own'} <= set(state)
