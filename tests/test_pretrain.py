"Pre-training: equal to transformers, to the published names, to a sum by hand; killed, resumed, divided."
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from processes import linux, run_script
from vidcls.core import ArgumentError, CheckpointError, SpecMismatchError, seed_everything
from vidcls.data.synthetic import make_motion_clips, roll_clips
from vidcls.models.conversions import PRETRAINING_NAMES
from vidcls.models.masking import MASKS, mask_counts, tube_mask
from vidcls.models.pixel_targets import masked_mse
from vidcls.models.weights import fit_in, read_weights, save_transformers
from vidcls.models.zoo import create_model, list_models
from vidcls.pretrain import pretrain, pretraining_loaders

DATA = os.environ.get('VIDCLS_TEST_DATA')
NAMES = Path(DATA).parent/'reference'/'videomae_pretrain_small.tsv' if DATA else Path('nowhere')
os.environ['TRANSFORMERS_VERBOSITY'] = 'error'


def tiny(**kw):
    seed_everything(0)
    return create_model('videomae_pretrain_tiny', **kw)


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    return make_motion_clips(tmp_path_factory.mktemp('clips')/'motion', n_groups=8, n_frames=8, size=32)


# --- the network

@pytest.mark.parametrize('dtype, eps', [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equal_to_transformers(tmp_path, dtype, eps):
    "Loss, predictions and gradients, under the same weights and mask; nothing of the folder is left over."
    from transformers import VideoMAEForPreTraining
    net = tiny()
    save_transformers(net, tmp_path)
    theirs, said = VideoMAEForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said.values()), said
    net, theirs = net.to(dtype), theirs.to(dtype).train()
    assert net.decoder.norm.eps == 1e-6                      # the authors'; transformers has 1e-5 there
    net.decoder.norm.eps = theirs.decoder.norm.eps
    x, mask = torch.randn(2, 3, 8, 32, 32, dtype=dtype), tube_mask(net.grid, .75, 2)
    out, said = theirs(x.transpose(1, 2), bool_masked_pos=mask), net(x, mask)
    loss = masked_mse(said, net.targets(x, mask)).mean()
    assert (said - out.logits).abs().max() < eps and abs(loss - out.loss) < eps
    loss.backward()
    out.loss.backward()
    ours = PRETRAINING_NAMES.to_theirs({k: p.grad for k, p in net.named_parameters()})
    want = {k: p.grad for k, p in theirs.named_parameters()}
    assert set(ours) == set(want)
    assert max((ours[k] - g).abs().max() for k, g in want.items()) < eps


@pytest.mark.skipif(not NAMES.is_file(), reason='needs reference/ beside the folder in VIDCLS_TEST_DATA')
def test_published_names(tmp_path):
    "A checkpoint with the published names and shapes loads, nothing left over, and goes to transformers."
    from safetensors.torch import save_file
    from transformers import VideoMAEConfig, VideoMAEForPreTraining
    rows = [line.split('\t')[:2] for line in NAMES.read_text().splitlines()[1:]]
    gen = torch.Generator().manual_seed(0)
    state = {n: .02*torch.randn(tuple(int(k) for k in s.strip('()').split(',') if k.strip()), generator=gen)
             for n, s in rows}
    save_file(state, tmp_path/'checkpoint.safetensors')
    net = create_model('videomae_pretrain_small', pretrained=tmp_path/'checkpoint.safetensors')
    assert set(net.state_dict()) == set(state)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    save_transformers(net, tmp_path/'theirs')
    wanted = VideoMAEForPreTraining(VideoMAEConfig.from_pretrained(tmp_path/'theirs')).state_dict()
    config, names = net.to_transformers()
    assert set(names) == set(wanted) and all(names[k].shape == v.shape for k, v in wanted.items())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        classifier = create_model('videomae_small', pretrained=tmp_path/'theirs', n_classes=4)
    assert any('of the decoder were left out' in str(w.message) for w in said)
    assert torch.equal(classifier.blocks[11].attn.qkv.weight, state['encoder.blocks.11.attn.qkv.weight'])


def test_counts_of_the_paper():
    assert mask_counts('tube', (8, 14, 14), .9) == (160, 1408)
    net = create_model('videomae_pretrain_small', depth=1, decoder_depth=1)
    mask = tube_mask(net.grid, .9, 1)
    seen = []
    net.encoder.blocks[0].register_forward_hook(lambda module, args, out: seen.append(args[0].shape[1]))
    assert net(torch.randn(1, 3, 16, 224, 224), mask).shape == (1, 1408, 1536) and seen == [160]
    assert 'videomae_pretrain_base' in list_models(pretraining=True) and not list_models('pretrain')


def standardised(clip, places, ddof=1, joint=False):
    "The targets of one clip (C,T,H,W) in [0,1] by numpy, box by box: boxes of 2 × 8 × 8."
    found = []
    for i in places:
        t, h, w = i//16, i//4 % 4, i % 4
        box = clip[:, 2*t:2*t+2, 8*h:8*h+8, 8*w:8*w+8]
        axis = None if joint else (1, 2, 3)
        mean, std = box.mean(axis, keepdims=True), box.std(axis, ddof=ddof, keepdims=True)
        found.append(((box-mean)/(std+1e-6)).transpose(1, 2, 3, 0).ravel())
    return np.stack(found)


def test_targets_by_hand():
    "Unbiased variance, each colour by itself, the hidden boxes: and each other way would be noticed."
    net = tiny().double()
    clip = torch.randn(1, 3, 8, 32, 32, dtype=torch.float64)
    mask = tube_mask(net.grid, .75, 1)
    found = net.targets(clip, mask)[0].numpy()
    mean, std = (np.array(v).reshape(3, 1, 1, 1) for v in (net.spec.mean, net.spec.std))
    pixels = clip[0].numpy()*std + mean
    hidden = np.flatnonzero(mask[0])
    np.testing.assert_allclose(found, standardised(pixels, hidden), atol=1e-10)
    assert abs(found - standardised(pixels, hidden, ddof=0)).max() > 1e-3
    assert abs(found - standardised(pixels, hidden, joint=True)).max() > 1e-3
    # a linear scale of each colour changes nothing
    assert abs(found - standardised(clip[0].numpy(), hidden)).max() < 1e-4
    visible = np.flatnonzero(~mask[0])
    assert found.shape != standardised(pixels, visible).shape                   # 48 hidden, 16 visible


def test_boxes_of_one_colour_stay_finite():
    net = tiny()
    clip, mask = torch.full((2, 3, 8, 32, 32), .25), tube_mask(net.grid, .75, 2)
    loss = masked_mse(net(clip, mask), net.targets(clip, mask)).mean()
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in net.parameters())


def test_what_is_refused():
    net = tiny()
    clip, mask = torch.randn(2, 3, 8, 32, 32), tube_mask(net.grid, .75, 2)
    uneven = mask.clone()
    uneven[0, mask[0].int().argmax()] = False
    refused = {r'bool \(2, 32\)': mask[:, :32], 'int32': mask.int(), 'from 47 to 48': uneven,
               'NoneType': None, 'hides nothing': mask & False, 'hides everything': mask | True}
    for why, wrong in refused.items():
        with pytest.raises(ArgumentError, match=why):
            net(clip, wrong)
    with pytest.raises(ArgumentError, match='predict hides nothing'):
        net(clip, mask, mask & False)
    with pytest.raises(SpecMismatchError):
        net(clip[:, :, :4], mask)
    for kind in MASKS:
        with pytest.raises(ArgumentError, match='ratio=1'):
            MASKS[kind](net.grid, 1.)


def test_compiles_in_one_piece():
    net = tiny()
    clip, mask = torch.randn(2, 3, 8, 32, 32), tube_mask(net.grid, .75, 2)
    whole = torch.compile(net, fullgraph=True, backend='aot_eager')
    for n in (2, 2):
        assert torch.allclose(whole(clip[:n], mask[:n], n_hidden=48), net(clip[:n], mask[:n]), atol=1e-5)


# --- the training

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
    fit_in(again, read_weights(tmp_path/'model.safetensors'), tmp_path)


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


SCRIPT = """
import os, signal, sys, torch
from accelerate import PartialState
from vidcls.core import seed_everything
from vidcls.data.synthetic import roll_clips
from vidcls.models.zoo import create_model
from vidcls.pretrain import pretrain, pretraining_loaders
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
extra |= dict(callbacks=[Killed()])
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
