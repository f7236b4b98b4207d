"What pages can't show of losses, optimisers, estimates and recipes: other devices, all models, signals."
import re
from types import SimpleNamespace

import pytest
import torch

from vidcls.core import ArgumentError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import make_motion_clips
from vidcls.models.zoo import create_model, list_models
from vidcls.optim import adamw, param_groups
from vidcls.tune import Stopwatch, estimate
from vidcls.recipes import RECIPES, list_recipes, recipe
from vidcls.train import fit


# --- AdamW: its fused form, and its further arguments

def ten_steps(**kwargs):
    torch.manual_seed(0)
    net = torch.nn.Linear(8, 3)
    opt = adamw(net, lr=.1, **kwargs)
    for i in range(10):
        net(torch.full((4,8), i/10)).square().mean().backward()
        opt.step()
        opt.zero_grad()
    return opt.defaults, net.weight.detach()

def test_the_fused_form_takes_the_same_steps():
    (plain, a), (fused, b), (_, c) = ten_steps(), ten_steps(fused=True), ten_steps(eps=.1)
    assert (plain['fused'], fused['fused']) == (None, True)
    assert torch.allclose(a, b, rtol=0, atol=1e-5)
    assert (a-c).abs().max() > .01                      # eps arrives

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_a_gpu_the_fused_form_is_chosen():
    net = torch.nn.Linear(4, 4).cuda()
    assert adamw(net).defaults['fused'] is True
    assert adamw(net, fused=False).defaults['fused'] is False


# --- every model of the zoo: how fast each parameter learns, and whether it decays

BLOCKS = {  # what its paper counts as a layer
    'videomae': r'blocks\.\d+',
    'timesformer': r'blocks\.\d+',
    'mvit': r'blocks\.\d+',
    'swin3d': r'stages\.\d+\.\d+',
    'i3d': r'(Conv3d|Mixed)_\d\w+',
    'resnet50': r'net\.resnet\.encoder\.stages\.\d+\.layers\.\d+',
    'efficientnet': r'net\._blocks\.\d+',
    'vivit': r'net\.vivit\.layers\.\d+',
    'hf_videomae': r'net\.videomae\.encoder\.layer\.\d+',
    'hf_timesformer': r'net\.timesformer\.encoder\.layer\.\d+',
}
DEPTHS = {  # how many of them
    'videomae_tiny': 4,
    'videomae_small': 12,
    'videomae_base': 12,
    'videomae_large': 24,
    'videomae_huge': 32,
    'timesformer_tiny': 4,
    'timesformer_base': 12,
    'timesformer_hr': 12,
    'timesformer_l': 12,
    'mvit_v2_tiny': 4,
    'mvit_v2_s': 16,
    'mvit_v2_b': 24,
    'swin3d_tiny': 4,
    'swin3d_t': 12,
    'swin3d_s': 24,
    'swin3d_b': 24,
    'i3d': 12,
    'i3d_tiny': 12,
    'resnet50_inflated': 16,
    'efficientnet_lite0_inflated': 16,
    'vivit': 2,
    'hf_videomae': 2,
    'hf_timesformer': 2,
}
TABLES = {  # parameters of two axes and more that must not decay
    'timesformer': {'cls_token', 'pos_embed', 'time_embed'},
    'mvit': {'cls_token', 'rel_pos_t', 'rel_pos_h', 'rel_pos_w'},
    'swin3d': {'bias_table'},
    'vivit': {'cls_token', 'position_embeddings'},
    'hf_timesformer': {'cls_token', 'position_embeddings', 'time_embeddings'},
}

def made(name):
    "A model without numbers, and what its clips are."
    small = dict(
        image_size=32,
        num_frames=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
    )
    hf = dict(
        vivit=dict(model_type='vivit', tubelet_size=[2, 8, 8]),
        hf_videomae=dict(model_type='videomae', patch_size=8),
        hf_timesformer=dict(model_type='timesformer', patch_size=8),
    )
    with torch.device('meta'):
        if name in hf:
            pytest.importorskip('transformers')
        model = (
            create_model('transformers', n_classes=5, config=small | hf[name])
            if name in hf
            else create_model(name, n_classes=5)
        )
        return model.eval(), torch.empty(1, 3, model.spec.n_frames, model.spec.size, model.spec.size)

def family(name, table):
    return next(
        (v for k, v in sorted(table.items(), key=lambda kv: -len(kv[0])) if name.startswith(k)), set()
    )

def used(model, x):
    "Names of the modules in the order in which a clip reaches them."
    order, hooks = (
        [],
        [m.register_forward_pre_hook(lambda m, args, n=n: order.append(n)) for n, m in model.named_modules()],
    )
    with torch.device('meta'), torch.no_grad():
        model(x)
    for h in hooks:
        h.remove()
    return list(dict.fromkeys(order))

def depth_of(name, order, blocks):
    "0 before the first block, 1 for that block, …; what lies between two blocks counts with the later one."
    owner = name.rpartition('.')[0]
    if inside := [i for i,b in enumerate(blocks) if owner == b or owner.startswith(b + '.')]:
        return inside[0]+1
    while owner and owner not in order:
        owner = owner.rpartition('.')[0]       # a parameter's module may be read, not called
    if not owner:
        return 0  # tokens and tables that the model itself holds
    return sum(order.index(b) < order.index(owner) for b in blocks) + bool(
        order.index(owner) > order.index(blocks[0])
    )

DEPTHS |= dict(videomaev2_small=12, videomaev2_base=12, efficientnet_lite0_frames=16)

NAMES = [n for n in list_models() if n not in ('transformers', 'pooled', 'handcrafted')]
NAMES += ['vivit', 'hf_videomae', 'hf_timesformer']

@pytest.mark.parametrize('name', NAMES)
def test_every_parameter_learns_at_the_rate_of_its_depth(name):
    "Depth as a clip meets the layers; each parameter in one group; what is no matrix doesn't decay."
    model, x = made(name)
    order = used(model, x)
    assert name in DEPTHS, f"{name}: add its layers to BLOCKS and its depth to DEPTHS"
    blocks = [n for n in order if re.fullmatch(family(name, BLOCKS), n)]
    assert len(blocks) == DEPTHS[name]
    last = len(blocks)+1
    groups = param_groups(model, weight_decay=.05, layer_decay=.75)
    names = {id(p): n for n,p in model.named_parameters()}
    found = [(names[id(p)], g['lr_scale'], g['weight_decay']) for g in groups for p in g['params']]
    assert sorted(n for n,*_ in found) == sorted(names.values())             # each once
    for n,rate,_ in found:
        assert rate == pytest.approx(.75**(last - depth_of(n, order, blocks)), rel=1e-12), n
    for n,_,decay in found:
        table = model.get_parameter(n).ndim > 1 and n.rpartition('.')[2] in family(name, TABLES)
        assert decay == (0 if table or model.get_parameter(n).ndim < 2 else .05), n
    assert {
        n.rpartition('.')[2]
        for n, *_ in found
        if model.get_parameter(n).ndim > 1 and not n.endswith('weight')
    } == family(name, TABLES)
    slow = {names[id(p)]: g['lr_scale'] for g in param_groups(model, backbone=.1) for p in g['params']}
    assert {n for n, r in slow.items() if r == 1} == {'head.weight', 'head.bias'} and set(slow.values()) == {
        0.1,
        1.0,
    }


# --- estimates

def test_memory_is_that_of_the_device(monkeypatch):
    "On a GPU the memory is what PyTorch allocated there, above what it had when training began."
    put_back = []
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda *a: None)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', put_back.append)
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda d: 3*10**9)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda d: 7*10**9)
    run = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device('cuda:1'), num_processes=1),
        timer=SimpleNamespace(share=0.0),
        stop=lambda why: None,
        step_rows=[0],
    )
    watch = Stopwatch(10)
    watch.before_fit(run)
    watch.after_batch(run)
    assert (watch.start_gb, watch.gb) == (3., 7.) and put_back == [torch.device('cuda:1')]

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A model and what it trains on."
    table = from_folder(
        make_motion_clips(tmp_path_factory.mktemp('motion'), n_groups=11, n_frames=8, size=32)
    )
    seed_everything(0)
    model = create_model('videomae_tiny', n_classes=8, dim=24, depth=1, heads=2)
    return model, loaders(table, model.spec, bs=16)

class Stops:
    "Ctrl-C at a certain call, or batch."
    def __init__(self, at, batches=()): self.left, self.batches = at, batches
    def __call__(self, clips, labels, gen):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return clips, labels
    def __iter__(self):
        for b in self.batches:
            yield self(b, None, None)[0]

@pytest.mark.parametrize('where', ['first step', 'third step', 'validation'])
def test_an_estimate_that_is_stopped_puts_all_back(tiny, where):
    model, dls = tiny
    model.train()
    kept, chance, valid = (
        {k: v.clone() for k, v in model.state_dict().items()},
        torch.get_rng_state(),
        dls.valid,
    )
    augment = None if where == 'validation' else Stops(dict(first=0, third=2)[where.split()[0]])
    try:
        if where == 'validation':
            dls.valid = Stops(0, valid)
        before = dls.valid
        with pytest.raises(KeyboardInterrupt):
            estimate(model, dls, steps=3, augment=augment)
        assert dls.valid is before
    finally:
        dls.valid = valid
    assert model.training and all(torch.equal(kept[k], v) for k,v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)
    assert estimate(model, dls, steps=1).s_per_step > 0                      # and again

def test_an_estimate_takes_all_that_fit_takes(tiny, tmp_path):
    model, dls = tiny
    seen = []
    args = dict(
        lr=1e-3,
        show=True,
        patience=3,
        callbacks=[SimpleNamespace(before_fit=seen.append)],
        out=tmp_path / 'run',
        every=1,
        resume='auto',
        smoothing=0.2,
    )
    e = estimate(model, dls, epochs=7, steps=2, **args)
    assert e.epochs == 7 and not seen and not (tmp_path/'run').exists()


# --- recipes

def test_a_recipe_can_be_estimated(tiny):
    model, dls = tiny
    for name, dataset in [('videomae', 'ssv2'), ('timesformer', 'kinetics400'), ('mvit_v2_b', 'ssv2')]:
        e = estimate(model, dls, steps=1, **recipe(name, dataset, dls.table, bs=16, accum=2))
        assert e.epochs == RECIPES[name.removesuffix('_b'), dataset]['fit']['epochs'] and e.s_per_epoch > 0

def test_every_recipe_is_of_a_model_that_can_be_made_so():
    "Each recipe's model takes its settings; the sizes that have none are refused with what there is."
    for name, dataset in list_recipes():
        r = recipe(name, dataset)
        if name == 'any':
            continue
        with torch.device('meta'):
            create_model(name, n_classes=5, **r.spec, **r.model)
    for m in set(list_models()) - {n for n,_ in list_recipes()}:
        with pytest.raises(ArgumentError, match='accepted: .*videomae_base on kinetics400'):
            recipe(m, 'kinetics400')

@pytest.mark.parametrize('optimizer,args', [
    ('adamw', dict(fused=True)),
    ('adamw', dict(betas=(.9,.95), eps=1e-6)),
    ('sgd', dict(nesterov=True, fused=True)),
])
def test_fit_hands_its_opt_args_on(tiny, optimizer, args):
    model, dls = tiny
    seen = []
    fit(
        model,
        dls,
        epochs=1,
        lr=1e-4,
        optimizer=optimizer,
        opt_args=args,
        show=False,
        callbacks=[SimpleNamespace(before_fit=lambda run: seen.append(run.opt.defaults))],
    )
    assert args.items() <= seen[0].items()
    with pytest.raises(ArgumentError, match="opt_args for .*='fusde'; accepted: .*Did you mean 'fused'"):
        fit(model, dls, epochs=1, optimizer=optimizer, opt_args={'fusde': True}, show=False)
    assert fit(model, dls, epochs=1, show=False).best == 0                   # a refusal leaves nothing behind
