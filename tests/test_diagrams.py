"The diagrams: whole, legible, and with the shapes and events of the real library."
import xml.etree.ElementTree as ET

import pytest
import torch

from vidcls.core import ClipSpec
from vidcls.drawings.attention import (PIECES, draw_divided_attention, draw_pooling_attention,
                                       draw_shifted_windows, window_piece)
from vidcls.drawings.networks import draw_inflation, draw_masked_autoencoder, draw_tubelets, draw_videomae
from vidcls.drawings.work import TRAINING, draw_clip_way, draw_training_loop, draw_views

TINY = ClipSpec(n_frames=8, size=32)
DRAWN = {
    'clip way': draw_clip_way, 'of a tiny clip': lambda: draw_clip_way(TINY, 5),
    'of 64 frames': lambda: draw_clip_way(ClipSpec(n_frames=64)),
    'training loop': draw_training_loop,
    'views': draw_views, 'one view': lambda: draw_views(1, 1), 'most views': lambda: draw_views(6, 3),
    'inflation': draw_inflation, 'of two': lambda: draw_inflation(2),
    'tubelets': draw_tubelets, 'tiny tubelets': lambda: draw_tubelets(8, 32, 2, 8, 96),
    'one frame': lambda: draw_tubelets(1, 16, 1, 8, 8),
    'VideoMAE': draw_videomae, 'tiny VideoMAE': lambda: draw_videomae(8, 32, 2, 8, 96, 4, 5),
    'huge VideoMAE': lambda: draw_videomae(64, 448, 2, 16, 1280, 32, 1000),
    'masked': draw_masked_autoencoder,
    'tiny masked': lambda: draw_masked_autoencoder(8, 32, 2, 8, .75, 96, 4, 48, 2),
    'masked once': lambda: draw_masked_autoencoder(2, 32, 2, 16, .5),
    'divided': draw_divided_attention, 'small': lambda: draw_divided_attention(2, 2),
    'large': lambda: draw_divided_attention(4, 7),
    'pooling': draw_pooling_attention, 'first block': lambda: draw_pooling_attention((8,56,56), 96, 1, 1, 8),
    'windows': draw_shifted_windows, 'windows of two': lambda: draw_shifted_windows(4, 2),
}
every_diagram = pytest.mark.parametrize('name', DRAWN)


def words(diagram):
    "All texts of a diagram, as one."
    return '\n'.join(text for text,_ in diagram.texts)


@every_diagram
def test_the_xml_is_well_formed_and_named(name):
    d = DRAWN[name]()
    root = ET.fromstring(d.svg())
    assert root.get('role') == 'img' and root.get('aria-label') == d.title
    assert root[0].tag.endswith('title') and root[0].text == d.title
    assert not [e for e in root.iter() if 'id' in e.attrib]
    assert d.width >= 700 and len(d.svg()) < 40_000
    assert d.svg() == DRAWN[name]().svg()


@every_diagram
def test_arrows_end_at_something(name):
    d = DRAWN[name]()
    places = [*d.boxes, *(place for _,place in d.texts)]
    ends = [p for points,_ in d.arrows for p in (points[0], points[-1])]
    assert not [p for p in ends if not any(place.has(*p) for place in places)]


@every_diagram
def test_nothing_overlaps_or_leaves_the_picture(name):
    d = DRAWN[name]()
    for b in d.boxes:
        assert 0 <= b.x and b.x+b.w <= d.width and 0 <= b.y and b.y+b.h <= d.height
    for i,(one, p) in enumerate(d.texts):
        for two,q in d.texts[i+1:]:
            apart = p.x+p.w <= q.x or q.x+q.w <= p.x or p.y+p.h <= q.y+2 or q.y+q.h <= p.y+2
            assert apart, (one, two)


def test_the_way_of_a_clip_has_the_shapes_of_to_model():
    xb = torch.zeros(2, 8, 32, 32, 3, dtype=torch.uint8)
    x = TINY.to_model(xb)
    said = words(draw_clip_way(TINY, 5))
    for t in (xb, x):
        shape = ', '.join(map(str, t.shape[1:]))
        assert f'(B, {shape}) {str(t.dtype).split(".")[1]}' in said


def test_the_loop_has_all_events_in_order():
    from vidcls.training.callbacks import EVENTS
    assert tuple(e for _,events,_ in TRAINING for e in events) == EVENTS


def test_views_are_counted_as_the_library_counts():
    from vidcls.view_clips import Views
    assert f'mean of the {len(Views(clips=4, crops=3))} probabilities' in words(draw_views(4, 3))


def test_inflation_has_the_shape_of_a_filter():
    from vidcls.models.inflate import inflate
    flat = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    deep = inflate(flat)
    kernel = next(m.kernel_size for m in deep.modules() if isinstance(m, torch.nn.Conv3d))
    assert f'(out, in, {", ".join(map(str, kernel))})' in words(draw_inflation(3))


def test_videomae_has_the_shapes_of_the_model():
    from vidcls.models.videomae import videomae_tiny
    model = videomae_tiny(5, TINY).eval()
    tokens = model.forward_features(torch.zeros(1, 3, 8, 32, 32))
    said = words(draw_videomae(8, 32, 2, 8, 96, len(model.blocks), 5))
    assert f'(B, {tokens.shape[1]}, {tokens.shape[2]})' in said and f'{len(model.blocks)} × Block' in said
    assert f'(B, {model.forward_head(tokens).shape[1]})' in said
    said = words(draw_tubelets(8, 32, 2, 8, 96))
    assert f'{model.patch_embed.proj.weight[0].numel()} values' in said
    assert f'{tokens.shape[2]} numbers' in said


@pytest.mark.parametrize('ratio', [.5, .75, .9])
def test_masking_has_the_counts_of_the_library(ratio):
    from vidcls.models.masking import tube_mask
    from vidcls.models.videomae_pretrain import videomae_pretrain_tiny
    model = videomae_pretrain_tiny(spec=TINY).eval()
    mask = tube_mask((4,4,4), ratio)
    with torch.no_grad():
        answers = model(torch.zeros(1, 3, 8, 32, 32), mask)
    said = words(draw_masked_autoencoder(8, 32, 2, 8, ratio, 96, 4, 48, 2))
    seen = int((~mask).sum())
    for shape in ((seen, 96), (seen, 48), (64-seen, 48), answers.shape[1:]):
        assert f'(B, {shape[0]}, {shape[1]})' in said


def test_masking_has_the_counts_of_the_paper():
    assert '(B, 160, 768)' in words(draw_masked_autoencoder())


def test_pooling_has_the_shapes_of_the_layer():
    from vidcls.models.mvit import PoolAttention
    layer = PoolAttention(6, 12, 2, (2,8,8), 2, 4)
    x = torch.zeros(1, 1+2*8*8, 6)
    said = words(draw_pooling_attention((2,8,8), 12, 2, 2, 4, 6))
    keys = layer.pool_k(torch.zeros(1, 2, x.shape[1], 6), (2,8,8))
    for t in (x, keys, layer(x)):
        assert f'(B, {", ".join(map(str, t.shape[1:]))})' in said


@pytest.mark.parametrize('side,window', [(8, 4), (4, 2), (8, 2)])
def test_windows_have_the_pieces_of_the_model(side, window):
    from vidcls.models.swin3d import from_windows, window_pieces
    piece = window_pieces((1,side,side), (1,window,window), (0,window//2,window//2))
    real = from_windows(piece[None,...,None], (1,window,window), (1,side,side))[0,0,...,0]
    assert real.max() < len(PIECES)
    assert real.tolist() == [[window_piece(r, c, side, window) for c in range(side)] for r in range(side)]
