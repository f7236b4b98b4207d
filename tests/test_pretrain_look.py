"Looking at a pre-training: is a collapse seen, is a healthy training left alone, are the pictures right?"
import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from processes import linux, run_script
from vidcls.core import ArgumentError, ClipSpec, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader, loaders
from vidcls.data.soft import soft_clips
from vidcls.data.synthetic import make_motion_clips, motion_clip
from vidcls.models.masking import MASKS, tube_mask
from vidcls.models.pixel_targets import masked_mse
from vidcls.models.videomae import TubeletShape, VideoMAE
from vidcls.models.zoo import create_model
from vidcls.pretraining.collapse import CollapseWarning, CollapseWatch, feature_health
from vidcls.pretraining.collapse import neighbour_accuracy
from vidcls.pretraining.pictures import plot_reconstruction, reconstruct, trivial_losses
from vidcls.train import Callback, fit

TIMES = ('seconds', 'waiting', 'clips_per_s')


# --- figures with values by hand

def test_rank_spread_and_cosine_by_hand():
    "Eight clips along two axes, around a mean of length 3: singular values 4 and 2."
    x = np.zeros((8,3))
    x[:4,0], x[4:,1] = [2, -2, 2, -2], [1, -1, 1, -1]
    x[:,2] = 3
    found = feature_health(x)
    p = np.array([4, 2])/6
    assert found.rank == pytest.approx(np.exp(-(p*np.log(p)).sum()), rel=1e-12)
    assert found.spread == pytest.approx(math.sqrt(20/(20+72)), rel=1e-12)
    unit = x/np.sqrt([[13]]*4 + [[10]]*4)
    pairs = [unit[i]@unit[j] for i in range(8) for j in range(8) if i != j]
    assert found.alike == pytest.approx(np.mean(pairs), rel=1e-12)

def test_equal_directions_count_as_many():
    x = np.concatenate([np.eye(6), -np.eye(6)])
    assert feature_health(x).rank == pytest.approx(6) and feature_health(x).spread == pytest.approx(1)
    assert feature_health(torch.tensor(x)*1e-3).rank == pytest.approx(6)                 # no unit counts

@pytest.mark.parametrize('constant', [0., 3.])
def test_constant_features_are_a_collapse(constant):
    found = feature_health(np.full((8,5), constant))
    assert found.collapsed and 'same features' in found.why and found.rank == found.spread == 0

def test_rounding_is_a_collapse_whatever_its_rank():
    x = 1 + 1e-7*np.random.default_rng(0).normal(size=(32,16))
    assert feature_health(x).rank > 12 and 'same features' in feature_health(x).why

def test_one_direction_is_a_collapse():
    x = np.outer(np.arange(8.), np.ones(5))
    assert 'one direction' in feature_health(x).why

def test_what_is_not_finite_is_a_collapse():
    x = np.random.default_rng(0).normal(size=(8,5))
    x[3,2] = np.nan
    assert feature_health(x).why == 'the features are not finite'

@pytest.mark.parametrize('part, said', [(.039, 'become alike'), (.041, '')])
def test_rank_and_spread_are_compared_with_what_they_were(part, said):
    rng = np.random.default_rng(0)
    mean, rest = np.eye(1, 16)*100, rng.normal(size=(64,16))
    rest -= rest.mean(0)
    rest *= 50/np.sqrt((rest**2).sum(1).mean())
    before = feature_health(mean + rest)
    small = math.sqrt(1/(1/(part*before.spread)**2 - 1))*100/50
    after = feature_health(mean + small*rest, before)
    assert after.spread == pytest.approx(part*before.spread) and after.rank == pytest.approx(before.rank)
    assert said in after.why and after.collapsed == bool(said)

def test_the_rank_is_compared_with_what_it_was():
    x = np.concatenate([np.eye(12), -np.eye(12)])
    few = x*np.r_[np.ones(3), np.zeros(9)]
    why = feature_health(few, feature_health(x)).why
    assert 'lost most of their directions' in why and 'rank went from 12.0 to 3.0' in why
    assert not feature_health(few).collapsed
    five = x*np.r_[np.ones(5), np.zeros(7)]
    assert not feature_health(five, feature_health(x)).collapsed

def test_odd_features_are_refused():
    with pytest.raises(ArgumentError, match=r'\(7, 4\).*N at least 8'):
        feature_health(np.zeros((7,4)))
    with pytest.raises(ArgumentError, match=r'\(8, 2, 4\)'):
        feature_health(np.zeros((8,2,4)))


# --- neighbours

def test_neighbours_by_hand():
    "On a circle around the mean: 0 and 1 lie together, 2 and 3 too."
    at = np.array([0, .1, math.pi, math.pi+.1])
    x = np.stack([np.cos(at), np.sin(at)], 1) + 5
    assert neighbour_accuracy(x, [0,0,1,1]) == (1, pytest.approx(1/3))
    assert neighbour_accuracy(x, [0,1,0,1]) == (0, pytest.approx(1/3))
    assert neighbour_accuracy(x, [0,0,0,1]) == (.5, pytest.approx((3*2/3 + 0)/4))

def test_a_neighbour_of_the_same_source_does_not_count():
    at = np.array([0, .1, .3, math.pi, math.pi+.1, math.pi+.3])
    x = np.stack([np.cos(at), np.sin(at)], 1)
    labels = [0, 1, 0, 1, 0, 1]
    assert neighbour_accuracy(x, labels)[0] == 0
    found, chance = neighbour_accuracy(x, labels, ['a','a','b','c','c','d'])
    assert found == pytest.approx(2/6)          # of 0 and of 3
    assert chance == pytest.approx(np.mean([2/4, 2/4, 2/5, 2/4, 2/4, 2/5]))

def test_one_source_has_no_neighbours():
    assert all(map(math.isnan, neighbour_accuracy(np.eye(4), [0,0,1,1], ['a']*4)))

def test_neighbours_want_a_label_for_each_clip():
    with pytest.raises(ArgumentError, match=r'\(3,\).*\(4,\)'):
        neighbour_accuracy(np.eye(4), [0,0,1])


# --- the watch in a training; a classifier with `encode` stands for any network

class Watched(VideoMAE):
    def encode(self, x): return self.forward_features(x)

@pytest.fixture(scope='module')
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp('motion')
    root = make_motion_clips(folder, n_groups=40, n_frames=8, size=32, difficulty=.5)
    return from_folder(root).select_classes(['left', 'up', 'spin_cw'])

def small(table, drop_path=.2):
    seed_everything(0)
    shape, spec = TubeletShape(dim=48, depth=2, heads=4, patch=8), ClipSpec(n_frames=8, size=32)
    return Watched(spec, table.n_classes, shape, drop_path, head_init_scale=1.)

def train(table, callbacks, epochs=3, bs=8, drop_path=.2, **kw):
    model = small(table, drop_path)
    dls = loaders(table, model.spec, bs=bs)
    hist = fit(model, dls, epochs=epochs, patience=None, show=False, callbacks=callbacks, **kw)
    return hist, torch.cat([p.detach().flatten() for p in model.parameters()])

def strip(rows, *more): return [{k: v for k,v in r.items() if k not in (*TIMES, *more)} for r in rows]

def test_a_training_is_the_same_with_the_watch(table):
    "To the bit, with drop path: it draws nothing. It adds its columns to the history."
    (plain, w0), (seen, w1) = train(table, []), train(table, [CollapseWatch(n=16)])
    assert torch.equal(w0, w1)
    assert strip(plain.rows) == strip(seen.rows, 'rank', 'spread', 'neighbour')
    assert all(1 < r['rank'] < 16 and 0 < r['spread'] < 1 and 0 <= r['neighbour'] <= 1 for r in seen.rows)

def test_resumed_it_compares_with_the_same_start(table, tmp_path):
    class Stop(Callback):
        def after_epoch(self, run):
            if run.epoch == 1:
                run.stop('enough')
    whole_watch, watch = CollapseWatch(n=16), CollapseWatch(n=16)
    whole, w0 = train(table, [whole_watch, Callback()], 4)
    class Same(Stop):
        kept_as = 'Callback'
    first, _ = train(table, [CollapseWatch(n=16), Same()], 4, out=tmp_path)
    assert len(first) == 2
    rest, w1 = train(table, [watch, Callback()], 4, out=tmp_path, resume='auto')
    assert torch.equal(w0, w1) and strip(whole.rows) == strip(rest.rows)
    assert watch.before == whole_watch.before

def test_every_second_epoch_and_the_last(table):
    watch = CollapseWatch(n=16, every=2)
    hist, _ = train(table, [watch], 3)
    assert [math.isnan(r) for r in hist['rank']] == [True, False, False]
    again, _ = train(table, [watch], 2)              # the next training is measured anew
    assert len(again) == 2

def test_the_clips_are_spread_over_the_table(table):
    watch = CollapseWatch(n=8)
    train(table, [watch], 1)
    valid = table.select_split('valid')
    rows = np.linspace(0, len(valid)-1, 8).round().astype(int)
    assert (watch.labels == valid.targets[rows]).all() and len(set(watch.labels)) > 1
    assert (watch.groups == valid.df.group.to_numpy()[rows]).all() and 0 < watch.chance < 1
    assert 'chance of a neighbour' in repr(watch)

def test_own_clips(table):
    clips = np.random.default_rng(0).integers(0, 256, (8,8,32,32,3), dtype=np.uint8)
    hist, _ = train(table, [CollapseWatch(clips)], 1)
    assert 'neighbour' not in hist.rows[0] and hist.rows[0]['rank'] > 1
    hist, _ = train(table, [CollapseWatch(clips, [0,1]*4)], 1)
    assert 0 <= hist.rows[0]['neighbour'] <= 1

def test_what_the_watch_refuses(table):
    for kw, said in [(dict(n=7), 'n=7'), (dict(n=129), 'n=129'), (dict(every=0), 'every=0'),
                     (dict(clips=np.zeros((4,8,32,32,3), np.uint8)), 'number of clips=4')]:
        with pytest.raises(ArgumentError, match=said):
            CollapseWatch(**kw)
    with pytest.raises(ArgumentError, match='give clips, too'):
        CollapseWatch(labels=[0,1]*4)
    run = SimpleNamespace(sharded=True, net=small(table))
    with pytest.raises(ArgumentError, match='FSDP'):
        CollapseWatch().before_fit(run)
    run = SimpleNamespace(sharded=False, net=torch.nn.Linear(2,2))
    with pytest.raises(ArgumentError, match='encode.*Linear lacks'):
        CollapseWatch().before_fit(run)

def test_loaders_of_too_few_clips_are_refused(table):
    model, few = small(table), table.filter(table.df.index.isin(table.select_split('train').df.index[:7]))
    dls = SimpleNamespace(train=loader(few, model.spec), valid=None)
    with pytest.raises(ArgumentError, match=r'found 7 clips.*CollapseWatch\(clips=…\)'):
        CollapseWatch().before_fit(SimpleNamespace(sharded=False, net=model, dls=dls))

def test_weights_that_forget_the_clip_are_reported_in_that_epoch(table):
    class Forget(Callback):
        def after_train(self, run):
            if run.epoch == 1:
                torch.nn.init.zeros_(run.net.patch_embed.proj.weight)
    with pytest.warns(CollapseWarning, match='in epoch 2.*same features') as seen:
        hist, _ = train(table, [Forget(), CollapseWatch(n=16)], 3)
    assert len([w for w in seen if w.category is CollapseWarning]) == 1
    assert hist['spread'][0] > .01 and hist['spread'][1] < 1e-6

def test_too_few_validation_clips_give_way_to_training_clips(table):
    few = table.select_split('train').df.group.unique()[:6]
    one = table.select_split('valid').df.index[0]
    small_table = table.filter(table.df.group.isin(few) | (table.df.index == one))
    watch = CollapseWatch(n=16)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        train(small_table, [watch], 1)
    assert len(watch.clips) == 16

SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_pretrain_look import from_folder, train
from vidcls.pretraining.collapse import CollapseWatch
from vidcls.training.engine import join_processes
_, _, folder, out = sys.argv
rank, world = join_processes()
hist, _ = train(from_folder(folder).select_classes(['left', 'up', 'spin_cw']), [CollapseWatch(n=16)], 2,
                bs=8//world, drop_path=0.)
if rank == 0:
    torch.save([[r[k] for k in ('rank', 'spread', 'neighbour')] for r in hist.rows], out)
"""

@linux
def test_two_processes_see_what_one_sees(tmp_path, table):
    seen = []
    for n in (1, 2):
        run_script(tmp_path/"watch.py", SCRIPT, Path(__file__).parent, table.root, tmp_path/str(n), n=n,
                   check=True)
        seen.append(torch.load(tmp_path/str(n)))
    assert np.allclose(*seen, rtol=.02)


# --- the watch in a pre-training, played by hand

def by_hand(net, epochs=1, main=True):
    "What the watch needs of a run."
    process = SimpleNamespace(is_main_process=main)
    return SimpleNamespace(net=net, sharded=False, row={}, epochs=epochs, epoch=0, accelerator=process)

def play(net, clips, lr=1e-3, epochs=2, steps=12, bs=8, seed=0, constant=False, watch=None):
    "Train as `pretrain` does, in short: masks, targets, AdamW with a warm-up; return the history's rows."
    gen = torch.Generator().manual_seed(seed)
    opt = torch.optim.AdamW(net.parameters(), lr, betas=(.9,.95), weight_decay=.05)
    run = by_hand(net, epochs)
    watch.before_fit(run)
    rows, step = [], 0
    for run.epoch in range(epochs):
        losses = []
        for _ in range(steps):
            drawn = torch.randint(len(clips), (bs,), generator=gen).numpy()
            x = net.spec.to_model(torch.from_numpy(clips[drawn]))
            mask = tube_mask(net.grid, .75, bs, gen)
            target = net.targets(x, mask)
            loss = masked_mse(net(x, mask), torch.ones_like(target) if constant else target).mean()
            step += 1
            opt.param_groups[0]['lr'] = lr*min(1, step/5)
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
            opt.step()
            losses.append(loss.item())
        run.row = dict(train_loss=np.mean(losses[-5:]))
        watch.after_epoch(run)
        rows.append(run.row)
    return rows

def tiny(seed=0):
    seed_everything(seed)
    return create_model('videomae_pretrain_tiny')

CLIPS, OTHERS = soft_clips(128), soft_clips(32, seed=1)

@pytest.mark.parametrize('seed', range(10))
def test_a_healthy_training_raises_no_alarm(seed):
    with warnings.catch_warnings():
        warnings.simplefilter('error', CollapseWarning)
        rows = play(tiny(seed), CLIPS, seed=seed, watch=CollapseWatch(OTHERS))
    assert all(r['rank'] > 6 and r['spread'] > .1 for r in rows)

@pytest.mark.parametrize('kind', ['plain', 'textured'])
def test_no_alarm_while_nothing_is_learned(kind):
    "On motion clips the loss stays for long where it began; that is no collapse."
    hard = .5*(kind == 'textured')
    clips = np.stack([motion_clip('left', g, difficulty=hard, n_frames=8, size=32) for g in range(64)])
    with warnings.catch_warnings():
        warnings.simplefilter('error', CollapseWarning)
        rows = play(tiny(), clips[:32], watch=CollapseWatch(clips[32:]))
    assert all(r['rank'] > 5 for r in rows)

@pytest.mark.parametrize('seed', range(3))
def test_a_huge_rate_is_reported_within_an_epoch(seed):
    with pytest.warns(CollapseWarning, match='no longer tells clips apart .in epoch 1.*Lower lr'):
        play(tiny(seed), CLIPS, lr=1., epochs=1, steps=20, seed=seed, watch=CollapseWatch(OTHERS))

def test_a_constant_target_is_reported_within_an_epoch():
    "Features stay; the loss falls under a fiftieth of what a blind answer reaches."
    with pytest.warns(CollapseWarning, match='in epoch 1.*target is constant') as seen:
        play(tiny(), CLIPS, lr=2e-3, epochs=1, steps=60, constant=True, watch=CollapseWatch(OTHERS))
    assert len(seen) == 1

def test_clips_of_one_colour_are_reported_before_training():
    clips = np.broadcast_to(np.arange(16, dtype=np.uint8)[:,None,None,None,None]*15, (16,8,32,32,3))
    watch, run = CollapseWatch(clips), by_hand(tiny())
    with pytest.warns(CollapseWarning, match='target is nearly the same for all 16 clips .before training'):
        watch.before_fit(run)

def test_the_blind_loss_by_hand():
    "The variance of standardised pixels over the clips, in every second box."
    watch = CollapseWatch(OTHERS[:8])
    watch.before_fit(by_hand(tiny()))
    x = OTHERS[:8].astype(np.float64)/255
    boxes = x.reshape(8, 4,2, 4,8, 4,8, 3).transpose(0, 1,3,5, 2,4,6, 7).reshape(8, 64, 128, 3)[:,1::2]
    z = (boxes - boxes.mean(2, keepdims=True))/(boxes.std(2, ddof=1, keepdims=True) + 1e-6)
    assert watch.blind == pytest.approx(z.var(0).mean(), rel=1e-3)

def test_one_process_warns_and_all_measure():
    run = by_hand(tiny(), main=False)
    same = np.broadcast_to(OTHERS[:1], (8,8,32,32,3))
    watch = CollapseWatch(same)
    with warnings.catch_warnings():
        warnings.simplefilter('error', CollapseWarning)
        watch.before_fit(run)
    assert watch.before['spread'] < 1e-3 and sorted(watch.warned) == ['features', 'target']


# --- what a loss means

def standard(clips):
    "Standardise boxes of 2 × 8 × 8 in numpy: clips (B,8,32,32,3) to float64 (B,4,16,128,3)."
    x = clips.astype(np.float64)/255
    boxes = x.reshape(len(x), 4,2, 4,8, 4,8, 3).transpose(0, 1,3,5, 2,4,6, 7).reshape(len(x), 4, 16, 128, 3)
    return (boxes - boxes.mean(3, keepdims=True))/(boxes.std(3, ddof=1, keepdims=True) + 1e-6)

NOISE = np.random.default_rng(0).integers(0, 256, (20,8,32,32,3), dtype=np.uint8)

@pytest.mark.parametrize('kind', MASKS)
def test_trivial_losses_by_hand(kind):
    "Loops over boxes in float64; clips that resemble their neighbours in time."
    clips = (.8*NOISE[:,:1] + .2*NOISE).astype(np.uint8)
    net, gen = tiny(), torch.Generator().manual_seed(3)
    mask = MASKS[kind](net.grid, .5, len(clips), gen)
    z, hidden = standard(clips), mask.numpy().reshape(-1, 4, 16)
    sums, shares = np.zeros(3), []
    for b, t, place in zip(*np.nonzero(hidden)):
        true = z[b,t,place]
        earlier = z[b, t-1 if t else 1, place]
        near = [s for s in (t-1, t+1) if 0 <= s < 4 and not hidden[b,s,place]]
        copy = z[b,near[0],place] if near else 0*true
        sums += [np.square(a - true).mean() for a in (0*true, earlier, copy)]
        shares.append(bool(near))
    found = trivial_losses(net, clips, mask)
    assert [found[k] for k in ('mean', 'before', 'visible')] == pytest.approx(sums/hidden.sum(), rel=1e-4)
    assert found['share'] == pytest.approx(np.mean(shares))
    assert found['mean'] == pytest.approx(127/128, rel=1e-4)                      # (n-1)/n

def test_independent_boxes_cost_twice_the_mean():
    found = trivial_losses(tiny(), NOISE, 'random', .5)
    assert found['before'] == pytest.approx(2*127/128, rel=.01)

def test_clips_that_stand_still_are_copied_for_nothing():
    still = np.repeat(NOISE[:,:1], 8, 1)
    for kind, share in dict(tube=0, frame=pytest.approx(5/6, abs=.2)).items():
        found = trivial_losses(tiny(), still, kind, .5)
        assert found['before'] == pytest.approx(0, abs=1e-6) and found['share'] == share
        assert found['visible'] == pytest.approx(found['mean']*(1-found['share']), rel=1e-4)

def test_boxes_of_one_colour_cost_nothing():
    clips = NOISE.copy()
    clips[:,:,:,:16] = 90                                                         # half of the boxes
    mask = torch.ones(20, 4, 4, 4, dtype=torch.bool)
    mask[:,:,0] = False
    assert trivial_losses(tiny(), clips, mask.flatten(1))['mean'] == pytest.approx(127/128/2, rel=.01)

def test_a_loader_gives_the_same_as_its_clips(table):
    dl = loaders(table, tiny().spec, bs=8).valid
    clips = np.stack([np.asarray(dl.read_clip(i)) for i in range(len(dl.sources()))])
    one, other = trivial_losses(tiny(), dl), trivial_losses(tiny(), clips)
    assert one['mean'] == pytest.approx(other['mean'], rel=.05) and one['share'] == other['share'] == 0
    with pytest.raises(ArgumentError, match="mask is a Tensor and clips is a loader.*'tube'"):
        trivial_losses(tiny(), dl, torch.ones(8, 64, dtype=torch.bool))

def test_what_trivial_losses_refuse():
    with pytest.raises(ArgumentError, match="mask='tubes'"):
        trivial_losses(tiny(), NOISE, 'tubes')
    with pytest.raises(ArgumentError, match=r'mask is bool \(20, 63\)'):
        trivial_losses(tiny(), NOISE, torch.ones(20, 63, dtype=torch.bool))
    with pytest.raises(ArgumentError, match='one step of time .2 frames'):
        trivial_losses(create_model('videomae_pretrain_tiny', n_frames=2), NOISE[:,:2])


# --- pictures

class Says(torch.nn.Module):
    "A network that knows what it is asked, or says 0."
    def __init__(self, net, factor):
        super().__init__()
        self.net, self.factor, self.asked_in = net, factor, None
        self.spec, self.grid, self.shape, self.pixels = net.spec, net.grid, net.shape, net.pixels

    def forward(self, x, mask):
        self.asked_in = self.training
        return self.factor*self.net.targets(x, mask)

def masked(n=3): return tube_mask((4,4,4), .75, n, torch.Generator().manual_seed(0))

def whole(mask):
    "Boxes (B,N) as pixels (B,T,H,W)."
    return mask.view(-1, 4, 4, 4).numpy().repeat(2, 1).repeat(8, 2).repeat(8, 3)

def test_who_knows_the_target_draws_the_clip():
    clips, mask = soft_clips(3), masked()
    found = reconstruct(Says(tiny(), 1.), clips, mask)
    hidden = whole(mask)
    assert (found.clip == clips).all() and (found.borrowed == clips).all()
    assert (found.seen[hidden] == 128).all() and (found.seen[~hidden] == clips[~hidden]).all()
    assert (found.honest[~hidden] == clips[~hidden]).all() and found.hidden == .75
    z = standard(clips)
    wanted = np.round(255*np.clip(.5 + z/6, 0, 1))
    back = wanted.reshape(3, 4, 4, 4, 2, 8, 8, 3).transpose(0, 1,4, 2,5, 3,6, 7).reshape(clips.shape)
    assert np.abs(found.honest[hidden] - back[hidden]).max() <= 1

def test_who_says_nothing_borrows_all_colours():
    clips, mask = soft_clips(3), masked()
    found, hidden = reconstruct(Says(tiny(), 0.), clips, mask), whole(masked())
    assert (found.honest[hidden] == 128).all()
    x = clips.astype(float).reshape(3, 4,2, 4,8, 4,8, 3)
    means = np.broadcast_to(x.mean((2,4,6), keepdims=True), x.shape).reshape(clips.shape)
    assert np.abs(found.borrowed[hidden] - means[hidden]).max() <= .51

def test_blue_before_red_is_drawn_as_it_is():
    clips, net = soft_clips(3), create_model('videomae_pretrain_tiny', channels='BGR')
    found = reconstruct(Says(net, 1.), clips, masked())
    assert (found.clip == clips).all() and (found.borrowed == clips).all()

def test_a_network_in_training_stays_so_and_is_asked_in_eval_mode():
    net = Says(tiny(), 1.).train()
    reconstruct(net, soft_clips(3), masked())
    assert net.training and net.net.training and net.asked_in is False

def test_a_real_network_draws_too_and_other_masks_are_refused():
    net, clips = tiny(), soft_clips(3)
    assert reconstruct(net, torch.from_numpy(clips), masked()).honest.shape == (3,8,32,32,3)
    with pytest.raises(ArgumentError, match=r'mask is bool \(2, 64\)'):
        reconstruct(net, clips, masked(2))

def test_the_figure_is_large_enough_and_said_in_words():
    found = reconstruct(tiny(), soft_clips(3), masked())
    fig = plot_reconstruction(found, 1)
    assert fig.get_figwidth()*fig.dpi >= 600 and len(fig.axes) == 4
    assert found.text().startswith('Four rows of 4 frames') and '75% of the boxes' in found.text()
    assert [a.get_title(loc='left')[:8] for a in fig.axes] == ['the clip', 'what the', 'predicte', 'predicte']
