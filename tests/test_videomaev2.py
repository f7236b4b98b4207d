"VideoMAE v2's distilled models: the authors' names and shapes, and what the zoo says of them."
import csv, os
from pathlib import Path

import pytest
import torch

from vidcls.core import ClipSpec
from vidcls.models.videomae import VideoMAE
from vidcls.models.zoo import MODELS, citation, create_model, model_table

DATA = os.environ.get('VIDCLS_TEST_DATA')
NAMES = Path(DATA).parent/'reference' if DATA else Path('nowhere')
WEIGHTS = dict(small=22_153_286, base=86_773_190)                               # with 710 classes

def published(size):
    "Names and shapes of the authors' file."
    path = NAMES/f'videomaev2_{size}_k710.tsv'
    if not path.is_file():
        pytest.skip(f"{path.name} is not here; VIDCLS_TEST_DATA names the folder beside it")
    rows = list(csv.reader(path.open(), delimiter='\t'))[1:]
    return {name: tuple(int(n) for n in shape.strip('()').split(',') if n.strip()) for name,shape,_ in rows}

def on_meta(name, **kw):
    with torch.device('meta'):
        return MODELS[name](**kw)

@pytest.mark.parametrize('size', WEIGHTS)
def test_every_name_and_shape_is_the_authors(size):
    model = on_meta(f'videomaev2_{size}', n_classes=710)
    assert {k: tuple(v.shape) for k,v in model.state_dict().items()} == published(size)
    assert sum(p.numel() for p in model.parameters()) == WEIGHTS[size]

def test_their_file_loads_as_it_is_under_either_name(tmp_path):
    state = {k: torch.randn(shape)*.02 for k,shape in published('small').items()}
    torch.save({'module': state}, tmp_path/'vit_s_k710_dl_from_giant.pth')
    v2, v1 = (
        create_model(n, tmp_path / 'vit_s_k710_dl_from_giant.pth').eval()
        for n in ('videomaev2_small', 'videomae_small')
    )
    assert v2.n_classes == 710 and all(torch.equal(v, state[k]) for k,v in v2.state_dict().items())
    with pytest.warns(UserWarning, match='710 classes'):
        mine = create_model('videomaev2_small', tmp_path/'vit_s_k710_dl_from_giant.pth', n_classes=5)
    assert mine.n_classes == 5 and torch.equal(mine.fc_norm.weight, v1.fc_norm.weight)

def test_spec_figures_and_licence():
    table = model_table('videomaev2')
    assert dict(table.top1) == {'videomaev2_small': 83.7, 'videomaev2_base': 86.6}
    assert all('MIT' in l for l in table.licence) and all(
        '5 × 3 views, 16 frames' in p for p in table.protocol
    )
    assert '2303.16727' in citation('videomaev2_base') and '2203.12602' in citation('videomae_base')
    for name in table.index:
        model = on_meta(name, n_classes=5)
        assert isinstance(model, VideoMAE) and model.spec == ClipSpec(
            n_frames=16, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        )
