"Trainings without labels: the kept curve, the hand-over, two processes, killed and gone on, what is refused."
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from processes import linux, run_script
from vidcls.core import ArgumentError, CheckpointError, SpecMismatchError, seed_everything
from vidcls.data.synthetic import make_motion_clips, roll_clips
from vidcls.models.zoo import create_model
from vidcls.pretrain import pretrain, pretraining_loaders
from vidcls.pretraining.recipes import PRETRAINING_RECIPES, pretraining_recipe


def tiny(**kw):
    seed_everything(0)
    return create_model('videomae_pretrain_tiny', **kw)


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    return make_motion_clips(tmp_path_factory.mktemp('clips')/'motion', n_groups=8, n_frames=8, size=32)


# of two epochs: training loss and validation loss, as they were on the day when all tests above held
CURVE = [0.8668, 0.7904, 0.5815, 0.5572]


def losses(net, dls, **kw):
    return pretrain(net, dls, epochs=2, ratio=.75, augment=roll_clips, show=False, **kw)


def test_the_kept_curve(clips):
    net = tiny()
    hist = losses(net, pretraining_loaders(clips, net.spec, bs=16))
    np.testing.assert_allclose([*hist['train_loss'], *hist['valid_loss']], CURVE, rtol=2e-3)


def test_labels_are_ignored(clips, tmp_path):
    "A folder without classes gives the same training as one with them, for the same clips."
    files = sorted(Path(clips).rglob('*.mp4'))
    known = pretraining_loaders(clips, tiny().spec, bs=16)
    kept = {str(p) for s in ('train', 'valid') for p in getattr(known, s).sources().paths}
    assert len(kept) < len(files)                                                # test clips are not used
    flat = pretraining_loaders([f for f in files if str(f) in kept], tiny().spec, bs=16, valid=0)
    assert flat.labels == ['unknown'] and len(flat.train.sources()) == len(kept)


def test_hand_over_in_one_line(clips, tmp_path):
    net = tiny()
    losses(net, pretraining_loaders(clips, net.spec, bs=16), out=tmp_path)
    with pytest.warns(UserWarning, match='38 tensors of the decoder were left out'):
        classifier = create_model('videomae_tiny', pretrained=tmp_path, n_classes=8)
    assert torch.equal(classifier.blocks[3].mlp.fc2.weight, net.encoder.blocks[3].mlp.fc2.weight)
    again = create_model('videomae_pretrain_tiny', pretrained=tmp_path)
    assert torch.equal(again.decoder.head.weight, net.decoder.head.weight)


def test_another_mask_is_another_training(clips, tmp_path):
    net = tiny()
    dls = pretraining_loaders(clips, net.spec, bs=16)
    losses(net, dls, out=tmp_path)
    for other in (dict(mask='random'), dict(repeats=2), dict(predict=.5)):
        with pytest.raises(CheckpointError, match='MaskDraws'):
            losses(net, dls, **other, out=tmp_path, resume=True)


def test_arguments(clips):
    net = tiny()
    dls = pretraining_loaders(clips, net.spec, bs=16)
    with pytest.raises(ArgumentError, match='accepted: a network to pre-train'):
        pretrain(create_model('videomae_tiny', n_classes=2), dls)
    with pytest.raises(ArgumentError, match='say lr='):
        pretrain(net, dls, learning_rate=1)
    with pytest.raises(ArgumentError, match="mask='pipe'"):
        pretrain(net, dls, mask='pipe')
    with pytest.raises(SpecMismatchError):
        pretrain(tiny(n_frames=4), dls)


@pytest.mark.parametrize('dataset', PRETRAINING_RECIPES)
def test_recipes_are_taken_as_they_stand(clips, dataset):
    recipe = pretraining_recipe(dataset, bs=8)
    net = tiny(**recipe.spec)
    dls = pretraining_loaders(clips, net.spec, bs=8, **recipe.loaders)
    smaller = dict(epochs=1, ratio=.75)                      # of a tiny grid .9 of the places is all but one
    hist = pretrain(net, dls, **recipe | smaller, show=False)
    assert len(hist) == 1 and dls.train.dataset.crop == 'multi-scale'


SCRIPT = """
import os, signal, sys, torch
from accelerate import PartialState
from vidcls.core import seed_everything
from vidcls.data.synthetic import roll_clips
from vidcls.models.zoo import create_model
from vidcls.pretrain import pretrain, pretraining_loaders
from vidcls.pretraining.collapse import CollapseWatch
from vidcls.train import Callback
folder, bs, out, how, at = sys.argv[1:]
class Killed(Callback):
    in_checkpoint = False
    def after_batch(self, run):
        if run.n_steps == int(at): os.kill(os.getpid(), signal.SIGKILL)
seed_everything(0)
model = create_model('videomae_pretrain_tiny')
dls = pretraining_loaders(folder, model.spec, bs=int(bs), valid=.25)
extra = dict(optimizer='sgd', lr=.05, wd=0, opt_args={})
if how == 'adamw': extra = dict(out=out + ' run', every=2, resume='auto', augment=roll_clips)
extra |= dict(callbacks=[Killed(), CollapseWatch()])
hist = pretrain(model, dls, epochs=3, ratio=.75, repeats=2, show=False, **extra)
if PartialState().is_main_process:
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    rows = [(r['train_loss'], r['valid_loss'], r['explained']) for r in hist.rows]
    torch.save(dict(weights=weights, rows=rows), out)
"""


@linux
def test_two_processes_equal_one(tmp_path, clips):
    got = []
    for n in (1, 2):
        run_script(tmp_path/'train.py', SCRIPT, clips, 8//n, tmp_path/f'{n}.pt', 'sgd', -1, n=n, check=True)
        got.append(torch.load(tmp_path/f'{n}.pt', weights_only=True))
    assert (got[0]['weights'] - got[1]['weights']).abs().max() < 1e-6
    np.testing.assert_allclose(got[0]['rows'], got[1]['rows'], atol=1e-5)


@linux
def test_killed_and_gone_on(tmp_path, clips):
    "SIGKILL in the middle of the second epoch; the rest ends with the same weights and losses, to the bit."
    def run(name, at):
        return run_script(tmp_path/'train.py', SCRIPT, clips, 8, tmp_path/name, 'adamw', at, n=1)
    assert run('whole', -1).returncode == 0
    assert run('parts', 9).returncode == -signal.SIGKILL and not (tmp_path/'parts').exists()
    assert run('parts', -1).returncode == 0
    whole, parts = (torch.load(tmp_path/name, weights_only=True) for name in ('whole', 'parts'))
    assert torch.equal(whole['weights'], parts['weights']) and whole['rows'] == parts['rows']
