"Models: the authors' names, another implementation, other processes, hostile files."
import copy, csv, os, pickle, subprocess, sys, warnings
from pathlib import Path

import pytest
import torch

from vidcls.core import CheckpointError, ClipSpec, seed_everything
from vidcls.models.layers import sincos_pos_embed
from vidcls.models.videomae import videomae_small, videomae_tiny
from vidcls.models.weights import load_weights
from vidcls.models.zoo import create_model, list_models

DATA = os.environ.get('VIDCLS_TEST_DATA')
NAMES = Path(DATA).parent/'reference'/'videomae_small.tsv' if DATA else None


def clip(model, n=2):
    "A random batch as `model` wants it."
    T,S = model.spec.n_frames, model.spec.size
    return torch.randn(n,3,T,S,S)


# --- the authors' checkpoints

@pytest.mark.skipif(not (NAMES and NAMES.is_file()),
                    reason='needs reference/videomae_small.tsv beside the folder in VIDCLS_TEST_DATA')
def test_names_shapes_and_order_are_those_of_the_authors():
    with open(NAMES) as f:
        want = [(r['name'], r['shape'], r['dtype']) for r in csv.DictReader(f, delimiter='\t')]
    with torch.device('meta'):
        model = videomae_small()
    got = [(k, str(tuple(v.shape)), str(v.dtype)[6:]) for k,v in model.state_dict().items()]
    assert len(want) == 162
    assert got == want


# --- the model as a thing to train and to carry about

def test_every_weight_gets_a_gradient_also_the_first():
    model = videomae_tiny(3, drop_path=.2, dropout=.2)
    seed_everything(0)
    model(clip(model, 8)).square().sum().backward()
    assert [k for k,p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_drop_path_and_dropout_act_in_training_only():
    seed_everything(0)
    model = videomae_tiny(3, drop_path=.5, dropout=.5)
    x = clip(model)
    assert (model(x) - model(x)).abs().max() > 1e-4
    model.eval()
    assert torch.equal(model(x), model(x))


def test_one_clip_is_not_influenced_by_its_neighbours():
    model = videomae_tiny(3).eval()
    x = clip(model, 4)
    assert (model(x)[2:3] - model(x[2:3])).abs().max() < 1e-5


def test_seed_gives_the_weights():
    def weights(seed):
        seed_everything(seed)
        return torch.cat([p.flatten() for p in videomae_tiny(3).parameters()])
    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))


def test_copies_keep_spec_and_table():
    model = videomae_tiny(3, mean=.5).eval()
    twin = copy.deepcopy(model)
    x = clip(model)
    assert twin.spec == model.spec and torch.equal(twin(x), model(x))
    assert model.double().pos.dtype == torch.float64
    assert (model.pos - sincos_pos_embed(64, 96)).abs().max() == 0


def test_the_graph_is_whole_and_the_batch_size_free():
    model = videomae_tiny(3).eval()
    B = torch.export.Dim('B', min=1, max=64)
    exported = torch.export.export(model, (clip(model, 2),), dynamic_shapes={'x': {0: B}}).module()
    x = clip(model, 5)
    assert (exported(x) - model(x)).abs().max() < 1e-5


def test_every_model_of_the_zoo_has_what_others_call():
    for name in list_models():
        if name in ('transformers', 'pooled'):
            continue                             # it needs a config
        with torch.device('meta'):
            model = create_model(name, n_classes=3)
        assert isinstance(model.spec, ClipSpec) and model.n_classes == 3
        model.reset_classifier(4)
        T,S = model.spec.n_frames, model.spec.size
        assert model(torch.empty(2,3,T,S,S, device='meta')).shape == (2,4)


# --- other processes

def run(code, *args):
    "Run code in a fresh Python; its printed text."
    done = subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_needs_no_notebook_and_nothing_heavy_but_torch():
    heavy = "('transformers', 'pandas', 'matplotlib', 'nbdev', 'fastcore', 'execnb', 'IPython')"
    assert run(f"import sys, vidcls.models.zoo; print([m for m in {heavy} if m in sys.modules])") == '[]'


def test_saved_here_loaded_there_gives_the_same_logits(tmp_path):
    from safetensors.torch import save_file
    seed_everything(0)
    model = videomae_tiny(5).eval()
    save_file(model.state_dict(), tmp_path/'m.safetensors')
    seed_everything(1)
    want = model(clip(model)).flatten().tolist()
    got = run(
        "import sys, torch; from vidcls.core import seed_everything; from vidcls.models.zoo import "
        "create_model\n"
        "m = create_model('videomae_tiny', sys.argv[1]).eval(); seed_everything(1)\n"
        "print(*m(torch.randn(2,3,8,32,32)).flatten().tolist())",
        tmp_path / 'm.safetensors',
    )
    assert [float(v) for v in got.split()] == pytest.approx(want, abs=1e-6)


# --- hostile and damaged files

class Runs:
    "Unpickled, it makes a file: the harmless stand-in for harm."
    def __init__(self, path): self.path = path
    def __reduce__(self): return (Path.touch, (self.path,))


@pytest.mark.parametrize('suffix', ['.pt', '.pth', '.safetensors'])
@pytest.mark.parametrize('how', ['zip', 'legacy', 'plain'])
def test_code_in_a_pickle_never_runs(tmp_path, suffix, how):
    f,trap = tmp_path/f'weights{suffix}', tmp_path/'ran'
    content = {'model': videomae_tiny(5).state_dict(), 'args': Runs(trap)}
    if how == 'plain':
        f.write_bytes(pickle.dumps(Runs(trap)))
    else:
        torch.save(content, f, _use_new_zipfile_serialization=how == 'zip')
    model = videomae_tiny(5)
    with pytest.raises(CheckpointError, match='weights'):
        load_weights(model, f)
    assert not trap.exists()


@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_a_file_cut_anywhere_is_refused_and_changes_nothing(tmp_path, suffix):
    from safetensors.torch import save_file
    whole,cut = tmp_path/f'whole{suffix}', tmp_path/f'cut{suffix}'
    (save_file if suffix == '.safetensors' else torch.save)(videomae_tiny(5).state_dict(), whole)
    content = whole.read_bytes()
    model = videomae_tiny(5)
    before = {k: v.clone() for k,v in model.state_dict().items()}
    for at in [0, 1, 7, 8, 9, 100, *range(1000, len(content), len(content)//15), len(content)-1]:
        cut.write_bytes(content[:at])
        with pytest.raises(CheckpointError, match='cut'):
            load_weights(model, cut)
    assert all(torch.equal(before[k], v) for k,v in model.state_dict().items())


def test_only_the_head_may_differ_and_only_in_its_classes(tmp_path):
    model = videomae_tiny(5)
    state = model.state_dict()
    # another width
    for name,other in {'a': state | {'head.weight': torch.zeros(9,48), 'head.bias': torch.zeros(9)},
                       'b': {k: v for k,v in state.items() if k != 'head.bias'},  # half a head
                       'c': state | {'blocks.0.norm1.bias': torch.zeros(97)}}.items():
        torch.save(other, tmp_path/f'{name}.pt')
        with warnings.catch_warnings(), pytest.raises(CheckpointError, match='does not fit'):
            warnings.simplefilter('ignore')
            load_weights(model, tmp_path/f'{name}.pt')
