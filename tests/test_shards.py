"Shards under fit, two processes, a web server, and clips that can't be decoded."
import functools, http.server, json, shutil, threading

import numpy as np
import pytest
import torch

from processes import linux, run_script
from vidcls.core import ArgumentError, ClipSpec, DataError
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader
from vidcls.data.shards import shard_loader, shard_loaders, write_shards
from vidcls.data.synthetic import make_motion_clips
from vidcls.evaluate import Views, evaluate, predict_views, show_predictions
from vidcls.models.zoo import create_model
from vidcls.train import fit

webdataset = pytest.importorskip('webdataset')
SPEC = ClipSpec(n_frames=4, size=32, sampling='random')

SCRIPT = """
import sys, torch
from accelerate import PartialState
from vidcls.core import seed_everything
from vidcls.data.shards import shard_loaders
from vidcls.evaluate import evaluate
from vidcls.models.zoo import create_model
from vidcls.train import fit
seed_everything(0)
model = create_model('videomae_tiny', n_classes=8)
dls = shard_loaders(sys.argv[1], model.spec, bs=8)
seen = []
class Spy:
    def __call__(self, xb, yb, gen): seen.append(len(yb)); return xb, yb
hist = fit(model, dls, epochs=2, augment=Spy())
state = PartialState()
rows = sorted(r for b in dls.train for r in b.rows.tolist())
rec = evaluate(model, dls.test, show=False)
weights = torch.cat([p.detach().flatten() for p in model.parameters()])
found = dict(seen=seen, rows=rows, weights=weights, valid=hist['valid_loss'], steps=len(dls.train),
             judged=rec.clips.path.tolist(), top1=rec.video_top1)
torch.save(found, f'{sys.argv[2]}.{state.process_index}')
"""


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('shards')
    table = from_folder(make_motion_clips(root/'clips', n_groups=12, n_frames=8, size=32))
    return table, write_shards(table, root/'tars', shard_mb=.02, show=False)


def test_fit_and_evaluate(made):
    table, place = made
    model = create_model('videomae_tiny', n_classes=8)
    dls = shard_loaders(place, model.spec, bs=16)
    hist = fit(model, dls, epochs=1, accum=2, show=False)
    rec = evaluate(model, dls.test, show=False)
    assert (rec.n_evaluated, rec.n_expected, rec.dataset) == (
        len(table.select_split('test')),
        len(table.select_split('test')),
        table.name,
    )
    assert (
        sorted(rec.clips.path) == sorted(table.select_split('test').df.path)
        and np.isfinite(hist['train_loss']).all()
    )
    assert len(dls.one_batch().clips) == 16

def test_views_of_clips_in_shards_are_those_of_files(made):
    table, place = made
    model = create_model('videomae_tiny', n_classes=8, dim=24, depth=1, heads=2)
    streamed = shard_loaders(place, model.spec, bs=16).test
    a, b = (
        predict_views(model, dl, Views(clips=2), show=False)
        for dl in (streamed, loader(table.select_split('test'), model.spec))
    )
    assert np.array_equal(a[1], b[1]) and np.allclose(a[0], b[0], atol=1e-5)
    rec = evaluate(model, streamed, show=False)
    with pytest.raises(ArgumentError, match='stream of shards'):
        show_predictions(rec, streamed)
    with pytest.raises(ArgumentError, match='hands out each clip once'):
        evaluate(model, shard_loaders(place, model.spec, bs=16).train)


@pytest.mark.slow
@linux
def test_two_processes(tmp_path, made):
    table, place = made
    run_script(tmp_path/'train.py', SCRIPT, place, tmp_path/'out', check=True)
    a, b = (torch.load(tmp_path/f'out.{i}', weights_only=True) for i in (0,1))
    n = len(table.select_split('train'))
    # the same number of steps: nobody waits for ever
    assert a['steps'] == b['steps'] == n//16 and a['seen'] == b['seen'] == [8]*2*(n//16)
    # gradients and validation were shared
    assert torch.equal(a['weights'], b['weights']) and a['valid'] == b['valid']
    # each once, in the table's order
    assert a['top1'] == b['top1']
    assert a['judged'] == b['judged'] == table.select_split('test').df.path.tolist()
    mine, yours = set(a['rows']), set(b['rows'])
    assert not mine & yours and len(mine | yours) > .8*n  # no clip in both


def test_over_http(made):
    table, place = made
    if not shutil.which('curl'):
        pytest.skip('webdataset reads addresses with curl, which is not installed')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(place))
    handler.log_message = lambda *a: None
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f'http://127.0.0.1:{server.server_port}'
        far = [b for b in shard_loader(url, SPEC, bs=8, split='test')]
        near = [b for b in shard_loader(place, SPEC, bs=8, split='test')]
        assert all(
            torch.equal(a.clips, b.clips) and torch.equal(a.rows, b.rows)
            for a, b in zip(far, near, strict=True)
        )
        with pytest.raises(DataError, match='no shards'):
            shard_loader(url + '/elsewhere', SPEC)
    finally:
        server.shutdown()


def test_a_clip_that_cannot_be_decoded(tmp_path, made):
    table, _ = made
    shutil.copytree(table.root, tmp_path/'clips')
    sick = from_folder(tmp_path/'clips')
    path = sick.select_split('test').paths[0]
    raw = bytearray(path.read_bytes())
    at = raw.find(b'mdat')
    end = at-4 + int.from_bytes(raw[at-4:at], 'big')
    raw[at+900:end] = bytes(end-at-900)
    path.write_bytes(raw)                                 # opens, and doesn't decode
    with pytest.raises(Exception, match=path.name):
        write_shards(sick, tmp_path/'tars', show=False)
    place = write_shards(sick, tmp_path/'skipped', on_error='skip', show=False)
    batches = list(shard_loader(place, ClipSpec(n_frames=8, size=32), split='test'))
    assert sum(len(b.rows) for b in batches) == len(sick.select_split('test'))-1


def test_too_few_shards_for_the_processes(tmp_path, made, monkeypatch):
    table, _ = made
    place = write_shards(table, tmp_path/'one', show=False)
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(DataError, match='1 shards for 2 processes'):
        shard_loader(place, SPEC, bs=4)
    with pytest.raises(DataError, match='make no batch'):
        shard_loader(made[1], SPEC, bs=64)


def test_manifest_counts_what_was_left_out(tmp_path, made):
    table, _ = made
    shutil.copytree(table.root, tmp_path/'clips')
    sick = from_folder(tmp_path/'clips')
    sick.paths[2].write_bytes(b'')
    about = json.loads(
        (write_shards(sick, tmp_path / 't', on_error='skip', show=False) / 'shards.json').read_text()
    )
    assert (
        list(about['failed']) == [sick.df.path[2]]
        and sum(x['clips'] for s in about['shards'].values() for x in s) == len(sick) - 1
    )
