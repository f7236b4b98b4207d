"Weights as people have them: under any name, wrapped, without heads, from folders that lie; own models."
import json, os, re, socket, warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidcls.core import ArgumentError, CheckpointError, ClipSpec
from vidcls.data.loaders import clip_from_frames
from vidcls.models.layers import build_model
from vidcls.models.timesformer import TimeSformer, timesformer_tiny
from vidcls.models.videomae import TubeletShape, VideoMAE, videomae_tiny
from vidcls.models.weights import save_transformers
from vidcls.models.weights import find_weights, load_weights, read_weights
from vidcls.models.zoo import (
    MODELS,
    check_registered,
    create_model,
    is_registered,
    list_models,
    register_model,
    saved_model,
    spec_of,
)

os.environ['TRANSFORMERS_VERBOSITY'] = 'error'
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
CLIPS = dict(image_size=32, patch_size=8, num_frames=8, intermediate_size=64)


@pytest.fixture
def no_network(monkeypatch):
    "Any attempt to reach another computer is recorded and refused."
    calls = []
    def refuse(*args, **kwargs):
        calls.append(args)
        raise OSError('no network in this test')
    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket, 'create_connection', refuse)
    return calls

def quiet(f, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return f(*args, **kwargs)

def same(a, b):
    return all(
        torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items() if not k.startswith('head.')
    )


# --- files are known by what is in them

@pytest.mark.parametrize('name', [
    'K400.pyth', 'best.pth.tar', 'epoch=9-step=100.ckpt', 'weights', 'model.v2', 'x.bin', 'lies.safetensors',
])
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'older'])
def test_the_name_of_a_file_says_nothing(tmp_path, name, zipped):
    model = timesformer_tiny(5)
    torch.save(
        {'state_dict': model.state_dict(), 'epoch': 9}, tmp_path / name, _use_new_zipfile_serialization=zipped
    )
    assert same(create_model('timesformer_tiny', tmp_path/name), model)

def test_safetensors_under_another_name(tmp_path):
    save_file(videomae_tiny(5).state_dict(), tmp_path/'weights.pt')
    assert set(read_weights(tmp_path/'weights.pt')) == set(videomae_tiny(5).state_dict())

def others(d):
    "Files that are no weights of PyTorch, and the words that name them."
    torch.jit.script(torch.nn.Linear(2,2)).save(str(d/'script.pt'))
    with open(d/'arrays.pt', 'wb') as f:
        np.savez(f, a=np.ones(3))
    np.save(d/'array.npy', np.ones(3))
    content = {
        'page.pth': b'\n<!DOCTYPE html><html>Sign in</html>',
        'pointer.ckpt': b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n',
        'keras.h5': b'\x89HDF\r\n\x1a\n' + bytes(99),
        'net.onnx': b'\x08\x08\x12\x07pytorch\x1a\x052.1.0' + bytes(99),
        'said.pt': b'{"error": "not found"}',
        'packed.pth': b'\x1f\x8b\x08' + bytes(99),
        'model.ckpt.data-00000-of-00001': bytes(range(1, 200)),
        'clip.pt': bytes(4) + b'ftypisom' + bytes(99),
    }
    for name,bytes_ in content.items():
        (d/name).write_bytes(bytes_)
    return {
        'script.pt': 'TorchScript',
        'arrays.pt': 'arrays of numpy',
        'array.npy': 'array of numpy',
        'page.pth': 'web page',
        'pointer.ckpt': 'git lfs pull',
        'keras.h5': 'Keras',
        'net.onnx': 'ONNX',
        'said.pt': 'JSON',
        'packed.pth': 'gzip',
        'model.ckpt.data-00000-of-00001': 'TensorFlow',
        'clip.pt': 'video',
    }

def test_other_files_are_called_what_they_are(tmp_path):
    for name,words in others(tmp_path).items():
        with pytest.raises(CheckpointError, match=f'{re.escape(name)}: .*{words}'):
            load_weights(videomae_tiny(5), tmp_path/name)

class Recorder:
    "An object of a training script."

def test_a_refused_object_is_named_with_a_way_out(tmp_path):
    torch.save({'model': videomae_tiny(5).state_dict(), 'logger': Recorder()}, tmp_path/'a.pt')
    with pytest.raises(CheckpointError, match=r'Recorder.*state_dict\(\)'):
        read_weights(tmp_path/'a.pt')
    torch.save(videomae_tiny(5), tmp_path/'whole.pt')  # the network itself, not its weights
    with pytest.raises(CheckpointError, match=r'VideoMAE.*state_dict\(\)'):
        read_weights(tmp_path/'whole.pt')

def test_numbers_of_numpy_beside_the_weights(tmp_path):
    torch.save(
        {
            'model': videomae_tiny(5).state_dict(),
            'best': np.float64(0.9),
            'n': np.int64(3),
            'f': np.float32(1),
        },
        tmp_path / 'a.pt',
    )
    assert len(read_weights(tmp_path/'a.pt')) == len(videomae_tiny(5).state_dict())

def test_a_path_is_not_taken_for_a_hub_id(tmp_path, no_network):
    for source in ('./runs/none', str(tmp_path/'a'/'b'), 'runs/best.ckpt', '~/none/none', '/none/none'):
        with pytest.raises(CheckpointError, match='no such file or folder'):
            find_weights(source)
    assert not no_network


# --- prefixes, and what does not belong to the network

@pytest.mark.parametrize('before', ['backbone.', 'net.', 'model.', 'encoder.', 'module.model.',
                                    '_orig_mod.module.', 'model.backbone.module.',
                                    'net._orig_mod.', 'module._orig_mod.model.encoder.', 'video_net.'])
@pytest.mark.parametrize('whole', [True, False], ids=['all', 'not-the-head'])
@pytest.mark.parametrize('name', ['videomae_tiny', 'swin3d_tiny'])
def test_prefixes_in_any_stacking(tmp_path, name, before, whole):
    if before == 'video_net.' and not whole:
        pytest.skip('an unknown word before some names only is not guessed at')
    model = create_model(name, n_classes=5)
    outer = before if whole else before.partition('.')[0] + '.' if before.count('.') > 1 else ''
    torch.save(
        {(outer if k.startswith('head.') else before) + k: v for k, v in model.state_dict().items()},
        tmp_path / 'a.ckpt',
    )
    again = create_model(name, tmp_path/'a.ckpt')
    assert again.n_classes == 5 and same(again, model) and torch.equal(again.head.weight, model.head.weight)

def test_a_checkpoint_of_lightning(tmp_path):
    model = videomae_tiny(5)
    state = {f'model.{k}': v for k,v in model.state_dict().items()}
    state |= {
        'criterion.weight': torch.ones(5),
        'val_acc.correct': torch.zeros(()),
        'loss_fn.weight': torch.ones(5),
    }
    torch.save(
        {
            'epoch': 3,
            'global_step': 70,
            'pytorch-lightning_version': '2.5',
            'state_dict': state,
            'loops': {},
            'callbacks': {},
            'optimizer_states': [{'state': {}, 'param_groups': []}],
            'hyper_parameters': {'lr': 0.1},
        },
        tmp_path / 'last.ckpt',
    )
    with pytest.warns(UserWarning, match='left out .*criterion.weight'):
        again = create_model('videomae_tiny', tmp_path/'last.ckpt')
    assert same(again, model) and torch.equal(again.head.weight, model.head.weight)

def test_several_sets_of_weights_are_not_guessed_at(tmp_path):
    state = videomae_tiny(5).state_dict()
    torch.save({'student': state, 'epoch': 3}, tmp_path/'one.pt')
    assert same(
        create_model('videomae_tiny', tmp_path / 'one.pt'),
        load_weights(videomae_tiny(5), tmp_path / 'one.pt'),
    )
    torch.save({'student': state, 'teacher': state}, tmp_path/'two.pt')
    with pytest.raises(CheckpointError, match='several sets of weights: student, teacher'):
        read_weights(tmp_path/'two.pt')

def test_another_network_is_still_refused(tmp_path):
    state = {f'backbone.{k}': v for k,v in videomae_tiny(5).state_dict().items() if '.1.norm1.' not in k}
    torch.save(state, tmp_path/'a.pt')
    with pytest.raises(CheckpointError, match='missing in the file: blocks.1.norm1.weight'):
        create_model('videomae_tiny', tmp_path/'a.pt')


# --- encoders become classifiers

@pytest.fixture(scope='module')
def encoders(tmp_path_factory):
    "Folders of transformers that hold an encoder, and no classifier."
    hf, d = pytest.importorskip('transformers'), tmp_path_factory.mktemp('encoders')
    decoder = dict(
        decoder_hidden_size=16,
        decoder_intermediate_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
    )
    made = {
        'videomae': hf.VideoMAEModel(hf.VideoMAEConfig(**CLIPS, **SMALL)),
        'pretraining': hf.VideoMAEForPreTraining(hf.VideoMAEConfig(**CLIPS, **SMALL, **decoder)),
        'norm': hf.VideoMAEModel(hf.VideoMAEConfig(**CLIPS, **SMALL, use_mean_pooling=False)),
        'timesformer': hf.TimesformerModel(hf.TimesformerConfig(**CLIPS, **SMALL)),
        'vivit': hf.VivitModel(
            hf.VivitConfig(image_size=32, num_frames=8, tubelet_size=[2, 8, 8], intermediate_size=64, **SMALL)
        ),
        'vjepa2': hf.VJEPA2Model(
            hf.VJEPA2Config(
                crop_size=32,
                frames_per_clip=8,
                patch_size=8,
                tubelet_size=2,
                mlp_ratio=2,
                pred_hidden_size=16,
                pred_num_attention_heads=2,
                pred_num_hidden_layers=1,
                num_pooler_layers=1,
                **SMALL,
            )
        ),
    }
    for name,net in made.items():
        net.save_pretrained(d/name)
    return d

@pytest.mark.parametrize('name', ['videomae', 'pretraining', 'norm', 'timesformer', 'vivit', 'vjepa2'])
def test_an_encoder_becomes_a_classifier_with_a_fresh_head(encoders, name, capfd):
    with pytest.warns(UserWarning) as said:
        model = create_model('transformers', encoders/name, n_classes=3).eval()
    assert any('fresh head of 3 classes' in str(w.message) for w in said)
    stored = quiet(read_weights, encoders/name/'model.safetensors')
    key = next(k for k in stored if 'encoder.layer.1.' in k and k.endswith('.weight') and stored[k].ndim == 2)
    ours = [v for v in model.state_dict().values() if v.shape == stored[key].shape]
    assert any(torch.equal(v, stored[key]) for v in ours)
    T,S = model.spec.n_frames, model.spec.size
    assert model(torch.randn(2,3,T,S,S)).shape == (2,3)
    assert 'MISSING' not in (out := capfd.readouterr()).out + out.err          # not transformers' own table

@pytest.mark.parametrize('name,ours', [
    ('videomae', VideoMAE), ('pretraining', VideoMAE), ('norm', VideoMAE), ('timesformer', TimeSformer),
])
def test_an_encoder_in_a_network_of_ours(encoders, name, ours):
    spec = ClipSpec(n_frames=8, size=32)
    model = build_model(ours, dict(dim=32, depth=2, heads=2, patch=8, mlp_ratio=2), spec, 3, None, {})
    with pytest.warns(UserWarning, match='fresh head|fc_norm and head are new'):
        load_weights(model, encoders/name)
    theirs = quiet(create_model, 'transformers', encoders/name, n_classes=3)
    x = torch.randn(2,3,8,32,32)
    with torch.no_grad():
        got = model.eval().forward_features(x)
        base = getattr(theirs.net.eval(), theirs.net.base_model_prefix)
        tokens = base.embeddings(x.transpose(1,2), *([None] if ours is VideoMAE else []))
        want = base.encoder(tokens).last_hidden_state
    assert (got - want).abs().max() < 1e-4

def test_weights_that_an_encoder_lacks_or_has_too_many_are_refused(encoders, tmp_path):
    for name in ('vivit', 'videomae'):
        (tmp_path/name).mkdir()
        (tmp_path/name/'config.json').write_text((encoders/name/'config.json').read_text())
        state = read_weights(encoders/name/'model.safetensors')
        save_file({k: v for k,v in state.items() if 'layer.1.' not in k}, tmp_path/name/'model.safetensors')
        with pytest.raises(CheckpointError, match='does not fit its own config'):
            quiet(create_model, 'transformers', tmp_path/name, n_classes=3)
        deeper = {k.replace('layer.1.', 'layer.2.'): v.clone() for k,v in state.items() if 'layer.1.' in k}
        save_file(state | deeper, tmp_path/name/'model.safetensors')
        with pytest.raises(CheckpointError, match='does not fit its own config'):
            quiet(create_model, 'transformers', tmp_path/name, n_classes=3)


# --- configs that lie

def crafted(folder, **changes):
    "A saved classifier whose config says something else."
    folder.mkdir(exist_ok=True)
    model = create_model('videomae_tiny', n_classes=3)
    save_file(model.state_dict(), folder/'model.safetensors')
    from vidcls.core import file_sha256

    config = dict(
        format=1,
        vidcls='0',
        model='videomae_tiny',
        arguments={},
        spec=model.spec.to_dict(),
        labels=list('abc'),
        sha256=file_sha256(folder / 'model.safetensors'),
    )
    for k,v in changes.items():
        config[k] = config[k] | v if isinstance(v, dict) and isinstance(config[k], dict) else v
    (folder/'config.json').write_text(json.dumps(config))
    return config, read_weights(folder/'model.safetensors')

LIES = {
    'frames': dict(spec={'n_frames': 10**9}),
    'size': dict(spec={'size': 10**9}),
    'many frames': dict(spec={'n_frames': 10**5}),
    'dim': dict(arguments={'dim': 10**9}),
    'depth': dict(arguments={'depth': 10**9}),
    'deep': dict(arguments={'depth': 10**6}),
    'wide': dict(arguments={'dim': 10**5}),
    'mlp': dict(arguments={'mlp_ratio': 1e9}),
    'infinite': dict(arguments={'mlp_ratio': float('inf')}),
    'nan': dict(arguments={'mlp_ratio': float('nan')}),
    'positions': dict(arguments={'pos_of': [10**6, 10**6]}),
    'text': dict(arguments={'dim': 'large'}),
    'list': dict(arguments={'dim': [1]}),
    'labels': dict(labels=[{}, {}, {}]),
    'nested labels': dict(labels=[['a'], ['b'], ['c']]),
    'mean': dict(spec={'mean': None}),
    'mean of text': dict(spec={'mean': ['a', 'b', 'c']}),
    'std': dict(spec={'std': {}}),
    'frames of text': dict(spec={'n_frames': 'many'}),
    'fetch': dict(arguments={'pretrained': 'owner/model'}),
    'classes': dict(arguments={'n_classes': 10**9}),
    'model': dict(model='nobody_knows'),
    'other model': dict(model='timesformer_tiny'),
    'inside': dict(
        model='transformers', arguments={'config': {'model_type': 'vivit', 'num_hidden_layers': 10**5}}
    ),
    'code': dict(
        model='transformers',
        arguments={
            'config': {
                'model_type': 'vivit',
                'auto_map': {'AutoModel': 'owner/x--m.M'},
                '_name_or_path': 'owner/x',
            }
        },
    ),
}

def memory_mb(f):
    "What `f` adds to the largest memory of this process, in MB."
    import resource
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    f()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1024

@pytest.mark.parametrize('lie', LIES)
def test_a_config_that_lies_is_refused_before_memory_is_taken(tmp_path, lie, no_network):
    config, state = crafted(tmp_path/'c', **LIES[lie])
    def load():
        with pytest.raises(CheckpointError):
            saved_model(config, state, tmp_path/'c')
    def start():
        with pytest.raises((CheckpointError, ArgumentError)):
            quiet(create_model, 'videomae_tiny', tmp_path/'c')
    assert memory_mb(load) < 400 and memory_mb(start) < 400 and not no_network

def test_an_honest_config_is_taken(tmp_path):
    config, state = crafted(tmp_path/'c')
    model = saved_model(config, state, tmp_path/'c')
    assert (
        model.labels == list('abc')
        and (model.name, model.arguments) == ('videomae_tiny', {})
        and torch.equal(model.head.weight, state['head.weight'])
    )

HUB = dict(
    auto_map={'AutoConfig': 'owner/x--c.C', 'AutoModelForVideoClassification': 'owner/x--m.M'},
    trust_remote_code=True,
    _name_or_path='owner/x',
    attn_implementation='owner/kernels',
    _attn_implementation='owner/kernels',
    adapter='owner/y',
    backbone='owner/z',
    use_pretrained_backbone=True,
    quantization_config={'quant_method': 'bitsandbytes', 'load_in_8bit': True},
)

@pytest.mark.parametrize('kind', ['vivit', 'timesformer'])
def test_a_local_folder_never_calls_out(encoders, tmp_path, kind, no_network):
    config = json.loads((encoders/kind/'config.json').read_text())
    (tmp_path/'config.json').write_text(json.dumps(config | HUB))
    (tmp_path / 'adapter_config.json').write_text(
        json.dumps({'base_model_name_or_path': 'owner/x', 'peft_type': 'LORA'})
    )
    (tmp_path/'model.safetensors').write_bytes((encoders/kind/'model.safetensors').read_bytes())
    model = quiet(create_model, 'transformers', tmp_path, n_classes=3)
    assert model.n_classes == 3 and not no_network

@pytest.mark.parametrize('change', [
    dict(num_hidden_layers=10**5), dict(num_hidden_layers=10**9), dict(hidden_size=10**5),
    dict(num_frames=10**9), dict(num_frames=10**6), dict(image_size=10**6), dict(hidden_size='32'),
    dict(hidden_size=32.5), dict(num_frames='many'), dict(num_labels=10**9), dict(id2label={'a': 'x'}),
    dict(model_type=3), dict(model_type='bert'), dict(model_type=None),
], ids=str)
def test_a_folder_of_transformers_that_lies(encoders, tmp_path, change, no_network):
    config = json.loads((encoders/'vivit'/'config.json').read_text())
    (tmp_path/'config.json').write_text(json.dumps(config | change))
    (tmp_path/'model.safetensors').write_bytes((encoders/'vivit'/'model.safetensors').read_bytes())
    def start():
        try:
            quiet(create_model, 'transformers', tmp_path, n_classes=3)
        except (CheckpointError, ArgumentError):
            return
        assert change == dict(num_labels=10**9)  # of no meaning: the classes are those of the head
    assert memory_mb(start) < 400 and not no_network

@pytest.mark.parametrize('wrong', [
    dict(image_mean=None), dict(image_std=[0,0,0]), dict(image_mean='a'), dict(image_std={}),
    dict(rescale_factor='x'), dict(size={'shortest_edge': 'x'}),
], ids=str)
def test_a_processor_that_lies(wrong):
    with pytest.raises(CheckpointError):
        spec_of(
            dict(image_size=224),
            dict(
                size={'shortest_edge': 256}, image_mean=[0.5] * 3, image_std=[0.5] * 3, rescale_factor=1 / 255
            )
            | wrong,
        )


# --- a resize before the crop

@pytest.mark.parametrize('short', [32, 38, 64])
def test_frames_are_those_of_transformers_processor(short):
    hf = pytest.importorskip('transformers')
    rng, x, y = np.random.default_rng(0), *np.meshgrid(np.arange(120), np.arange(80))
    frames = np.stack(
        [
            np.stack([127 + 120 * np.sin((x + 3 * t) / 9), 127 + 120 * np.cos(y / 7), (x + y + t) % 255], -1)
            for t in range(8)
        ]
    ).astype(np.uint8)
    theirs = hf.VivitImageProcessor(size={'shortest_edge': short}, crop_size={'height': 32, 'width': 32})
    want = np.asarray(theirs(list(frames), return_tensors='np')['pixel_values'][0])  # (T,C,H,W), in [-1,1]
    said = json.loads(theirs.to_json_string())
    spec = ClipSpec(n_frames=8, **spec_of(dict(image_size=32), said))
    assert spec.short_px == short and spec.resize == (None if short == 32 else short)
    got = (
        spec.to_model(torch.from_numpy(np.ascontiguousarray(clip_from_frames(frames, spec)))[None])[0]
        .transpose(0, 1)
        .numpy()
    )
    assert np.abs(got-want).mean() < .02                                       # two libraries' filters
    if short != 32:
        plain = spec.with_(resize=None)
        other = (
            plain.to_model(torch.from_numpy(np.ascontiguousarray(clip_from_frames(frames, plain)))[None])[0]
            .transpose(0, 1)
            .numpy()
        )
        assert np.abs(other-want).mean() > 5*np.abs(got-want).mean()

def test_the_resize_reaches_files_caches_and_views(tmp_path, real_data):
    from vidcls.data.loaders import load_clip
    path = next(p for p in sorted((real_data/'weizmann').rglob('*')) if p.suffix in ('.avi', '.mp4'))
    spec = ClipSpec(n_frames=4, size=32, resize=48)
    clip, wide = load_clip(path, spec), load_clip(path, spec.with_(resize=None))
    whole = load_clip(path, ClipSpec(n_frames=4, size=48))
    assert np.array_equal(clip, whole[:,8:40,8:40]) and not np.array_equal(clip, wide)

def test_a_resize_goes_with_the_size():
    spec = ClipSpec(size=224, resize=256)
    assert spec.with_(size=112).resize == 128 and spec.with_(size=112, resize=None).resize is None
    assert (
        ClipSpec.from_dict(spec.to_dict()) == spec
        and 'resize' not in ClipSpec().to_dict()
        and ClipSpec(resize=224).resize is None
    )
    with pytest.raises(ArgumentError, match='resize=200'):
        ClipSpec(size=224, resize=200)


# --- where weights may come from

def test_the_folder_of_a_classifier_gives_weights_spec_and_labels(tmp_path):
    from vidcls.predict import Classifier
    model = create_model('timesformer_tiny', n_classes=3, n_frames=6, attention='joint').eval()
    Classifier(model, list('xyz')).save(tmp_path/'c')
    again = create_model('timesformer_tiny', tmp_path/'c').eval()
    assert (again.n_classes, again.labels, again.spec, again.arguments) == (
        3,
        list('xyz'),
        model.spec,
        {'attention': 'joint'},
    )
    x = torch.randn(1,3,6,32,32)
    assert torch.equal(again(x), model(x))
    with pytest.warns(UserWarning, match='fresh head'):
        seven = create_model('timesformer_tiny', tmp_path/'c', n_classes=7)
    assert seven.labels is None and seven.n_classes == 7 and same(seven, model)
    assert create_model('timesformer_tiny', tmp_path/'c', n_frames=4).spec.n_frames == 4
    with pytest.raises(CheckpointError, match="give name='timesformer_tiny'"):
        create_model('videomae_tiny', tmp_path/'c')
    (tmp_path/'c'/'model.safetensors').write_bytes(b'x' + (tmp_path/'c'/'model.safetensors').read_bytes()[1:])
    with pytest.raises(CheckpointError, match='checksum'):
        create_model('timesformer_tiny', tmp_path/'c')

def test_a_model_of_transformers_in_memory():
    hf = pytest.importorskip('transformers')
    theirs = hf.VivitForVideoClassification(
        hf.VivitConfig(
            image_size=32,
            num_frames=8,
            tubelet_size=[2, 8, 8],
            intermediate_size=64,
            num_labels=3,
            id2label={0: 'a', 1: 'b', 2: 'c'},
            **SMALL,
        )
    ).eval()
    ours, x = create_model('transformers', theirs).eval(), torch.randn(1,3,8,32,32)
    assert ours.labels == list('abc') and (ours(x) - theirs(x.transpose(1,2)).logits).abs().max() < 1e-5
    mae = hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**CLIPS, **SMALL, num_labels=3)).eval()
    ours = create_model('videomae_tiny', mae, dim=32, depth=2, mlp_ratio=2).eval()
    mae.fc_norm.eps = 1e-6
    assert (ours(x) - mae(x.transpose(1,2)).logits).abs().max() < 1e-5
    encoder = quiet(create_model, 'transformers', hf.VivitModel(theirs.config), n_classes=4)
    assert encoder.n_classes == 4

def test_tensors_in_memory_and_what_is_no_source():
    model = videomae_tiny(5)
    assert same(create_model('videomae_tiny', model.state_dict()), model)
    assert create_model('videomae_tiny', pretrained=False).n_classes == 400
    with pytest.raises(ArgumentError, match=r'pretrained=model.state_dict\(\)'):
        create_model('videomae_tiny', model)
    with pytest.raises(ArgumentError, match="hub id such as 'MCG-NJU/videomae-base-finetuned-kinetics'"):
        create_model('videomae_base', True)

def test_an_explicit_spec_wins_over_the_folders(tmp_path):
    model = create_model('timesformer_tiny', n_classes=3, n_frames=6)
    save_transformers(model, tmp_path/'hf', list('abc'))
    assert create_model(
        'timesformer_tiny', tmp_path / 'hf', spec=ClipSpec(n_frames=4, size=32)
    ).spec == ClipSpec(n_frames=4, size=32)


# --- labels belong to the head

def test_old_labels_go_with_the_old_head(tmp_path):
    model = create_model('videomae_tiny', n_classes=3)
    save_transformers(model, tmp_path/'pre', ['run', 'jump', 'sit'])
    model = create_model('videomae_tiny', tmp_path/'pre')
    assert model.labels == ['run', 'jump', 'sit'] and model.get_classifier() is model.head
    named = lambda m, d: list(
        json.loads((save_transformers(m, d) / 'config.json').read_text())['id2label'].values()
    )
    assert named(model, tmp_path/'a') == ['run', 'jump', 'sit']
    model.head = torch.nn.Linear(96, 3)                                        # by hand, with as many classes
    assert model.labels is None and named(model, tmp_path/'b') == ['LABEL_0', 'LABEL_1', 'LABEL_2']
    model.labels = list('abc')
    model.reset_classifier(3)
    assert model.labels is None

def test_a_classifier_is_written_with_its_own_labels(tmp_path):
    from vidcls.predict import Classifier
    clf = Classifier(create_model('videomae_tiny', n_classes=2), ['left', 'right'])
    save_transformers(clf, tmp_path/'c')
    assert find_weights(tmp_path/'c').labels == ['left', 'right']


# --- habits

def test_list_models_takes_a_part_of_a_name():
    assert list_models('mvit') == ['mvit_v2_b', 'mvit_v2_s', 'mvit_v2_tiny'] and list_models('*_tiny') == [
        n for n in list_models() if n.endswith('_tiny')
    ]
    assert (
        list_models('videomaev2') == ['videomaev2_base', 'videomaev2_small']
        and list_models('i3d') == ['i3d', 'i3d_tiny']
        and list_models('none') == []
    )

HABITS = {
    'num_classes': "Did you mean 'n_classes'?",
    'num_labels': "Did you mean 'n_classes'?",
    'img_size': "Did you mean 'size'?",
    'image_size': "Did you mean 'size'?",
    'num_frames': "Did you mean 'n_frames'?",
    'drop_rate': "Did you mean 'dropout'?",
    'drop_path_rate': "Did you mean 'drop_path'?",
    'in_chans': '3 channels',
    'patch_size': "Did you mean 'patch'?",
    'embed_dim': "Did you mean 'dim'?",
    'num_heads': "Did you mean 'heads'?",
    'checkpoint_path': "Did you mean 'pretrained'?",
    'n_frame': "Did you mean 'n_frames'?",
    'device': 'model.to(device)',
}

@pytest.mark.parametrize('habit', HABITS)
def test_names_of_other_libraries_get_the_right_hint_first(habit):
    with pytest.raises(ArgumentError) as said:
        create_model('videomae_tiny', **{habit: 3})
    text = str(said.value)
    # the list of what is accepted has it, too
    assert 0 <= text.find(HABITS[habit]) < 60 and 'n_classes' in text

def test_a_hint_is_not_given_where_the_model_has_no_such_thing():
    with pytest.raises(ArgumentError, match="'drop_path', which I3D does not have"):
        create_model('i3d_tiny', drop_path_rate=.1)
    with pytest.raises(ArgumentError, match=r"^name='mvit_v2'\. Did you mean 'mvit_v2_[bs]'"):
        create_model('mvit_v2')

@pytest.mark.parametrize('name', list_models('_tiny'))
def test_every_model_has_num_features_and_another_head(name):
    model = create_model(name, n_classes=3).eval()
    n = model.num_features
    model.reset_classifier(5)
    T,S = model.spec.n_frames, model.spec.size
    assert model.num_features == n == model.head.in_features and model(torch.randn(1,3,T,S,S)).shape == (1,5)


# --- models of one's own

@pytest.fixture
def own():
    before = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(before)

class Pooled(VideoMAE):
    "A network of somebody's own."

def test_a_registered_model_is_saved_and_loaded_again(own, tmp_path):
    from vidcls.predict import Classifier

    register_model(
        'my_net',
        lambda n_classes=400, spec=None, width=48: build_model(
            VideoMAE,
            dict(dim=width, depth=1, heads=4, patch=8),
            ClipSpec(n_frames=8, size=32),
            n_classes,
            spec,
            {},
        ),
    )
    model = create_model('my_net', n_classes=3, width=24).eval()
    assert is_registered(model) and model.arguments == {'width': 24} and 'my_net' in list_models('my')
    check_registered(model)
    Classifier(model, list('abc')).save(tmp_path/'c')
    x = torch.randn(1,3,8,32,32)
    assert torch.equal(Classifier.load(tmp_path/'c').model(x), model(x))
    with pytest.raises(ArgumentError, match="argument='widht'.*Did you mean 'width'"):
        create_model('my_net', widht=3)
    config, state = (
        json.loads((tmp_path / 'c' / 'config.json').read_text()),
        read_weights(tmp_path / 'c' / 'model.safetensors'),
    )
    del MODELS['my_net']
    with pytest.raises(CheckpointError, match=r"register_model\('my_net'"):
        saved_model(config, state, tmp_path)

def test_a_class_can_be_registered_and_a_decorator_used(own):
    assert register_model(Pooled) is Pooled
    model = create_model('Pooled', n_classes=3, dim=24, depth=1, heads=2, patch=8, size=32, n_frames=4)
    assert isinstance(model, Pooled) and is_registered(model)
    @register_model('mine-2')
    def net(n_classes=400, spec=None): return videomae_tiny(n_classes, spec)
    assert is_registered(create_model('mine-2', n_classes=3))

def test_what_cannot_be_loaded_again_is_not_registered(own):
    pooled = lambda: Pooled(ClipSpec(n_frames=4, size=32), 3, TubeletShape(dim=24, depth=1, heads=2, patch=8))
    assert not is_registered(torch.nn.Linear(2,2)) and not is_registered(pooled())
    with pytest.raises(ArgumentError, match=r"register_model\('my_net', make\)"):
        check_registered(pooled())
    changed = create_model('videomae_tiny', n_classes=3)
    changed.blocks.append(torch.nn.Linear(96, 96))
    with pytest.raises(ArgumentError, match='other layers than'):
        check_registered(changed)
    pretending = pooled()
    pretending.name, pretending.arguments = 'videomae_tiny', {}
    assert not is_registered(pretending)
    for name in ('i3d', '', 'a b', 3):
        with pytest.raises(ArgumentError):
            register_model(name, lambda n_classes: None)
    with pytest.raises(ArgumentError, match='without .spec'):
        register_model('bare', lambda n_classes, spec=None: torch.nn.Linear(2, n_classes))
        create_model('bare', n_classes=3)


# --- exports

SMALLER = {n: dict(n_frames=4, size=32) for n in list_models('_inflated')}

@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
@pytest.mark.parametrize('name', [*list_models('_tiny'), *SMALLER])
def test_a_recording_of_two_clips_runs_for_any_number(name):
    "As older exporters to ONNX see a model: a shape that was recorded as a number fails for other batches."
    model = create_model(name, n_classes=3, **SMALLER.get(name, {})).eval()
    T,S = model.spec.n_frames, model.spec.size
    with torch.no_grad():
        recorded = torch.jit.trace(model, torch.randn(2,3,T,S,S), check_trace=False)
        for n in (1, 2, 3, 5):
            x = torch.randn(n,3,T,S,S)
            assert (recorded(x) - model(x)).abs().max() < 1e-4

@pytest.mark.parametrize('name', ['swin3d_tiny', 'videomae_tiny'])
def test_an_export_runs_whatever_attention_is_chosen(name):
    "Recorded with one kernel of attention, run with another: the layout in memory must not matter."
    from torch.nn.attention import SDPBackend, sdpa_kernel
    model = create_model(name, n_classes=3).eval()
    T,S = model.spec.n_frames, model.spec.size
    with torch.no_grad():
        whole = torch.export.export(
            model,
            (torch.randn(2, 3, T, S, S),),
            dynamic_shapes={'x': {0: torch.export.Dim('B', min=1, max=64)}},
        )
        whole = whole.run_decompositions().module()
        for n in (1, 2, 3):
            x = torch.randn(n,3,T,S,S)
            with sdpa_kernel(SDPBackend.MATH):
                assert (whole(x) - model(x)).abs().max() < 1e-4
            assert (whole(x) - model(x)).abs().max() < 1e-4
