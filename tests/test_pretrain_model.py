"Masks, targets and the network of pre-training: equal to transformers', and what is refused."
import csv, os, warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidcls.core import (ArgumentError, CheckpointError, ClipSpec, SpecMismatchError, VidclsError,
                         seed_everything)
from vidcls.models.conversions import PRETRAINING_NAMES
from vidcls.models.masking import MASKS, check_mask, frame_mask, mask_counts, random_mask
from vidcls.models.masking import running_cell_mask, tube_mask
from vidcls.models.pixel_targets import box_pixels, boxes_to_clips, masked_mse, pixel_targets
from vidcls.models.registry import check_registered, is_registered
from vidcls.models.videomae_pretrain import VideoMAEPretrain, videomae_pretrain_tiny
from vidcls.models.weights import save_transformers
from vidcls.models.zoo import create_model, list_models

DATA = os.environ.get('VIDCLS_TEST_DATA')
NAMES = Path(DATA).parent/'reference'/'videomae_pretrain_small.tsv' if DATA else Path('nowhere')
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def gen(seed=0): return torch.Generator().manual_seed(seed)

def clips(model, n=2, dtype=torch.float32, seed=0):
    T, S = model.spec.n_frames, model.spec.size
    return torch.randn(n, 3, T, S, S, dtype=dtype, generator=gen(seed))

def shaken(model, std=.2):
    "Random weights everywhere, biases and norms too, or a swap would not show."
    seed_everything(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=std)
    return model

def quiet(f, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return f(*args, **kwargs)

def loss_of(net, x, mask, predict=None):
    said = net(x, mask, predict)
    return masked_mse(said, net.targets(x, mask if predict is None else predict)).mean()


# --- masks

@pytest.mark.parametrize('kind', MASKS)
def test_masks_hide_the_same_number_and_come_again(kind):
    grid = (8, 14, 14)
    mask = MASKS[kind](grid, .5, 5, gen(3))
    visible, hidden = mask_counts(kind, grid, .5)
    assert mask.dtype == torch.bool and mask.shape == (5, 1568) and visible + hidden == 1568
    assert mask.sum(1).tolist() == [hidden]*5 == [784]*5
    assert torch.equal(mask, MASKS[kind](grid, .5, 5, gen(3)))
    assert not torch.equal(mask, MASKS[kind](grid, .5, 5, gen(4)))
    assert len({tuple(row) for row in mask.tolist()}) == 5              # each clip draws for itself

def test_tubes_hide_as_many_as_published():
    assert mask_counts('tube', (8,14,14), .9) == (160, 1408)
    mask = tube_mask((8,14,14), .9, 3, gen())
    assert mask.sum(1).tolist() == [1408]*3 and (~mask).sum(1).tolist() == [160]*3
    at = mask.view(3, 8, 196)
    assert torch.equal(at, at[:,:1].expand(-1, 8, -1))

def test_every_box_is_hidden_equally_often():
    for kind, draw in MASKS.items():
        share = draw((4,4,4), .75, 4000, gen(1)).float().mean(0)
        assert (share - .75).abs().max() < 5*(.75*.25/4000)**.5, kind

def test_frames_are_hidden_whole_and_single_boxes_alone():
    steps = frame_mask((8,2,3), .75, 6, gen()).view(6, 8, 6)
    assert set(steps.sum(2).flatten().tolist()) == {0, 6}
    assert (steps.all(2).sum(1) == 6).all()
    per_step = random_mask((8,4,4), .5, 6, gen()).view(6, 8, 16).sum(2)
    assert per_step.unique().numel() > 2

@pytest.mark.parametrize('ratio', [.25, .5, .75])
def test_running_cells_visit_every_place_equally_often(ratio):
    cells = running_cell_mask((8,4,6), ratio, 20, gen(2)).view(20, 8, 4, 6)
    assert (cells.sum(1) == 8*ratio).all()                              # each place, over two rounds
    blocks = cells.view(20, 8, 2, 2, 3, 2).sum((3,5))
    assert (blocks == 4*ratio).all()                                    # each cell, in each step
    assert len({tuple(c.flatten().tolist()) for c in cells[:,:4]}) == 4     # four ways to begin
    assert not torch.equal(cells[:,0], cells[:,1]) and torch.equal(cells[:,0], cells[:,4])

@pytest.mark.parametrize('kind,grid,ratio,says', [
    ('tube', (8,4,4), .01, ('from 1/16 to 15/16', 'nothing is hidden')),
    ('tube', (8,4,4), 1, ('from 1/16 to 15/16', 'nothing stays visible')),
    ('frame', (8,4,4), .1, ('from 1/8 to 7/8',)),
    ('random', (2,2,2), 0, ('from 1/8 to 7/8',)),
    ('tube', (8,4,4), 1.5, ('ratio=1.5', 'from 0 to 1')),
    ('tube', (8,4,4), -.1, ('ratio=-0.1',)),
    ('tube', (8,4,4), float('nan'), ('ratio=nan',)),
    ('tube', (8,4,4), '0.9', ("ratio='0.9'",)),
])
def test_ratios_that_hide_nothing_or_all_are_refused(kind, grid, ratio, says):
    for call in (lambda: mask_counts(kind, grid, ratio), lambda: MASKS[kind](grid, ratio, 2, gen())):
        with pytest.raises(ArgumentError) as e:
            call()
        assert all(s in str(e.value) for s in says), e.value

def test_a_ratio_of_all_but_one_and_of_one():
    assert mask_counts('tube', (1,10,10), .29) == (71, 29)              # 0.29·100 is 28.999… in floats
    assert mask_counts('tube', (2,4,4), 1/16) == (30, 2) and mask_counts('tube', (2,4,4), 15/16) == (2, 30)

def test_other_wrong_calls_of_masks():
    with pytest.raises(ArgumentError, match="Did you mean 'tube'"):
        mask_counts('tubes', (8,4,4), .5)
    with pytest.raises(ArgumentError, match='a larger grid, or another kind'):
        mask_counts('frame', (1,4,4), .5)
    with pytest.raises(ArgumentError, match='even height'):
        running_cell_mask((8,7,7), .5, 1, gen())
    with pytest.raises(ArgumentError, match='ratio=0.9'):
        running_cell_mask((8,4,4), .9, 1, gen())

def _uneven():
    mask = tube_mask((4,4,4), .75, 2, gen())
    mask[0,0] = ~mask[0,0]
    return mask

BAD_MASKS = {
    'short': (lambda: tube_mask((4,2,4), .75, 2, gen()), 'mask is bool (2, 32); accepted: bool (2, 64)'),
    'one row': (lambda: tube_mask((4,4,4), .75, 1, gen()), 'mask is bool (1, 64); accepted: bool (2, 64)'),
    'flat': (lambda: tube_mask((4,4,4), .75, 2, gen()).flatten(), 'mask is bool (128,)'),
    'numbers': (lambda: tube_mask((4,4,4), .75, 2, gen()).float(), 'mask is float32 (2, 64)'),
    'array': (lambda: tube_mask((4,4,4), .75, 2, gen()).numpy(), 'mask is ndarray'),
    'none at all': (lambda: None, 'mask is NoneType'),
    'uneven': (_uneven, 'boxes of a clip; accepted: the same number'),
    'all': (lambda: torch.ones(2, 64, dtype=torch.bool), 'mask hides everything'),
    'nothing': (lambda: torch.zeros(2, 64, dtype=torch.bool), 'mask hides nothing'),
}

@pytest.mark.parametrize('case', BAD_MASKS)
def test_masks_that_are_refused(case):
    make, says = BAD_MASKS[case]
    net = videomae_pretrain_tiny()
    x = clips(net)
    for call in (lambda m: check_mask(m, 2, 64), lambda m: net(x, m), lambda m: net.targets(x, m)):
        with pytest.raises(ArgumentError) as e:
            call(make())
        assert says in str(e.value)

def test_a_count_that_is_not_the_masks_is_refused():
    net = videomae_pretrain_tiny()
    x, mask = clips(net), tube_mask(net.grid, .75, 2, gen())
    assert torch.equal(net(x, mask, n_hidden=48), net(x, mask))
    with pytest.raises(ArgumentError, match='n_hidden=40'):
        net(x, mask, n_hidden=40)
    uneven = _uneven()
    with pytest.raises(ArgumentError, match='the same number'):
        net(x, uneven, n_hidden=48)


# --- targets

def right_targets(clip01, tubelet, patch):
    "In numpy and loops, float64: for each box and colour, unbiased, 1e-6 added to the deviation."
    B, _, T, H, W = clip01.shape
    boxes = []
    for b in range(B):
        for t in range(0, T, tubelet):
            for y in range(0, H, patch):
                for x in range(0, W, patch):
                    box = clip01[b, :, t:t+tubelet, y:y+patch, x:x+patch].reshape(3, -1)
                    mean = box.sum(1, keepdims=True)/box.shape[1]
                    var = ((box - mean)**2).sum(1, keepdims=True)/(box.shape[1] - 1)
                    boxes.append(((box - mean)/(np.sqrt(var) + 1e-6)).T.reshape(-1))    # colours side by side
    return np.array(boxes).reshape(B, -1, boxes[0].size)

def test_targets_are_those_of_the_authors_and_no_others():
    clip = torch.rand(2, 3, 8, 32, 32, generator=gen(), dtype=torch.float64)*.5 + .1
    right = torch.from_numpy(right_targets(clip.numpy(), 2, 8))
    assert (pixel_targets(clip, 2, 8) - right).abs().max() < 1e-12
    assert (pixel_targets(clip.float(), 2, 8) - right).abs().max() < 2e-5
    boxes = box_pixels(clip, 2, 8)                                      # (B,N,P,3)
    def standardised(axes, unbiased=True, more=1e-6):
        std = boxes.var(axes, unbiased=unbiased, keepdim=True).sqrt()
        return ((boxes - boxes.mean(axes, keepdim=True))/(std + more)).flatten(2)
    wrong = dict(
        biased=standardised(2, unbiased=False),
        colours_together=standardised((2,3)),
        boxes_together=standardised((1,2)),
        more_added=standardised(2, more=1e-4),
        raw=boxes.flatten(2),
        colours_apart=standardised(2).unflatten(2, (-1,3)).transpose(2,3).flatten(2),
    )
    assert (standardised(2) - right).abs().max() < 1e-12
    for name,target in wrong.items():                                   # each would be noticed
        assert (target - right).abs().max() > 1e-5, name

def test_targets_are_those_of_the_hidden_boxes_in_order():
    net = videomae_pretrain_tiny(mean=(.5,.4,.3), std=(.2,.25,.3))
    clip01 = torch.rand(3, 3, 8, 32, 32, generator=gen())
    mean, std = (torch.tensor(v).view(3,1,1,1) for v in (net.spec.mean, net.spec.std))
    x, mask = (clip01 - mean)/std, random_mask(net.grid, .6, 3, gen(1))
    right = right_targets(clip01.double().numpy(), 2, 8)
    target = net.targets(x, mask)
    for b in range(3):
        want = torch.from_numpy(right[b][mask[b].numpy()])
        assert target[b].shape == want.shape and (target[b] - want).abs().max() < 1e-3
        assert target[b].shape != right[b][~mask[b].numpy()].shape      # not those of the visible ones
    half = tube_mask(net.grid, .5, 3, gen(2))                           # as many visible as hidden
    swapped = torch.from_numpy(np.stack([right[b][~half[b].numpy()] for b in range(3)]))
    assert (net.targets(x, half) - swapped).abs().max() > .1

def test_targets_in_half_precision_and_of_bgr():
    net = videomae_pretrain_tiny()
    x, mask = clips(net)*.1, tube_mask(net.grid, .75, 2, gen())
    low = net.targets(x.bfloat16(), mask)
    assert low.dtype == torch.float32 and torch.equal(low, net.targets(x.bfloat16().float(), mask))
    assert not net.targets(x.requires_grad_(), mask).requires_grad
    bgr = videomae_pretrain_tiny(channels='BGR', mean=(.5,.4,.3))
    byte = torch.randint(256, (1,8,32,32,3), dtype=torch.uint8, generator=gen())
    back = bgr.pixels(bgr.spec.to_model(byte))*255                      # in the order of the model's channels
    assert (back - byte.flip(-1).permute(0,4,1,2,3)).abs().max() < 1e-3

def test_boxes_of_one_colour_are_finite():
    net = shaken(videomae_pretrain_tiny())
    mask = tube_mask(net.grid, .75, 2, gen())
    for x in (torch.zeros(2,3,8,32,32), torch.full((2,3,8,32,32), .37), clips(net).mul(0)):
        x[1] = clips(net, 1)[0]
        target = net.targets(x, mask)
        assert target.isfinite().all() and target[0].abs().max() < .2
        loss = loss_of(net, x, mask)
        net.zero_grad()
        loss.backward()
        assert loss.isfinite() and all(p.grad.isfinite().all() for p in net.parameters())

def test_boxes_there_and_back_by_loops():
    clip = torch.rand(2, 3, 4, 6, 9, generator=gen())
    boxes = box_pixels(clip, 2, 3)                                      # 2 × 2 × 3 boxes
    assert boxes.shape == (2, 12, 18, 3) and torch.equal(boxes_to_clips(boxes, (2,2,3), 2, 3), clip)
    at = clip[1, :, 2:4, 3:6, 6:9].permute(1,2,3,0).reshape(18, 3)      # step 2, row 2, column 3
    assert torch.equal(boxes[1, 6+3+2], at)

def test_the_loss_is_a_mean_over_hidden_boxes():
    a, b = torch.rand(2, 5, 12, generator=gen()), torch.rand(2, 5, 12, generator=gen(1))
    assert torch.allclose(masked_mse(a, b), ((a - b)**2).mean((1,2)))
    some = torch.tensor([[True,False,True,False,False], [True]*5])
    want = torch.stack([((a - b)[0,[0,2]]**2).mean(), ((a - b)[1]**2).mean()])
    assert torch.allclose(masked_mse(a, b, some), want)
    assert masked_mse(a.bfloat16(), b).dtype == torch.float32


# --- the network

def test_sizes_are_the_authors():
    with torch.device('meta'):
        count = lambda name: sum(p.numel() for p in create_model(name).parameters())
        assert count('videomae_pretrain_base') == 94_210_944
        small, large = (create_model(f'videomae_pretrain_{s}') for s in ('small', 'large'))
    assert (len(small.encoder.blocks), len(small.decoder.blocks), len(large.decoder.blocks)) == (12, 4, 12)
    assert small.decoder.blocks[0].attn.heads == 3 and small.decoder.norm.weight.shape == (192,)
    assert large.decoder.blocks[0].attn.heads == 8 and large.decoder.norm.weight.shape == (512,)
    assert not [k for k in small.state_dict() if 'pos' in k]
    tiny, classifier = create_model('videomae_pretrain_tiny'), create_model('videomae_tiny')
    assert tiny.spec == classifier.spec and tiny.grid == (4,4,4) and tiny.num_features == 96
    shared = {k: v.shape for k,v in classifier.state_dict().items() if k.startswith(('blocks', 'patch'))}
    assert {k: v.shape for k,v in tiny.encoder.state_dict().items() if not k.startswith('norm')} == shared

def test_first_weights_are_xaviers():
    seed_everything(0)
    net = create_model('videomae_pretrain_tiny', dim=192, decoder_dim=96)
    for layer in (net.encoder.blocks[2].mlp.fc1, net.decoder.blocks[0].attn.qkv, net.encoder_to_decoder):
        n_out, n_in = layer.weight.shape
        bound = (6/(n_in + n_out))**.5                                  # uniform: deviation is bound/√3
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound/3**.5, rel=.05)
        assert layer.bias is None or not layer.bias.any()
    assert net.mask_token.std().item() == pytest.approx(.02, rel=.4)

def test_what_is_hidden_is_not_seen_and_order_is_kept():
    net = shaken(videomae_pretrain_tiny())
    x, mask = clips(net), random_mask(net.grid, .75, 2, gen())
    said = net(x, mask)
    boxes = box_pixels(x, 2, 8)
    boxes[mask] = 7.
    assert torch.equal(net(boxes_to_clips(boxes, net.grid, 2, 8), mask), said)
    boxes[~mask] = 7.
    assert not torch.allclose(net(boxes_to_clips(boxes, net.grid, 2, 8), mask), said)
    for b in range(2):                                                  # clips don't see each other
        assert torch.allclose(net(x[b:b+1], mask[b:b+1])[0], said[b], atol=1e-4)

def test_the_encoder_is_the_classifiers():
    net = shaken(videomae_pretrain_tiny(), .1)
    classifier = quiet(create_model, 'videomae_tiny', pretrained=net, n_classes=3)
    x = clips(net)
    assert torch.equal(net.encoder.norm(classifier.forward_features(x)), net.encode(x))
    some = torch.tensor([[5,0,33], [1,2,3]])
    assert net.encode(x, some).shape == (2, 3, 96)

def test_the_decoder_is_asked_about_a_part():
    net = shaken(videomae_pretrain_tiny())
    x, mask = clips(net), tube_mask(net.grid, .75, 2, gen())
    predict = mask & ~running_cell_mask(net.grid, .5, 2, gen())
    said = net(x, mask, predict)
    assert said.shape == (2, 24, 384) == net.targets(x, predict).shape
    at = torch.stack([predict[b][mask[b]] for b in range(2)])           # among the hidden ones
    assert torch.equal(net.targets(x, predict), net.targets(x, mask)[at].view(2, 24, 384))
    every = net(x, mask)
    assert torch.equal(net(x, mask, mask), every)
    assert not torch.allclose(every[at].view(2, 24, 384), said)         # the others were its neighbours

def test_wrong_predict_and_clips_are_refused():
    net = videomae_pretrain_tiny()
    x, mask = clips(net), tube_mask(net.grid, .75, 2, gen())
    for predict,says in ((mask[:1], 'predict is bool (1, 64)'), (mask.float(), 'predict is float32'),
                         (~torch.ones_like(mask), 'predict hides nothing')):
        with pytest.raises(ArgumentError) as e:
            net(x, mask, predict)
        assert says in str(e.value)
    for bad in (x[0], x.transpose(1,2), x[:,:,:4]):
        for call in (lambda: net(bad, mask), lambda: net.targets(bad, mask), lambda: net.encode(bad)):
            with pytest.raises(SpecMismatchError):
                call()

def test_gradient_checkpointing_changes_nothing():
    net = shaken(videomae_pretrain_tiny(), .1)
    x, mask = clips(net), tube_mask(net.grid, .75, 2, gen())
    grads = []
    for on in (False, True):
        net.set_grad_checkpointing(on)
        net.zero_grad()
        loss_of(net, x, mask).backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a,b in zip(*grads))

@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiles_without_a_break(backend):
    net = shaken(videomae_pretrain_tiny(), .1)
    x, mask = clips(net), tube_mask(net.grid, .75, 2, gen())
    predict = running_cell_mask(net.grid, .5, 2, gen())
    torch._dynamo.reset()
    whole = torch.compile(net, fullgraph=True, backend=backend)
    assert torch.allclose(whole(x, mask), net(x, mask), atol=1e-5)
    assert torch.allclose(whole(x, mask, n_hidden=48), net(x, mask), atol=1e-5)
    assert torch.allclose(whole(x, mask, predict), net(x, mask, predict), atol=1e-5)
    other = tube_mask(net.grid, .75, 2, gen(5))
    assert torch.allclose(whole(x, other), net(x, other), atol=1e-5)
    with pytest.raises(RuntimeError, match='compile the network again'):  # not silently another count
        whole(x, tube_mask(net.grid, .5, 2, gen()))
    torch._dynamo.reset()

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    net = shaken(videomae_pretrain_tiny(), .05)
    x, mask = clips(net), tube_mask(net.grid, .75, 2, gen())
    full = net(x, mask)
    with torch.autocast('cpu', dtype=dtype):
        auto = net(x, mask)
        loss = masked_mse(auto, net.targets(x, mask))
    assert auto.dtype == dtype and loss.dtype == torch.float32
    assert (auto.float() - full).abs().max() < .05*full.abs().max()
    half = net.to(dtype)(x.to(dtype), mask)
    assert half.dtype == dtype and (half.float() - full).abs().max() < .05*full.abs().max()


# --- transformers

def of_transformers(hf, ours):
    "transformers' network with our weights."
    config, state = ours.to_transformers()
    config |= dict(image_size=ours.spec.size, num_frames=ours.spec.n_frames)
    config.pop('model_type')
    theirs = hf.VideoMAEForPreTraining(hf.VideoMAEConfig(**config)).to(ours.mask_token.dtype)
    theirs.load_state_dict(state)
    theirs.decoder.norm.eps = 1e-6           # the authors'; transformers leaves PyTorch's 1e-5 here
    return theirs

@pytest.mark.parametrize('kind', MASKS)
@pytest.mark.parametrize('dtype,eps', PRECISIONS)
def test_equals_transformers(hf, kind, dtype, eps):
    ours = shaken(videomae_pretrain_tiny(dim=48, depth=3, decoder_dim=24, decoder_heads=3).to(dtype))
    theirs = of_transformers(hf, ours)
    x, mask = clips(ours, 3, dtype), MASKS[kind](ours.grid, .75, 3, gen())
    a, b = ours(x, mask), theirs(x.transpose(1,2), bool_masked_pos=mask)
    assert a.shape == b.logits.shape and (a - b.logits).abs().max() < eps*b.logits.abs().max()
    loss = masked_mse(a, ours.targets(x, mask)).mean()
    assert abs(loss.item()/b.loss.item() - 1) < eps
    loss.backward()
    b.loss.backward()
    grads = PRETRAINING_NAMES.to_theirs({k: p.grad for k,p in ours.named_parameters()})
    named = dict(theirs.named_parameters())
    scale = max(p.grad.abs().max() for p in named.values())
    assert set(grads) == set(named)
    for k,p in named.items():
        assert (grads[k] - p.grad).abs().max() < eps*scale, k

def test_folders_of_transformers_there_and_back(hf, tmp_path):
    ours = shaken(create_model('videomae_pretrain_tiny'), .1).eval()
    save_transformers(ours, tmp_path/'ours')
    theirs, info = hf.VideoMAEForPreTraining.from_pretrained(tmp_path/'ours', output_loading_info=True)
    assert not any(info[k] for k in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
    x, mask = clips(ours), tube_mask(ours.grid, .75, 2, gen())
    with torch.no_grad():
        said = ours(x, mask)
        assert (theirs.eval()(x.transpose(1,2), bool_masked_pos=mask).logits - said).abs().max() < 1e-4
        theirs.decoder.norm.eps = 1e-6
        again = theirs(x.transpose(1,2), bool_masked_pos=mask).logits
        assert (again - said).abs().max() < 1e-5*said.abs().max()
    theirs.save_pretrained(tmp_path/'theirs')
    for source in (tmp_path/'ours', tmp_path/'theirs', theirs, theirs.state_dict()):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            back = create_model('videomae_pretrain_tiny', pretrained=source)
        assert all(torch.equal(v, back.state_dict()[k]) for k,v in ours.state_dict().items())

def test_what_no_tensor_shows_is_read_from_the_config(hf, tmp_path):
    ours = create_model('videomae_pretrain_tiny', heads=2, decoder_heads=4, n_frames=4, size=48)
    save_transformers(ours, tmp_path)
    back = create_model('videomae_pretrain_tiny', pretrained=tmp_path)
    assert back.encoder.blocks[0].attn.heads == 2 and back.decoder.blocks[0].attn.heads == 4
    assert (back.spec.n_frames, back.spec.size) == (4, 48)
    with pytest.raises(CheckpointError, match='decoder_num_attention_heads=4 there, 2 here'):
        create_model('videomae_pretrain_tiny', pretrained=tmp_path, decoder_heads=2)


# --- files

def published():
    with open(NAMES) as f:
        rows = list(csv.DictReader(f, delimiter='\t'))
    shape = lambda r: tuple(int(n) for n in r['shape'].strip('()').split(',') if n.strip())
    return {r['name']: torch.randn(shape(r), generator=gen())*.02 for r in rows}

@pytest.mark.skipif(not NAMES.is_file(), reason='needs reference/ beside the folder in VIDCLS_TEST_DATA')
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_the_authors_checkpoint_loads_whole(tmp_path, prefix):
    state = published()
    torch.save({'model': {prefix + k: v for k,v in state.items()}, 'epoch': 800}, tmp_path/'checkpoint.pth')
    with warnings.catch_warnings():
        warnings.simplefilter('error')                                  # nothing left out, nothing fresh
        model = create_model('videomae_pretrain_small', pretrained=tmp_path/'checkpoint.pth')
    own = model.state_dict()
    assert set(own) == set(state) and all(torch.equal(own[k], v) for k,v in state.items())

def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    net = create_model('videomae_pretrain_tiny')
    state = net.state_dict()
    state.pop('mask_token')
    with pytest.raises(CheckpointError, match='missing in the file: mask_token'):
        create_model('videomae_pretrain_tiny', pretrained=state)
    with pytest.raises(CheckpointError, match='does not fit this VideoMAEPretrain'):
        create_model('videomae_pretrain_tiny', pretrained=create_model('videomae_tiny').state_dict())

@pytest.mark.parametrize('way', ['file', 'folder', 'state', 'model', 'copy'])
def test_a_pretraining_becomes_a_classifier(tmp_path, way):
    net = shaken(create_model('videomae_pretrain_tiny', n_frames=4, size=48, mean=.5, std=.25), .1)
    save_file(net.state_dict(), tmp_path/'net.safetensors')
    save_transformers(net, tmp_path/'folder')
    copy = create_model('videomae_pretrain_tiny', spec=net.spec)
    copy.load_state_dict(net.state_dict())
    source = dict(file=tmp_path/'net.safetensors', folder=tmp_path/'folder', state=net.state_dict(),
                  model=net, copy=copy)
    given = {} if way in ('folder', 'model', 'copy') else dict(spec=net.spec, pretrained_grid=(4,48))
    with pytest.warns(UserWarning, match='decoder were left out; fc_norm and head are new'):
        classifier = create_model('videomae_tiny', pretrained=source[way], n_classes=5, **given)
    assert classifier.spec == net.spec and classifier.n_classes == 5 and torch.equal(classifier.pos, net.pos)
    for k,v in net.encoder.state_dict().items():
        if not k.startswith('norm.'):
            assert torch.equal(v, classifier.state_dict()[k]), k
    assert is_registered(classifier)

def test_other_networks_are_no_pretraining():
    net = create_model('videomae_pretrain_tiny')
    for name in ('timesformer_tiny', 'i3d_tiny', 'transformers'):
        with pytest.raises(VidclsError):
            quiet(create_model, name, pretrained=net, n_classes=3)
    with pytest.raises(ArgumentError, match=r'pretrained=model.state_dict\(\)'):
        create_model('videomae_pretrain_tiny', pretrained=create_model('videomae_tiny'))

def test_pretraining_goes_on_with_other_clips(tmp_path):
    "Positions are resized from those that the weights were made for, and stay so in the classifier."
    net = create_model('videomae_pretrain_tiny')
    save_transformers(net, tmp_path/'net')
    for source in (net, tmp_path/'net'):
        longer = create_model('videomae_pretrain_tiny', pretrained=source, n_frames=16, size=48)
        assert longer.arguments['pretrained_grid'] == (8,32) and longer.grid == (8,6,6)
        made = create_model('videomae_tiny', n_frames=16, size=48, pretrained_grid=(8,32))
        assert torch.equal(longer.pos, made.pos) and longer.decoder_pos.shape == (1, 288, 48)
        with pytest.warns(UserWarning, match='transformers makes positions for the clips at hand'):
            save_transformers(longer, tmp_path/'longer')
        for then in (longer, tmp_path/'longer'):                        # handed over: the same positions
            classifier = quiet(create_model, 'videomae_tiny', pretrained=then, n_classes=3)
            assert torch.equal(classifier.pos, longer.pos) and classifier.spec == longer.spec
            assert torch.equal(create_model('videomae_pretrain_tiny', pretrained=then).pos, longer.pos)
    with pytest.warns(UserWarning, match=r'give pretrained_grid=\(16, 32\)'):
        create_model('videomae_pretrain_tiny', pretrained=net.state_dict(), n_frames=16)


# --- the registry

def test_names_and_arguments():
    names = [f'videomae_pretrain_{size}' for size in ('base', 'large', 'small', 'tiny')]
    assert list_models(pretraining=True) == names and not set(names) & set(list_models())
    net = create_model('videomae_pretrain_tiny', decoder_depth=1, size=64)
    assert (net.name, net.arguments, net.n_classes) == ('videomae_pretrain_tiny', {'decoder_depth': 1}, None)
    assert is_registered(net)
    check_registered(net)
    again = create_model(net.name, spec=net.spec, **net.arguments)
    again.load_state_dict(net.state_dict())
    with pytest.raises(ArgumentError, match='has no classes'):
        create_model('videomae_pretrain_tiny', n_classes=8)
    with pytest.raises(ArgumentError, match="Did you mean 'decoder_dim'"):
        create_model('videomae_pretrain_tiny', decoder_dims=8)
    with pytest.raises(ArgumentError, match='brings no weights of its own'):
        create_model('videomae_pretrain_tiny', pretrained=True)
    with pytest.raises(ArgumentError, match="'videomae_pretrain_tiny'"):
        create_model('videomae_pretrain_tinny')
    with pytest.raises(ArgumentError, match='size=30 is no multiple of 8'):
        create_model('videomae_pretrain_tiny', size=30)

def test_the_class_by_itself():
    net = VideoMAEPretrain(ClipSpec(n_frames=2, size=32))
    assert net.grid == (1,2,2) and net(clips(net), tube_mask(net.grid, .5, 2, gen())).shape == (2, 2, 1536)
