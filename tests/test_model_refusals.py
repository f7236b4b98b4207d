"What models, losses and optimisers refuse, and in which words."
import math, re

import pytest
import torch
from torch import nn

from vidcls.core import ArgumentError, ClipSpec, LabelError, SpecMismatchError, check_between
from vidcls.losses import (DistillationLoss, FocalLoss, LabelSmoothingCrossEntropy, check_targets,
                           class_weights, feature_distance, smoothing_floor, soft_targets)
from vidcls.models.i3d import i3d_tiny
from vidcls.models.inflate import Inflated, InflatedConv, inflate
from vidcls.models.layers import (Attention, DropPath, Mlp, VideoModel, build_model, check_spec, check_wholes,
                                  drop_path_rates, new_head, resample_pos_embed, sincos_pos_embed)
from vidcls.models.mvit import mvit_v2_tiny
from vidcls.models.swin3d import swin3d_tiny
from vidcls.models.timesformer import TimeSformer, timesformer_tiny
from vidcls.models.videomae import TubeletShape, VideoMAE, videomae_tiny
from vidcls.optim import adamw, freeze_layers, make_schedule, param_groups, scale_lr, sgd


def refused(make, says, exc=ArgumentError):
    with pytest.raises(exc, match=re.escape(says)):
        make()


# --- parts of a network

where = torch.zeros(1, 32, 3)

@pytest.mark.parametrize('make, says', [
    (lambda: sincos_pos_embed(0, 384), 'n=0'),
    (lambda: resample_pos_embed(where, (2,4,5), (2,2,2)), 'the table has 32 rows'),
    (lambda: Mlp(dim=4, hidden=0), 'hidden (mlp_ratio · dim)=0'),
    (lambda: Attention(dim=12, heads=5), 'heads=5 does not divide dim=12'),
    (lambda: DropPath(1.), 'drop_path=1.0'),
    (lambda: DropPath(-.1), 'drop_path=-0.1'),
    (lambda: DropPath(math.nan), 'drop_path=nan'),
    (lambda: check_wholes('window', (2,4), 3), 'window=(2, 4); accepted: a tuple of 3 whole numbers'),
    (lambda: check_wholes('window', (0,4,4), 3), 'window[0]=0'),
    (lambda: drop_path_rates(1., 3), 'drop_path=1.0'),
    (lambda: check_spec(ClipSpec(n_frames=8, size=50), pixels=16), 'size=50 is no multiple of 16'),
    (lambda: check_spec(ClipSpec(n_frames=7), frames=2), 'n_frames=7 is no multiple of 2'),
    (lambda: check_spec({'size': 32}), 'accepted: a ClipSpec'),
])
def test_parts(make, says):
    refused(make, says)


class Nano(VideoModel):
    def __init__(self, spec, n_classes=400, dim=24):
        super().__init__(spec, frames=2, pixels=8)
        self.head = new_head(dim, n_classes)

    def forward_features(self, x):
        self.check_clips(x)
        return x

@pytest.mark.parametrize('wrong, says', [
    (lambda x: x.transpose(1,2), 'Did you pass (B,T,C,H,W)?'),
    (lambda x: x.numpy(), 'got a ndarray; torch.from_numpy(x)'),
    (lambda x: x.permute(0,2,3,4,1), 'Did you pass (B,T,H,W,C)?'),
    (lambda x: x[0], 'single clip'),
    (lambda x: x[:,:,:2], 'expected float (B, 3, 4, 16, 16), got float32 (2, 3, 2, 16, 16)'),
    (lambda x: x.byte(), 'model_input'),
])
def test_clips_of_another_form(wrong, says):
    model, x = Nano(ClipSpec(n_frames=4, size=16), 5), torch.zeros(2,3,4,16,16)
    refused(lambda: model.forward_features(wrong(x)), says, SpecMismatchError)

@pytest.mark.parametrize('make', [i3d_tiny, timesformer_tiny, videomae_tiny, mvit_v2_tiny, swin3d_tiny])
def test_every_family_names_the_other_layout(make):
    refused(lambda: make(5)(torch.zeros(1,8,3,32,32)), '(B,T,C,H,W)', SpecMismatchError)

def test_words_of_other_libraries_are_translated():
    refused(lambda: build_model(Nano, {}, ClipSpec(), 3, None, dict(frames=4)), "Did you mean 'n_frames'?")
    refused(lambda: videomae_tiny(8, frames=16), "Did you mean 'n_frames'?")


# --- inflation

class Own(nn.Conv2d):
    def forward(self, x): return super().forward(x)*2

Odd = type('Odd', (nn.Conv2d,), {'forward': lambda s, x: x})

@pytest.mark.parametrize('make, says', [
    (lambda: inflate(None), 'net is a NoneType; accepted'),
    (lambda: inflate(nn.ReLU()), 'net is a ReLU without weights'),
    (lambda: inflate(nn.Sequential(Own(3, 8, 3))), 'forward of its own'),
    (lambda: inflate(nn.Sequential(nn.Conv2d(3, 8, 3)), depth=lambda n,m: 0), 'depth of 0=0'),
    (lambda: Inflated(ClipSpec(n_frames=8, size=64), 5, nn.Linear(7, 5)), 'fails on a frame of 64'),
    (lambda: Inflated(ClipSpec(n_frames=8, size=64), 5), 'net=None'),
    (lambda: InflatedConv(Odd(3, 3, 3)), 'Odd is a convolution'),
])
def test_inflation(make, says):
    refused(make, says)


# --- the families

small, spec = TubeletShape(dim=96, depth=2, heads=4, patch=8), ClipSpec(n_frames=8, size=32)

@pytest.mark.parametrize('make, says', [
    (lambda: i3d_tiny(width=-1), 'width=-1'),
    (lambda: TimeSformer(ClipSpec(n_frames=4, size=16), 5, 'space_only'), "Did you mean 'space'?"),
    (lambda: VideoMAE(ClipSpec(n_frames=8, size=50)), 'size=50 is no multiple of 16'),
    (lambda: VideoMAE(ClipSpec(n_frames=7, size=32)), 'n_frames=7 is no multiple of 2'),
    (lambda: VideoMAE(spec, 1, small), 'n_classes=1'),
    (lambda: VideoMAE(spec, shape=small, drop_path=1.), 'drop_path=1.0'),
    (lambda: VideoMAE(spec, shape=small, pretrained_grid=5), 'pretrained_grid=5'),
    (lambda: VideoMAE(spec, shape=small, pretrained_grid=(7,32)), 'pretrained_grid=(7, 32)'),
    (lambda: VideoMAE({'size': 32}), 'accepted: a ClipSpec'),
    (lambda: videomae_tiny(3, depth=0), 'depth=0'),
    (lambda: timesformer_tiny(3, tubelet=2), "argument='tubelet'"),
    (lambda: mvit_v2_tiny(5, size=30), 'size=30 is no multiple of 4'),
    (lambda: mvit_v2_tiny(5, stages=2), 'stages=2'),
    (lambda: mvit_v2_tiny(5, stages=(4,)), 'stages=(4,)'),
    (lambda: swin3d_tiny(5, window=(2,4)), 'window=(2, 4)'),
    (lambda: swin3d_tiny(5, heads=(2,)), 'one of each per stage'),
    (lambda: swin3d_tiny(5, depths=(), heads=()), 'one of each per stage'),
    (lambda: swin3d_tiny(5, heads=(5,4)), 'heads=5 does not divide dim=48'),
])
def test_families(make, says):
    refused(make, says)


# --- losses

two = torch.zeros(2,3)
x, y = torch.zeros(64,8), torch.arange(64)%8

@pytest.mark.parametrize('make, says, exc', [
    (lambda: check_targets(torch.tensor([-1]), 8), 'label -1', LabelError),
    (lambda: check_targets(torch.tensor([3,8]), 8), 'label 8 is not in [0, 8)', LabelError),
    (lambda: check_targets(torch.ones(2), 8), 'torch.float32', ArgumentError),
    (lambda: check_targets(torch.zeros(2, 1, dtype=torch.int64), 8), 'shape (2, 1)', ArgumentError),
    (lambda: check_targets(torch.zeros(0, dtype=torch.int64), 8), 'B >= 1', ArgumentError),
    (lambda: soft_targets(torch.ones(2,3), two), 'no distribution', ArgumentError),
    (lambda: soft_targets(torch.ones(2,4)/4, two), 'expected that of the logits, (2, 3)', ArgumentError),
    (lambda: LabelSmoothingCrossEntropy(1.), 'smoothing=1.0', ArgumentError),
    (lambda: LabelSmoothingCrossEntropy('a bit'), 'a number in [0,1)', ArgumentError),
    (lambda: LabelSmoothingCrossEntropy()(x, y+1), 'label 8 is not in [0, 8)', LabelError),
    (lambda: LabelSmoothingCrossEntropy()(x, y[:3]), '64 rows of logits, 3 targets', ArgumentError),
    (lambda: LabelSmoothingCrossEntropy()(x[0], y), 'expected floats (B,K)', ArgumentError),
    (lambda: smoothing_floor(0), 'n_classes=0', ArgumentError),
    (lambda: class_weights(torch.tensor([0,1]), 3), 'class 2 has no clip', ArgumentError),
    (lambda: FocalLoss(-1), 'gamma=-1', ArgumentError),
    (lambda: FocalLoss(math.inf), 'gamma=inf', ArgumentError),
    (lambda: FocalLoss(2, torch.zeros(8)), 'one of them above 0', ArgumentError),
    (lambda: FocalLoss(2, [1., -1.]), 'weights=[1.0, -1.0]', ArgumentError),
    (lambda: FocalLoss(2, [1.,1.])(x, y), '2 entries for 8 classes', ArgumentError),
    (lambda: DistillationLoss(0), 'temperature=0', ArgumentError),
    (lambda: DistillationLoss()(x, x[:,:3]), 'the same classes', ArgumentError),
    (lambda: feature_distance(x, x[:,:3]), 'same width', ArgumentError),
])
def test_losses(make, says, exc):
    refused(make, says, exc)


# --- optimisers

@pytest.fixture
def toy():
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))

@pytest.mark.parametrize('make, says', [
    (lambda m: param_groups(m, -.1), 'weight_decay=-0.1'),
    (lambda m: param_groups(m.requires_grad_(False)), 'all of it is frozen'),
    (lambda m: param_groups(videomae_tiny(3), layer_decay=1.5), 'layer_decay=1.5'),
    (lambda m: param_groups(videomae_tiny(3), layer_decay=0), 'layer_decay=0'),
    (lambda m: param_groups(nn.Linear(2,2), layer_decay=.5), 'layers of Linear'),
    (lambda m: freeze_layers(i3d_tiny(3), 99), 'n=99; accepted'),
    (lambda m: adamw(m, lr=-1e-3), 'lr=-0.001'),
    (lambda m: adamw(m, betas=(.9,1.)), 'a number in [0,1)'),
    (lambda m: adamw(m, betas=(.9,)), 'two numbers in [0,1)'),
    (lambda m: adamw(m, fusde=True), "'fusde'; accepted: 'betas', 'eps'"),
    (lambda m: adamw(m, fusde=True), "Did you mean 'fused'?"),
    (lambda m: sgd(m, momentum=1.), 'momentum=1.0'),
    (lambda m: sgd(m, betas=(.9,.99)), "'betas'; accepted: 'momentum'"),
    (lambda m: make_schedule(adamw(m), 'cosine', 8, 9), 'n_warmup=9 is more than n_steps=8'),
    (lambda m: make_schedule(adamw(m), 'cosine', 0), 'n_steps=0'),
    (lambda m: make_schedule(adamw(m), 'cosine', 8, 3, final=1.5), 'final=1.5'),
    (lambda m: make_schedule(adamw(m), 'cosin', 8), "Did you mean 'cosine'?"),
    (lambda m: scale_lr(1e-3, 0), 'bs=0'),
])
def test_optimisers(toy, make, says):
    refused(lambda: make(toy), says)


@pytest.mark.parametrize('ends, inside, outside', [
    (True, [0, 1], [-1, 2]), (False, [.5], [0, 1]), ('low', [0], [1]), ('high', [1], [0]),
])
def test_intervals_have_the_ends_that_they_say(ends, inside, outside):
    for v in inside:
        assert check_between('v', v, 0, 1, ends) == v
    for v in [*outside, math.nan, True, 'a']:
        with pytest.raises(ArgumentError, match='v='):
            check_between('v', v, 0, 1, ends)
