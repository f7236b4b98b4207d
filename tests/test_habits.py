"What people type from habit (fastai, timm, transformers): it works, or a sentence says how it is called."
import io, subprocess, sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import vidcls
from vidcls.core import ArgumentError, ClipSpec, DataError, LabelError
from vidcls.data.datasets import from_df, from_folder
from vidcls.data.loaders import as_loaders, loaders
from vidcls.data.synthetic import make_motion_clips
from vidcls.evaluate import evaluate
from vidcls.models.zoo import create_model, list_models
from vidcls.predict import Classifier
from vidcls.train import fit


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    return make_motion_clips(tmp_path_factory.mktemp('habits') / 'motion', n_groups=10, n_frames=4, size=16)

@pytest.fixture(scope='module')
def table(clips): return from_folder(clips).select_classes(['left', 'right'])

def small(n=2, **kw):
    return create_model('videomae_tiny', n_classes=n, n_frames=4, size=16, dim=16, depth=1, heads=2, **kw)


def test_names_at_the_top():
    code = (
        "import sys, vidcls\nassert not {'torch', 'pandas', 'av'} & set(sys.modules)\n"
        "assert vidcls.create_model and vidcls.fit and vidcls.ClipSpec().n_frames == 16 and 'fit' in "
        "dir(vidcls)\n"
        "from vidcls import *\nassert from_folder and Classifier\nimport vidcls.evaluate; "
        "print(vidcls.__version__)"
    )
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0 and r.stdout.startswith('0.'), r.stderr
    with pytest.raises(AttributeError, match='vidcls.MODULE'):
        vidcls.nothing


def test_evaluate_at_the_top_is_a_module_that_can_be_called():
    code = (
        "import sys, types, vidcls\n{first}\n"
        "import vidcls.evaluate as e\nfrom vidcls import evaluate as at_top\n"
        "from vidcls.evaluate import EvalRecord, evaluate\n"
        "assert vidcls.evaluate is e is at_top is sys.modules['vidcls.evaluate']\n"
        "assert e.EvalRecord is EvalRecord and e.evaluate is evaluate\n"
        "assert isinstance(e, types.ModuleType) and isinstance(evaluate, types.FunctionType)\n"
        "try: vidcls.evaluate(None, None)\n"
        "except vidcls.VidclsError as error: assert 'no such split' in str(error)\n"
        "else: raise SystemExit('nothing was called')"
    )
    for first in ('vidcls.evaluate', 'import vidcls.evaluate', 'from vidcls.evaluate import evaluate',
                  'from vidcls import *'):
        r = subprocess.run([sys.executable, '-c', code.format(first=first)], capture_output=True, text=True,
                           timeout=120)
        assert r.returncode == 0, (first, r.stderr)


def test_every_name_at_the_top_is_there():
    for name in vidcls.__all__:
        assert getattr(vidcls, name).__doc__, name


# commands have a help text of their own; tests/test_stumbles.py looks at what else these modules export
NOT_HERE = ('vidcls.cli', 'vidcls.commands', 'vidcls.studies.cli', 'vidcls.docs', 'vidcls._modidx')

def test_help_shows_the_parameters():
    assert (
        'Parameters\n----------\n' in fit.__doc__
        and 'lr : float, default 0.001\n    Peak learning rate' in fit.__doc__
    )
    import importlib, inspect, pkgutil
    lacking = []
    for m in pkgutil.walk_packages(vidcls.__path__, 'vidcls.'):
        if m.name.startswith(NOT_HERE) or m.ispkg:
            continue
        module = importlib.import_module(m.name)
        for name in module.__all__:
            f = getattr(module, name)
            if (
                inspect.isfunction(f)
                and f.__module__ == m.name
                and inspect.signature(f).parameters
                and 'Parameters' not in f.__doc__
            ):
                lacking.append(f'{m.name}.{name}')
    assert not lacking


def test_list_models_finds_what_contains_the_word():
    assert {'mvit_v2_s', 'mvit_v2_b'} <= set(list_models('mvit')) and all(
        'mvit' in m for m in list_models('mvit')
    )
    assert list_models('videomae*') and not list_models('nonsense')


@pytest.mark.parametrize('name, value, says', [('num_classes', 3, 'n_classes'), ('img_size', 64, 'size'),
                                               ('num_frames', 8, 'n_frames'), ('drop_rate', .1, 'drop')])
def test_create_model_hints(name, value, says):
    with pytest.raises(ArgumentError, match=says) as e:
        create_model('videomae_tiny', **{name: value})
    assert len(str(e.value).split(says)[0]) < 200                     # the hint comes before the list


@pytest.mark.parametrize('name, says', [
    ('cbs', 'say callbacks='),
    ('loss_func', 'say loss='),
    ('opt_func', 'say optimizer='),
    ('clip', 'say max_grad_norm='),
    ('fp16', "precision='fp16'"),
    ('device', 'ACCELERATE_USE_CPU'),
    ('num_epochs', 'say epochs='),
    ('batch_size', 'loaders'),
    ('shedule', 'did you mean schedule='),
    ('xyz', 'accepted: model'),
])
def test_fit_hints(table, name, says):
    m = small()
    with pytest.raises(ArgumentError, match=says):
        fit(m, loaders(table, m.spec, bs=8), epochs=1, **{name: True})


def test_loaders_hints(table, clips):
    for name, says in (('batch_size', 'bs'), ('num_workers', 'workers')):
        with pytest.raises(ArgumentError, match=f'say {says}='):
            loaders(table, small().spec, **{name: 2})
    assert loaders(str(clips), small().spec, bs=4).train.dataset.table.n_classes == 8
    df = from_folder(clips).df.assign(path=lambda d: [str(Path(clips)/p) for p in d.path])
    table = loaders(df, small().spec, bs=4).train.dataset.table
    assert len(table) == len(from_folder(clips).select_split('train'))
    assert from_df(df).n_classes == 8


def test_an_optimiser_is_a_name_a_class_or_a_function(table):
    for how in (
        'sgd',
        torch.optim.SGD,
        torch.optim.AdamW,
        lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.5),
    ):
        m = small()
        hist = fit(m, loaders(table, m.spec, bs=8), epochs=1, lr=1e-3, optimizer=how, show=False)
        assert np.isfinite(hist['train_loss']).all()
    with pytest.raises(ArgumentError, match='Did you mean'):
        fit(m, loaders(table, m.spec, bs=8), epochs=1, optimizer='adamv')


def test_freeze_true_trains_the_head_alone(table):
    m = small()
    before = {n: p.detach().clone() for n,p in m.named_parameters()}
    fit(m, loaders(table, m.spec, bs=8), epochs=1, lr=1e-2, freeze=True, show=False)
    moved = {n for n,p in m.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(n.startswith(('head.', 'fc_norm.')) for n in moved)


@pytest.mark.parametrize('epochs', ['3', 0, 1.5, None])
def test_epochs_are_a_whole_number(table, epochs):
    m = small()
    with pytest.raises(ArgumentError, match='epochs='):
        fit(m, loaders(table, m.spec, bs=8), epochs=epochs, show=False)


class Squares(Dataset):
    "Clips of one's own: a square in one half of the picture."
    classes = ['left', 'right']
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i):
        clip = torch.zeros(4, 16, 16, 3, dtype=torch.uint8)
        clip[:, 4:12, 8*(i % 2):8*(i % 2)+8] = 255
        return clip, i % 2


class Plain(nn.Module):
    "A network that knows nothing of vidcls."
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3*4*16*16, 2))
    def forward(self, x): return self.net(x)


@pytest.mark.parametrize('own', ['Dataset', 'DataLoader', 'loaders'])
def test_a_network_and_clips_of_ones_own(own):
    spec = ClipSpec(n_frames=4, size=16, mean=.5, std=.5)
    parts = [Squares(32), Squares(16)]
    if own == 'DataLoader':
        parts = [DataLoader(p, 8, shuffle=i == 0) for i,p in enumerate(parts)]
    dls = as_loaders(spec, *parts) if own == 'loaders' else tuple(parts)
    model = Plain()
    hist = fit(model, dls, epochs=3, lr=1e-2, spec=spec, show=False)
    assert hist['accuracy'][-1] == 1.
    rec = evaluate(model, as_loaders(spec, Squares(32), test=Squares(16)).test, show=False)
    assert rec.video_top1 == 1. and rec.labels == ['left', 'right']


def test_a_network_without_a_spec_is_told_so(table):
    with pytest.raises(ArgumentError, match='spec=ClipSpec'):
        fit(Plain(), loaders(table, small().spec, bs=8), epochs=1)


@pytest.fixture(scope='module')
def clf(table, tmp_path_factory):
    torch.manual_seed(0)
    Classifier(small(), table.labels).save(out := tmp_path_factory.mktemp('clf')/'c')
    return Classifier.load(out), out


def test_predict_takes_every_form_of_a_clip(clf, clips, table):
    from PIL import Image
    from vidcls.data.decode import read_frames
    c, _ = clf
    path = table.root/table.df.path[0]
    frames = read_frames(path, range(4))
    want = c.predict(path)
    for form in (
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        frames,
        torch.from_numpy(frames),
        [Image.fromarray(f) for f in frames],
    ):
        got = c.predict(form)
        assert got[0]['label'] == want[0]['label'] and abs(got[0]['score'] - want[0]['score']) < 1e-5, type(
            form
        )
    with pytest.raises(ArgumentError, match='address|URL|download'):
        c.predict('https://example.org/a.mp4')


def test_from_pretrained_and_save_pretrained(clf, tmp_path):
    c, out = clf
    c.save_pretrained(tmp_path/'again')
    assert Classifier.from_pretrained(tmp_path/'again').labels == c.labels


def test_a_classifiers_folder_and_a_transformers_object_are_weights(clf):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification
    c, out = clf
    m = create_model(
        'videomae_tiny', pretrained=out, n_classes=2, n_frames=4, size=16, dim=16, depth=1, heads=2
    )
    assert torch.equal(m.head.weight, c.model.head.weight)
    config = VideoMAEConfig(
        image_size=16,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        patch_size=8,
        num_labels=3,
    )
    theirs = VideoMAEForVideoClassification(config).eval()
    ours = create_model('transformers', pretrained=theirs).eval()
    x = torch.rand(1, 3, 4, 16, 16)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(pixel_values=x.transpose(1, 2)).logits, atol=1e-5)


def test_a_record_has_its_tables_and_pictures(table):
    m = small()
    rec = evaluate(m, loaders(table, m.spec, bs=8).test, show=False)
    assert len(rec.top_losses(None)) == rec.n_evaluated and list(rec.class_table().index)
    fig = rec.plot_confusion()
    assert fig.get_size_inches()[0]*fig.dpi >= 600
    assert rec.verdict in repr(rec) and 'optimistic' not in repr(rec)
    assert 'chosen on these clips: optimistic' in repr(
        evaluate(m, loaders(table, m.spec, bs=8).valid, show=False, optimistic=True)
    )


def test_other_tasks_are_refused(clips, tmp_path):
    table = from_folder(clips)
    paths = [str(Path(clips)/p) for p in table.df.path]
    rng = np.random.default_rng(0)
    with pytest.raises((DataError, LabelError), match='number|regression|numeric'):
        from_df(pd.DataFrame(dict(path=paths, label=rng.random(len(paths)))))
    several = ['fight,person', 'fight', 'person', 'fight,person,dog']*(len(paths)//4)
    with pytest.raises((DataError, LabelError), match='several|multi'):
        from_df(pd.DataFrame(dict(path=paths, label=several)))
