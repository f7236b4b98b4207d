"Stored features and probes: equal to references, whole after kills, never mixed."
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from processes import linux, run_script
from safetensors.numpy import load_file

from vidcls.core import ArgumentError, DataError, VideoReadError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.synthetic import make_motion_clips
from vidcls.feature_store import FeatureStore, clip_keys
from vidcls.features import Features, embed, window_table
from vidcls.models.handcrafted import MEASURES, handcrafted, oriented_gradients
from vidcls.models.logits import model_input
from vidcls.models.pooled import Trunk
from vidcls.models.tokens import POOLS, layer_tokens, pool_tokens, pooled_features, token_grid, token_layers
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.views import Views
from vidcls.transfer import (
    attentive_probe, choose_strength, cross_validate_probe, join_features, logistic_probe, neighbour_probe,
)


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    "Two classes that differ by the order of frames alone."
    root = make_motion_clips(tmp_path_factory.mktemp('features')/'clips', n_groups=40)
    return from_folder(root).select_classes(['left', 'right'])


def tiny(name='i3d_tiny', seed=0, **more):
    seed_everything(seed)
    return create_model(name, n_classes=2, **more)


# Tokens

TOKENS = dict(
    videomae_tiny={}, timesformer_tiny={}, mvit_v2_tiny={}, swin3d_tiny={},
    i3d_tiny=dict(n_frames=8, size=32), handcrafted=dict(features='thumbnails'),
)

@pytest.mark.parametrize('name', [*TOKENS, 'hf videomae', 'hf timesformer', 'hf joint', 'hf space',
                                  'hf vivit', 'hf vjepa2', 'hf videoprism'])
def test_tokens_lie_where_the_clip_does(name):
    "A box that moves in the clip changes the first layer's tokens nearest to it most."
    net = hf(name[3:]) if name.startswith('hf ') else tiny(name, **TOKENS[name]).eval()
    s = net.spec
    x = torch.zeros(1, 3, s.n_frames, s.size, s.size)
    h, t = s.size//2, s.n_frames//2
    for at in ((0,0,0), (0,0,1), (0,1,0), (1,0,1)):                        # which half of time, height, width
        y = x.clone()
        y[:,:,at[0]*t:(at[0]+1)*t,at[1]*h:(at[1]+1)*h,at[2]*h:(at[2]+1)*h] = 1
        with torch.no_grad():
            a, b = (layer_tokens(net, v, [0])[0] for v in (x, y))
        assert a.x.shape[1] == np.prod(a.grid)
        moved = (a.x-b.x).abs().sum(-1).view(a.grid)
        middle = [v//2 for v in a.grid]
        halves = [(slice(0, max(1, m)), slice(m, None)) for m in middle]
        def part(*where):
            return moved[tuple(halves[d][w] for d,w in enumerate(where))].mean()
        inside = part(*at)
        for d in range(3):
            if a.grid[d] > 1:
                other = list(at)
                other[d] = 1-other[d]
                assert inside > part(*other), (name, at, d)


@pytest.mark.parametrize('name', TOKENS)
def test_each_pool_of_each_model(name):
    net = tiny(name, **TOKENS[name]).eval()
    s = net.spec
    x = torch.randn(2, 3, s.n_frames, s.size, s.size)
    with torch.no_grad():
        last = layer_tokens(net, x)[0]
        for pool in POOLS:
            if pool == 'cls' and last.cls is None:
                with pytest.raises(ArgumentError, match='no class token'):
                    pool_tokens(last, pool)
                continue
            z = pooled_features(net, x, pool=pool)
            assert z.shape[0] == 2 and z.isfinite().all()
        assert pooled_features(net, x).shape == (2, net.num_features)
    with pytest.raises(ArgumentError, match='layer'):
        layer_tokens(net, x, [len(token_layers(net))])


@pytest.mark.parametrize('name', ['videomae', 'timesformer'])
def test_tokens_are_transformers_hidden_states(name):
    "In float64, where nothing is lost to rounding."
    net = tiny(f'{name}_tiny').eval()
    from transformers import AutoConfig, AutoModelForVideoClassification
    config, state = net.to_transformers()
    config |= dict(image_size=net.spec.size, num_frames=net.spec.n_frames, num_labels=2)
    ref = AutoModelForVideoClassification.from_config(AutoConfig.for_model(**config)).eval()
    ref.load_state_dict(state)
    net, ref, s = net.double(), ref.double(), net.spec
    x = torch.randn(2, 3, s.n_frames, s.size, s.size, dtype=torch.float64)
    with torch.no_grad():
        hidden = ref(x.transpose(1,2), output_hidden_states=True).hidden_states
        for i in range(len(token_layers(net))):
            own, other = layer_tokens(net, x, [i])[0], hidden[i+1]
            if name == 'timesformer':
                t, h, w = own.grid
                cls_token, other = other[:,0], other[:,1:].unflatten(1, (h*w, t)).transpose(1,2).flatten(1,2)
                assert torch.allclose(own.cls, cls_token, atol=1e-5)
            assert torch.allclose(own.x, other, atol=1e-5)


def hf(kind, **more):
    "One of transformers' own networks, small, with first weights."
    shape = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=48)
    config = dict(model_type=HF[kind].get('model_type', kind)) | shape | HF[kind] | more
    return tiny('transformers', config=config).eval()


_SMALL = dict(image_size=32, num_frames=8, patch_size=8)
HF = dict(
    videomae=_SMALL, timesformer=_SMALL,
    joint=dict(model_type='timesformer', attention_type='joint_space_time', **_SMALL),
    space=dict(model_type='timesformer', attention_type='space_only', **_SMALL),
    vivit=dict(image_size=32, num_frames=8, tubelet_size=[2,8,8]),
    vjepa2=dict(crop_size=32, frames_per_clip=8, patch_size=8, num_pooler_layers=1, pred_hidden_size=24,
                pred_num_attention_heads=3, pred_num_hidden_layers=1),
    videoprism=dict(model_type='videoprism_vision_model', image_size=32, num_frames=8, tubelet_size=[1,8,8],
                    num_spatial_layers=2, num_temporal_layers=2),
)

def as_hidden_state(kind, tokens):
    "Tokens in the order in which transformers has them."
    x, (t, h, w), cls_token = tokens.x, tokens.grid, tokens.cls
    if kind in ('timesformer', 'joint'):
        x = x.unflatten(1, (t, h*w)).transpose(1,2).flatten(1,2)
    return x if cls_token is None else torch.cat([cls_token[:,None], x], 1)


@pytest.mark.parametrize('kind', [k for k in HF if k not in ('space', 'videoprism')])
def test_tokens_of_transformers_networks_are_their_hidden_states(kind):
    net = hf(kind)
    x = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        out = net.net(**{net.net.main_input_name: x.transpose(1,2)}, output_hidden_states=True)
        pairs = zip(layer_tokens(net, x, [0,1,2]), out.hidden_states[1:], strict=True)
        for i,(own,other) in enumerate(pairs):
            assert own.grid == token_grid(net, i) and own.x.shape[1] == np.prod(own.grid)
            assert (own.cls is not None) == (kind not in ('videomae', 'vjepa2'))
            assert torch.allclose(as_hidden_state(kind, own), other, atol=1e-5), (kind, i)


def test_tokens_of_networks_that_look_at_frames_alone():
    "Their hidden states have a row for each frame; VideoPrism's later ones, for each place."
    x = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        net = hf('space')
        states = net.net(x.transpose(1,2), output_hidden_states=True).hidden_states
        for own,other in zip(layer_tokens(net, x, [0,1,2]), states[1:], strict=True):
            other = other.unflatten(0, (2,8))
            assert torch.allclose(own.x.unflatten(1, (8,16)), other[:,:,1:], atol=1e-5)
            assert torch.allclose(own.cls, other[:,:,0].mean(1), atol=1e-5)
        net = hf('videoprism')
        encoder = net.net.vision_model
        out = encoder(x.transpose(1,2))
        own = layer_tokens(net, x, range(4))
        assert torch.allclose(own[1].x, out.last_spatial_hidden_state.view(2, 128, 24), atol=1e-5)
        assert torch.allclose(encoder.layernorm2(own[3].x), out.last_hidden_state, atol=1e-5)


# Hand-crafted features

def gradients_by_loops(frame, cell=8, bins=9):
    "Histograms of oriented gradients, pixel by pixel."
    H, W = frame.shape
    at = lambda y, x: frame[min(max(y, 0), H-1),min(max(x, 0), W-1)]
    votes = np.zeros((bins, H//cell, W//cell))
    for y in range(H):
        for x in range(W):
            dx, dy = at(y, x+1) - at(y, x-1), at(y+1, x) - at(y-1, x)
            angle = np.degrees(np.arctan2(dy, dx)) % 180
            below = int(np.floor(angle/20 - .5))
            share = angle/20 - .5 - below
            votes[below % bins,y//cell,x//cell] += np.hypot(dx, dy)*(1-share)
            votes[(below+1) % bins,y//cell,x//cell] += np.hypot(dx, dy)*share
    out = np.zeros((4*bins, H//cell-1, W//cell-1))
    for i in range(H//cell-1):
        for j in range(W//cell-1):
            block = np.concatenate([votes[:,i+u,j+v] for u in (0,1) for v in (0,1)])
            block = np.minimum(block/np.sqrt((block**2).sum() + 1e-4), .2)
            out[:,i,j] = block/np.sqrt((block**2).sum() + 1e-4)
    return out


def test_histograms_against_loops():
    rng = np.random.default_rng(0)
    for frame in (rng.random((24,32)), np.add.outer(np.arange(24.), 2*np.arange(32.))/100):
        own = oriented_gradients(torch.from_numpy(frame).float()[None])[0].numpy()
        assert np.allclose(own, gradients_by_loops(frame), atol=2e-3)


def test_handcrafted_features_do_not_depend_on_the_normalisation():
    clip = torch.randint(0, 256, (2,16,64,64,3), dtype=torch.uint8)
    for name in MEASURES:
        a = handcrafted(n_classes=2, features=name)
        b = handcrafted(n_classes=2, features=name, mean=.5, std=.5)
        za, zb = (m.forward_features(model_input(m, clip)) for m in (a, b))
        assert torch.allclose(za, zb, atol=1e-4), name


# The store

@pytest.mark.parametrize('kind', HF)
def test_transformers_networks_are_embedded(table, tmp_path, kind):
    "Each layer, pooled; other weights make a store of their own."
    few = table.with_rows(table.df.head(3))
    net = hf(kind)
    for pool in (None, 'mean', 'time', 'tokens'):
        f = embed(net, few, tmp_path, layer=0, pool=pool)
        assert len(f) == 3 and np.isfinite(f.x).all()
    assert f.about['grid'] == list(token_grid(net, 0)) and f.x.shape[1:] == (np.prod(f.about['grid']), 24)
    stores = len(list(tmp_path.iterdir()))
    with torch.no_grad():
        next(net.net.parameters()).add_(1.)
    embed(net, few, tmp_path, layer=0, pool='mean')
    assert len(list(tmp_path.iterdir())) == stores+1


def test_trunks_of_one_precision_share_a_prepared_batch(table, tmp_path, monkeypatch):
    import vidcls.features as f
    few, prepared = table.with_rows(table.df.head(6)), []
    monkeypatch.setattr(f, 'model_input', lambda model, x: prepared.append(model) or model_input(model, x))
    net = tiny(n_frames=8, size=32)
    half = tiny(n_frames=8, size=32).double()
    trunks = [Trunk(net, 1, 'mean'), Trunk(net, 2, 'time'), Trunk(half, 1, 'mean')]
    a, b, c = f.embed_all(trunks, few, bs=3)
    assert prepared == [net, half]*2
    for own,trunk in zip((a, b, c), trunks):
        assert (own.x == embed(trunk.model, few, layer=trunk.layer, pool=trunk.pool, bs=3).x).all()


def test_large_features_are_written_in_small_parts(table, tmp_path, monkeypatch):
    "What waits in memory has an end in bytes, too."
    import vidcls.features as f
    few = table.with_rows(table.df.head(12))
    net = tiny(n_frames=8, size=32)
    whole = embed(net, few, tmp_path/'a', layer=1, pool='tokens', bs=2)
    monkeypatch.setattr(f, 'PART_BYTES', 3*whole.x[0].nbytes)
    parts = embed(net, few, tmp_path/'b', layer=1, pool='tokens', bs=2)
    assert (whole.x == parts.x).all()
    assert len(list(tmp_path.glob('a/*/part-*'))) == 1 and len(list(tmp_path.glob('b/*/part-*'))) == 3


LAUNCHED = """
import os, sys, time
import vidcls.features as f
from vidcls.cli import main
f.PART = 4
keys = f.clip_keys
def late_keys(table):                   # the first process writes before the other one looks what is missing
    time.sleep(3*int(os.environ.get('RANK', 0)))
    return keys(table)
f.clip_keys = late_keys
main()
"""

@pytest.mark.slow
@linux
@pytest.mark.parametrize('how', ['accelerate', 'torchrun'])
def test_two_processes_make_one_store(table, tmp_path, how):
    "Each embeds its share; together, and after a part was lost, they have what one process has, to the bit."
    net = tiny(n_frames=8, size=32)
    Classifier(net, ['left', 'right']).save(tmp_path/'net')
    def words(out): return ['embed', table.root, '--model', tmp_path/'net', '--out', tmp_path/out, '--bs', 4,
                            '--device', 'cpu']
    how_run = dict(check=True, capture_output=True, text=True)
    def two(out):
        if how == 'torchrun':
            return run_script(tmp_path/'two.py', LAUNCHED, *words(out), **how_run)
        launch = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2',
                  '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no',
                  '--main_process_port', '0', '-m', 'vidcls.cli']
        env = os.environ | {'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1'}
        return subprocess.run([*launch, *map(str, words(out))], env=env, timeout=300, **how_run)
    run_script(tmp_path/'one.py', LAUNCHED, *words('one'), n=1, check=True)
    said = two('two').stdout
    assert said.count('Features(') == 1                                      # one of them speaks
    one, both = (np.load(tmp_path/k/'features.npz') for k in ('one', 'two'))
    n = len(one['path'])
    assert n == len(from_folder(table.root)) and (one['path'] == both['path']).all()
    assert (one['features'] == both['features']).all()
    parts = {p: load_file(p)['keys'] for p in tmp_path.glob('two/store/*/part-*')}
    assert sum(map(len, parts.values())) == n                                # nothing was made twice
    for p in sorted(parts)[::3]:
        p.unlink()
    two('two')
    assert (np.load(tmp_path/'two'/'features.npz')['features'] == one['features']).all()


def test_a_second_call_reads(table, tmp_path, monkeypatch):
    net = tiny(n_frames=8, size=32)
    first = embed(net, table, tmp_path, pool='mean', layer=1)
    import vidcls.features as f
    monkeypatch.setattr(f, 'pooled_features', lambda *a: pytest.fail('computed again'))
    again = embed(net, table, tmp_path, pool='mean', layer=1)
    assert (first.x == again.x).all() and list(first.table.df.path) == list(again.table.df.path)
    shuffled = table.with_rows(table.df.sample(frac=1, random_state=0))
    other = embed(net, shuffled, tmp_path, pool='mean', layer=1)
    at = {p: i for i,p in enumerate(first.table.df.path)}
    assert (other.x == first.x[[at[p] for p in other.table.df.path]]).all()


@pytest.mark.parametrize('change', ['weights', 'spec', 'layer', 'pool', 'arguments', 'views', 'dtype'])
def test_features_are_never_mixed(table, tmp_path, change):
    few = table.with_rows(table.df.head(6))
    def of(seed=0, n_frames=8, layer=1, pool='mean', **more):
        net = tiny(n_frames=n_frames, size=32, seed=seed)
        return embed(net, few, tmp_path, layer=layer, pool=pool, **more)
    other = dict(weights=dict(seed=1), spec=dict(n_frames=4), layer=dict(layer=2), pool=dict(pool='halves'),
                 views=dict(views=Views(clips=2)), dtype=dict(dtype='float16'))
    if change == 'arguments':
        a, b = (embed(tiny('handcrafted', features=k), few, tmp_path) for k in ('hog', 'middle_frame'))
        assert a.x.shape != b.x.shape
        return
    a = of()
    n = len(list(tmp_path.iterdir()))
    b = of(**other[change])
    assert len(list(tmp_path.iterdir())) == n+1
    assert a.x.shape != b.x.shape or not np.allclose(a.x, b.x, atol=1e-7) or a.x.dtype != b.x.dtype


def test_a_changed_file_is_computed_again(table, tmp_path):
    few = table.with_rows(table.df.head(6))
    root = tmp_path/'copy'
    for p,q in zip(few.paths, few.df.path):
        (root/q).parent.mkdir(parents=True, exist_ok=True)
        (root/q).write_bytes(p.read_bytes())
    from vidcls.data.table import ClipTable
    copy = ClipTable(few.df, root)
    net = tiny(n_frames=8, size=32)
    a = embed(net, copy, tmp_path/'f')
    (root/few.df.path[2]).write_bytes(few.paths[5].read_bytes())
    b = embed(net, copy, tmp_path/'f')
    assert (a.x != b.x).any(1).tolist() == [False, False, True, False, False, False]
    assert np.allclose(b.x[2], a.x[5], atol=1e-5)


def test_a_clip_that_cannot_be_read_is_named(table, tmp_path):
    root = tmp_path/'clips'
    root.mkdir()
    good = root/'good.mp4'
    good.write_bytes(table.paths[0].read_bytes())
    (root/'bad.mp4').write_bytes(b'nothing')
    net = tiny(n_frames=8, size=32)
    f = embed(net, [good, root/'bad.mp4'], on_error='skip')
    assert len(f) == 1 and list(f.failures) == [str(root/'bad.mp4')]
    with pytest.raises((VideoReadError, DataError), match='bad.mp4'):
        embed(net, [good, root/'bad.mp4'])


def test_a_damaged_part_is_made_again(table, tmp_path):
    few = table.with_rows(table.df.head(6))
    net = tiny(n_frames=8, size=32)
    a = embed(net, few, tmp_path)
    part = next(tmp_path.glob('*/part-*'))
    part.write_bytes(part.read_bytes()[:50])
    with pytest.warns(UserWarning, match='damaged'):
        b = embed(net, few, tmp_path)
    assert (a.x == b.x).all()


def test_features_that_are_not_finite(table):
    net = tiny(n_frames=8, size=32)
    with torch.no_grad():
        next(net.parameters()).fill_(float('nan'))
    with pytest.raises(DataError, match='not finite'):
        embed(net, table.with_rows(table.df.head(3)))


KILLED = """
import sys
from vidcls.core import seed_everything
from vidcls.data.datasets import from_folder
from vidcls.features import embed
import vidcls.features as f
from vidcls.models.zoo import create_model
f.PART = 8
seed_everything(0)
net = create_model('i3d_tiny', n_classes=2, n_frames=8, size=32)
t = from_folder(sys.argv[1]).select_classes(['left', 'right'])
print('begin', flush=True)
embed(net, t, sys.argv[2], bs=4)
"""

@pytest.mark.slow
def test_kills_leave_a_store_that_goes_on(table, tmp_path):
    "Killed at twenty moments, the store ends equal, to the bit, to one that was made in one go."
    root = table.root
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'VIDCLS_PROGRESS': '0'}
    run = lambda folder: subprocess.Popen([sys.executable, '-c', KILLED, str(root), str(folder)], env=env,
                                          stdout=subprocess.PIPE)
    start = time.time()
    whole = run(tmp_path/'whole')
    whole.stdout.readline()
    begun = time.time()
    assert whole.wait() == 0
    span = time.time() - begun
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = run(tmp_path/'killed')
        p.stdout.readline()
        try:
            p.wait(rng.uniform(.02, 1.)*span*.5)
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGKILL)
            p.wait()
    assert run(tmp_path/'killed').wait() == 0
    seed_everything(0)
    net = tiny(n_frames=8, size=32)
    a, b = (embed(net, table, tmp_path/k, bs=4) for k in ('whole', 'killed'))
    assert (a.x == b.x).all()
    assert time.time() - start < 300


def test_ten_thousand_known_clips_are_found_quickly(tmp_path):
    import pandas as pd
    from vidcls.data.table import ClipTable
    clip = tmp_path/'a.mp4'
    clip.write_bytes(b'x')
    n = 10_000
    df = pd.DataFrame(dict(path='a.mp4', label='a', group=[str(i) for i in range(n)], split='train',
                           start=np.arange(n)*1., end=np.arange(n)+1.))
    t = ClipTable(df, tmp_path, labels=['a', 'b'])
    store = FeatureStore(tmp_path/'f', dict(model='m'))
    keys = clip_keys(t)
    assert len(set(keys.tolist())) == n
    for i in range(0, n, 256):
        store.add(keys[i:i+256], np.full((len(keys[i:i+256]), 768), i, np.float32))
    start = time.process_time()
    x = FeatureStore(tmp_path/'f', dict(model='m')).read(clip_keys(t))
    assert time.process_time() - start < 2
    assert (x[:,0] == np.arange(n)//256*256).all()


def test_windows_of_a_long_video(table):
    t = window_table(table.paths[0], .3, .2)
    assert (np.diff(t.df.start) == pytest.approx(.2)) and t.df.end.max() <= t.df.start.max() + .3 + 1e-9
    f = embed(tiny(n_frames=4, size=32), t)
    assert len(f) == len(t)


def test_saved_features(table, tmp_path):
    f = embed(tiny(n_frames=4, size=32), table.with_rows(table.df.head(4)))
    assert (load_file(f.save(tmp_path/'a.safetensors'))['features'] == f.x).all()
    z = np.load(f.save(tmp_path/'a.npz'))
    assert (z['features'] == f.x).all() and json.loads(str(z['about'])) == f.about
    with pytest.raises(ArgumentError, match='suffix'):
        f.save(tmp_path/'a.csv')


# Probes

def test_a_mean_over_frames_knows_no_order_and_3d_filters_do(table):
    "Frames one by one, then their mean: chance by construction. Untrained filters over time: not."
    seed_everything(0)
    flat = torch.nn.Sequential(torch.nn.Conv2d(3,16,7,2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                               torch.nn.Flatten(), torch.nn.Linear(16,2))
    from vidcls.core import ClipSpec
    from vidcls.models.frames import FrameNet
    by_frame = FrameNet(ClipSpec(n_frames=16, size=64), 2, flat)
    by_frame.name, by_frame.arguments = 'flat', {}
    tokens = embed(by_frame, table, pool='tokens')
    for pool in ('mean', 'moments'):
        rec = cross_validate_probe(tokens.pooled(pool), logistic_probe, 3)
        assert rec.interval[0] < .5 < rec.interval[1], pool
    deep = embed(tiny(n_frames=16, size=32), table, layer=1, pool='mean')
    rec = cross_validate_probe(deep, logistic_probe, 3)
    assert rec.interval[0] > .65


def made(x, y, groups=None, split='train'):
    import pandas as pd
    from vidcls.data.table import ClipTable
    names = [f'c{k}' for k in y]
    df = pd.DataFrame(dict(path=[f'{i}.mp4' for i in range(len(y))], label=names, split=split,
                           group=[str(g) for g in (np.arange(len(y)) if groups is None else groups)]))
    about = dict(model='made', arguments='None', weights='0', spec={}, layer=None, pool=None, views=None)
    return Features(np.asarray(x, np.float32), ClipTable(df, '.'), about)


@pytest.mark.parametrize('n,d', [(60, 5), (40, 200)])
@pytest.mark.parametrize('k', [2, 3])
def test_logistic_probe_is_scikit_learns_optimum(n, d, k):
    from sklearn.linear_model import LogisticRegression
    rng = np.random.default_rng(0)
    y = np.arange(n) % k
    x = rng.normal(size=(n,d))*rng.uniform(.5, 3, d) + 2 + y[:,None]*.5
    probe = logistic_probe(made(x, y), strength=.01)
    scale = 1/np.sqrt(x.var(0) + x.var(0).mean())
    z = (x - x.mean(0))*scale
    ref = LogisticRegression(C=.01, max_iter=5000, tol=1e-8).fit(z, y)
    assert np.allclose(probe.probs(x), ref.predict_proba(z), atol=5e-3)


def test_strength_of_fewer_clips_a_class_than_folds():
    "Eight clips of two classes, each its own group: four folds, not five."
    x, y = np.random.default_rng(0).normal(size=(8,3)), np.arange(8) % 2
    strength, losses, _ = choose_strength(x + 2*y[:,None], y, np.arange(8))
    assert np.isfinite(losses).all()
    assert np.isnan(choose_strength(x[:2], y[:2], np.arange(2))[1]).all()


def test_strength_is_chosen_by_groups():
    "Clips of one group are copies: folds that divide them would take the weakest strength."
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(20,50)), 10, 0) + rng.normal(size=(200,50))*1e-3
    y, groups = np.repeat(np.arange(20) % 2, 10), np.repeat(np.arange(20), 10)
    by_groups, *_ = choose_strength(x, y, groups)
    leaky, *_ = choose_strength(x, y, np.arange(200))
    assert by_groups < leaky


def test_a_class_without_training_clips_gets_no_probability():
    f = made(np.random.default_rng(0).normal(size=(20,4)), np.arange(20) % 2)
    table = f.table.with_rows(f.table.df, labels=['c0', 'c1', 'never'])
    from dataclasses import replace
    probe = logistic_probe(replace(f, table=table))
    assert probe.probs(f.x)[:,2].max() < 1e-6


def test_one_class_is_refused():
    with pytest.raises(DataError, match='nothing to tell apart'):
        logistic_probe(made(np.zeros((5,3)), np.zeros(5, int)))


def test_neighbours_are_the_nearest_by_cosine():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50,8)), np.arange(50) % 3
    probe = neighbour_probe(made(x, y), k=1)
    centred = x - x.mean(0)
    unit = centred/np.linalg.norm(centred, axis=1, keepdims=True)
    new = rng.normal(size=(20,8))
    c = new - x.mean(0)
    nearest = y[(c/np.linalg.norm(c, axis=1, keepdims=True) @ unit.T).argmax(1)]
    assert (probe.probs(new.astype(np.float32)).argmax(1) == nearest).all()


@pytest.mark.parametrize('kind', ['logistic', 'time', 'neighbours', 'attentive', 'two'])
def test_a_joined_classifier_says_what_the_probe_says(table, tmp_path, kind):
    net = tiny(n_frames=8, size=32)
    few = table.with_rows(table.df.head(24))
    pool = dict(logistic=None, time='time', neighbours='mean', attentive='tokens', two='mean')[kind]
    f, models = embed(net, few, layer=1 if kind == 'two' else -1, pool=pool), [net]
    if kind == 'two':
        other = tiny('handcrafted', features='motion_energy', n_frames=8, size=32)
        f, models = join_features(f, embed(other, few)), [net, other]
    fit = dict(neighbours=neighbour_probe).get(kind, logistic_probe)
    probe = attentive_probe(f, epochs=2, show=False) if kind == 'attentive' else fit(f)
    clf = Classifier.from_probe(probe, *models)
    clf.save(tmp_path/'c')
    again = Classifier.load(tmp_path/'c')
    for i in (0, 5):
        want = probe.probs(f.x[i:i+1])[0]
        assert np.allclose(clf.probs(f.table.paths[i]), want, atol=1e-4)
        assert np.allclose(again.probs(f.table.paths[i]), want, atol=1e-4)


def test_a_probe_is_not_joined_with_other_weights(table):
    few = table.with_rows(table.df.head(8))
    probe = logistic_probe(embed(tiny(n_frames=8, size=32), few))
    with pytest.raises(ArgumentError, match='other weights'):
        Classifier.from_probe(probe, tiny(n_frames=8, size=32, seed=1))
    with pytest.raises(ArgumentError, match='give the Probe first'):
        Classifier.from_probe(tiny(n_frames=8, size=32), probe)
    with pytest.raises(ArgumentError, match='spec|arguments|weights'):
        probe.evaluate(embed(tiny(n_frames=4, size=32), few))


@pytest.mark.parametrize('depth', [1, 4])
def test_an_attentive_probe_learns_what_one_token_says(depth):
    "A marked token has the class; another one has its opposite, so that no mean over tokens knows it."
    rng = np.random.default_rng(0)
    n, rows = 600, np.arange(600)
    y = rows % 2
    x = rng.normal(size=(n,10,16)).astype(np.float32)
    marked = rng.integers(0, 10, n)
    other = (marked + rng.integers(1, 10, n)) % 10
    sign = np.where(y == 1, 4, -4)
    x[rows,marked,0] += 6
    x[rows,marked,1] += sign
    x[rows,other,1] -= sign
    train, test = made(x[:450], y[:450]), made(x[450:], y[450:])
    probe = attentive_probe(train, depth=depth, epochs=30, lr=3e-3, show=False)
    right = lambda p, f, x: (p.probs(x).argmax(1) == f.targets).mean()
    assert right(probe, test, test.x) > .9
    mean = logistic_probe(made(train.x.mean(1), y[:450]))
    assert right(mean, test, test.x.mean(1)) < .62
