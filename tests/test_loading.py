"Caches, shards and loaders: nothing is lost or replaced in silence, and errors name what went wrong."
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset, WeightedRandomSampler

from vidcls.core import (
    ArgumentError,
    ClipSpec,
    DataError,
    LabelError,
    SpecMismatchError,
    VideoReadError,
    WorkerError,
)
from vidcls.data.cache import FrameCache, _read_index
from vidcls.data.datasets import from_folder
from vidcls.data.decode import Video, read_frames
from vidcls.data.loaders import as_clip, as_loader, as_loaders, collate, file_states, loader, loaders
from vidcls.data.synthetic import make_motion_clips

SPEC = ClipSpec(n_frames=4, size=32)
DRAWN = SPEC.with_(sampling='random')
ALONE = {**os.environ, 'OMP_NUM_THREADS': '1', 'VIDCLS_PROGRESS': '0'}
POSIX = pytest.mark.skipif(sys.platform == 'win32', reason='POSIX alone')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_motion_clips(tmp_path_factory.mktemp('clips'), n_groups=6, n_frames=8, size=32)


@pytest.fixture
def own(root, tmp_path):
    "A copy that a test may change."
    shutil.copytree(root, tmp_path/'own')
    return from_folder(tmp_path/'own')


@pytest.mark.parametrize('odd', [
    dict(std=float('nan')), dict(std=0), dict(std=(.2, .2, -1)), dict(mean=None), dict(std=None),
    dict(mean='half'),
    dict(mean=float('inf')), dict(mean=(1, 2)), dict(mean={}), dict(sampling='time', step_s=float('inf')),
    dict(sampling='time', step_s=float('nan')), dict(n_frames=float('nan')), dict(size=True)])
def test_a_spec_that_cannot_be_is_refused_by_name(odd):
    with pytest.raises(ArgumentError, match=f'{list(odd)[-1]}='):
        ClipSpec(**odd)


# ---- the cache

FULL = '''
import resource, sys
from pathlib import Path
from vidcls.data.cache import _Writer
writer = _Writer(Path(sys.argv[1]))
for i in range(80):
    if i == 3:                                         # full within a record of the index
        resource.setrlimit(resource.RLIMIT_FSIZE, (3*36+20, resource.RLIM_INFINITY))
    if i == 5:                                         # somebody made room
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,)*2)
    try: writer.append(i, b'', [b'x'])
    except OSError: print('full')
print(writer.name)
'''


@POSIX
def test_a_disk_that_is_full_within_an_index_record_loses_no_other(tmp_path):
    said = subprocess.run(
        [sys.executable, '-c', FULL, tmp_path], capture_output=True, text=True, env=ALONE, check=True
    ).stdout.split()
    assert said[:-1] == ['full', 'full']
    size = (tmp_path/f'{said[-1]}.data').stat().st_size
    records, sound = _read_index(tmp_path/f'{said[-1]}.index', 0, size)
    assert sound.all() and records['key'].tolist() == [0, 1, 2, *range(5, 80)] and size == 78


NOBODY = '''
import os, sys
from vidcls.core import ClipSpec, VidclsError
from vidcls.data.cache import FrameCache
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader
import simplejpeg, vidcls.show
table, spec = from_folder(sys.argv[1]), ClipSpec(n_frames=4, size=32, sampling='random')
len(list(loader(table, spec, shuffle=True)))            # all modules are there
if os.getuid() == 0: os.setgid(65534); os.setuid(65534)  # nobody: root may write everywhere
try: (open(sys.argv[2] + '/new', 'w'), print('written'))
except PermissionError: pass
made = loader(table, spec, shuffle=True, cache=sys.argv[2])
cache = made.dataset.cache
print(len(cache), sum(cache.get(p) is not None for p in table.paths), sum(len(b.rows) for b in made))
try: loader(table, spec.with_(size=16), shuffle=True, cache=sys.argv[2])
except VidclsError as e: print(e)
'''


@POSIX
def test_a_complete_cache_opens_where_nothing_can_be_written(root):
    with tempfile.TemporaryDirectory() as d:  # pytest's own folders are closed to other users
        os.chmod(d, 0o755)
        shutil.copytree(root, f'{d}/clips')
        table = from_folder(f'{d}/clips')
        FrameCache(f'{d}/cache', DRAWN).build(table, show=False)
        for where, _, files in os.walk(d):
            os.chmod(where, 0o555)
            for f in files:
                os.chmod(f'{where}/{f}', 0o444)
        try:
            done = subprocess.run(
                [sys.executable, '-c', NOBODY, f'{d}/clips', f'{d}/cache'],
                capture_output=True,
                text=True,
                env=ALONE,
            )
        finally:
            for where, *_ in os.walk(d):
                os.chmod(where, 0o755)
    n = len(table)
    assert done.stdout.startswith(f'{n} {n} {n}\n') and 'cannot be written' in done.stdout, (
        done.stdout + done.stderr
    )


def test_data_of_a_cache_that_are_gone_are_read_from_the_files(own, tmp_path):
    want = torch.cat([b.clips for b in loader(own, DRAWN, shuffle=True)])
    cached = loader(own, DRAWN, shuffle=True, cache=tmp_path/'cache', cache_format='raw')
    cached.dataset.cache = FrameCache(tmp_path/'cache', DRAWN, 'raw')  # has read the index, and no data yet
    for f in cached.dataset.cache.folder.glob('*.data'):
        f.unlink()
    with pytest.warns(UserWarning, match='damaged'):
        got = torch.cat([b.clips for b in cached])
    assert torch.equal(got, want)


@POSIX
@pytest.mark.skipif(sys.platform == 'darwin', reason='file names of macOS are UTF-8')
def test_names_that_are_no_utf8_go_through_cache_loader_and_shards(own, tmp_path):
    pytest.importorskip('webdataset')
    from vidcls.data.shards import shard_loader, write_shards
    own.df.loc[0, 'path'] = os.fsdecode(os.fsencode(str(Path(own.df.path[0]).parent)) + b'/caf\xe9 \xff.mp4')
    own.df.loc[1, 'path'] = str(Path(own.df.path[1]).parent/'new\nline, "quote".mp4')
    before = from_folder(own.root)
    for i in (0, 1):
        os.rename(before.paths[i], own.paths[i])
    want = torch.cat([b.clips for b in loader(own, SPEC, threads=2)])
    cached = loader(own, SPEC, cache=tmp_path/'cache', cache_format='raw', workers=1, ram_gb=0)
    assert (
        torch.equal(torch.cat([b.clips for b in cached]), want)
        and cached.dataset.cache.get(own.paths[0]) is not None
    )
    place = write_shards(own, tmp_path/'shards', show=False)
    for split in own.splits:
        rows = torch.from_numpy(np.flatnonzero(own.df.split == split))
        batches = list(shard_loader(place, SPEC, split=split, shuffle=False))
        assert torch.equal(
            torch.cat([b.clips for b in batches]), want[rows][torch.cat([b.rows for b in batches])]
        )


# ---- files that change

@pytest.mark.parametrize('how', [dict(threads=2), dict(workers=1), dict(cache='cache', cache_format='raw')])
def test_another_video_under_the_same_name_is_noticed(own, tmp_path, how):
    if 'cache' in how:
        how = dict(how, cache=tmp_path/'cache')
    made = loader(own, DRAWN, bs=8, shuffle=True, **how)
    assert sum(len(b.rows) for b in made) == len(own)
    shutil.copy(own.paths[9], own.paths[3])                            # a valid video
    with pytest.raises(VideoReadError, match='another file has taken its place') as caught:
        list(made)
    assert own.paths[3].name in str(caught.value)
    skipping = loader(own, DRAWN, bs=8, shuffle=True, on_error='skip', **how)
    list(skipping)
    shutil.copy(own.paths[8], own.paths[3])
    assert [row for b in skipping for row, why in b.failed] == [3]


def test_clips_in_memory_stay_and_it_is_said(own):
    made = loader(own, SPEC)
    want = torch.cat([b.clips for b in made])
    shutil.copy(own.paths[9], own.paths[3])
    with pytest.warns(UserWarning, match=f'{own.paths[3].name}.*those of the old one'):
        got = torch.cat([b.clips for b in made])
    assert torch.equal(got, want)


def test_file_states_tell_replaced_files(own):
    before = file_states(own.paths)
    shutil.copy(own.paths[9], own.paths[3])
    own.paths[5].unlink()
    assert np.flatnonzero((file_states(own.paths) != before).any(1)).tolist() == [3, 5]
    assert file_states([]).shape == (0, 2)


# ---- errors inside loading

class Odd(Dataset):
    "Clips of one level each; some items do what nobody expects."
    classes = ['a', 'b']

    def __init__(self, at=None, error=None, n=12):
        self.at, self.error, self.n, self.targets = at, error, n, [i % 2 for i in range(n)]
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i == self.at:
            raise self.error
        return np.full((4, 32, 32, 3), 20*i, np.uint8), i % 2


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('error',
    [KeyError('boom'), RuntimeError('boom'), RuntimeError('DataLoader boom'), OSError(5, 'boom')])
def test_an_unexpected_error_names_the_clip_and_keeps_its_cause(error, workers):
    with pytest.raises(WorkerError, match='item 7: reading it ended in') as caught:
        list(as_loader(Odd(7, error), SPEC, workers=workers, bs=3))
    assert 'boom' in str(caught.value) and 'crash' not in str(caught.value)
    if not workers:
        assert caught.value.__cause__ is error
    else:
        assert '__getitem__' in str(caught.value)                    # the traceback of the other process


def test_ragged_batches_name_their_shapes():
    clip = lambda *shape: (torch.zeros(*shape, 3, dtype=torch.uint8), 0, 1, None)
    with pytest.raises(DataError, match=r'\(4, 16, 16, 3\), \(4, 32, 32, 3\)'):
        collate([clip(4, 32, 32), clip(4, 16, 16)])


def test_the_same_seed_gives_the_same_clips_for_any_number_of_workers(root):
    table = from_folder(root)
    def clips(seed=3, **kwargs):
        made = loader(table, DRAWN, bs=5, shuffle=True, seed=seed, crop='random', flip=True, **kwargs)
        return torch.cat([b.clips for _ in range(2) for b in made])
    want = clips(threads=1)
    for how in (dict(threads=3), dict(workers=1), dict(workers=3)):
        assert torch.equal(clips(**how), want), how
    assert not torch.equal(clips(seed=4), want)


@POSIX
def test_a_reader_that_is_open_while_workers_are_forked(own, tmp_path):
    table = own
    cache = FrameCache(tmp_path/'cache', DRAWN, 'raw')
    cache.build(table, show=False)
    stored = cache.get(table.paths[0])
    want = torch.cat([b.clips for b in loader(table, DRAWN, shuffle=True)])
    with Video(table.paths[0]) as video:
        first = video.read([0])
        made = loader(table, DRAWN, shuffle=True, workers=2, cache=cache)  # its maps are open here
        assert torch.equal(torch.cat([b.clips for b in made]), want)
        ctx = multiprocessing.get_context('fork')
        ends = [ctx.Process(target=_reads, args=(video, table.paths[0])) for _ in range(2)]
        for p in ends:
            p.start()
        for p in ends:
            p.join(30)
        assert [p.exitcode for p in ends] == [0, 0]
        assert np.array_equal(video.read([0, 5]), read_frames(table.paths[0], [0, 5])) and np.array_equal(
            first, video.read([0])
        )
    assert stored.read([0]).shape[0] == 1


def _reads(video, path):
    for i in (5, 2, 7):
        assert np.array_equal(video.read([i]), read_frames(path, [i]))


MEMORY = '''
import gc, os, sys
from vidcls.core import ClipSpec
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader
spec = ClipSpec(n_frames=4, size=32, sampling='random')
made = loader(from_folder(sys.argv[1]), spec, shuffle=True, threads=2)
memory = lambda: int(open('/proc/self/statm').read().split()[1])*os.sysconf('SC_PAGE_SIZE')
opened = lambda: len(os.listdir('/proc/self/fd'))
def reads(n):
    while n > 0: n -= sum(len(b.rows) for b in made)
    gc.collect()
reads(800)
before = memory(), opened()
reads(int(sys.argv[2]))
print(memory()-before[0], opened()-before[1])
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_and_open_files_stay_the_same_over_thousands_of_reads(root):
    done = subprocess.run(
        [sys.executable, '-c', MEMORY, root, '2500'], capture_output=True, text=True, env=ALONE, check=True
    )
    grown, opened = map(int, done.stdout.split())
    assert grown < 8e6 and opened <= 0                                # a frame a read, 3 KB, would be 8 MB


# ---- shards

@pytest.fixture(scope='module')
def shards(root, tmp_path_factory):
    pytest.importorskip('webdataset')
    from vidcls.data.shards import write_shards
    return write_shards(from_folder(root), tmp_path_factory.mktemp('shards')/'all', show=False)


@POSIX
@pytest.mark.parametrize('name',
    ['pipe:touch ran; cat train-000000.tar #', 'http:', 'train-{000..001}', 'a::b', 'what?', 'file:x', '-',
        'a b%20'])
def test_a_folder_is_a_folder_whatever_it_is_called(shards, tmp_path, monkeypatch, name):
    from vidcls.data.shards import shard_loader, shard_loaders
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shards, name)
    for source in (name, Path(name), f'{name}/'):
        assert sum(len(b.rows) for b in shard_loader(source, SPEC, split='test', bs=4)) == len(
            from_folder_test(shards)
        )
    assert len(next(iter(shard_loaders(name, SPEC, bs=4).train)).rows) == 4
    assert os.listdir('.') == [name]


def from_folder_test(shards):
    import pandas as pd
    df = pd.read_csv(shards/'shards.csv')
    return df[df.split == 'test']


@pytest.mark.parametrize('source',
    ['pipe://touch ran', 'pipe:touch ran', 'data://x', 'nowhere', 'pipe:cat shards'])
def test_webdataset_never_runs_a_name(source, tmp_path, monkeypatch):
    pytest.importorskip('webdataset')
    from vidcls.data.shards import shard_loader
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ArgumentError, DataError), match='accepted: a folder|no shards that vidcls wrote'):
        shard_loader(source, SPEC)
    assert not os.listdir('.')


def changed(place, to, change):
    "A copy whose shards.json is another."
    shutil.copytree(place, to)
    about = json.loads((to/'shards.json').read_text())
    if (said := change(about)) is not None:
        about = said
    (to/'shards.json').write_text(about if isinstance(about, str) else json.dumps(about))
    return to


def first(about): return about['shards']['test'][0]


@pytest.mark.parametrize('change', [
    lambda a: '[]', lambda a: 'null', lambda a: '['*100_000, lambda a: '{"a":'*50_000, lambda a: '"text"',
    lambda a: '', lambda a: '{}',
    lambda a: a.update(labels=3), lambda a: a.update(labels=[1, 2]), lambda a: a.update(labels=[['a']]),
    lambda a: a.update(shards=[]),
    lambda a: a.update(shards={'test': 3}), lambda a: a['shards'].update(test=['x']),
    lambda a: first(a).update(name='../elsewhere.tar'),
    lambda a: first(a).update(name='pipe:touch ran'), lambda a: first(a).update(name=7),
    lambda a: first(a).update(clips='x'),
    lambda a: first(a).update(clips=-1), lambda a: first(a).update(bytes=None),
    lambda a: first(a).update(sha256=None),
    lambda a: a.update(failed=[]), lambda a: a.update(dropped='x'), lambda a: a.update(name=None),
    lambda a: a['shards'].update(odd=[])])
def test_an_odd_manifest_is_a_data_error(shards, tmp_path, change):
    from vidcls.data.shards import shard_loader
    with pytest.raises(DataError, match='no shards that vidcls wrote'):
        shard_loader(changed(shards, tmp_path/'odd', change), SPEC, split='test')


def rewritten(place, to, change):
    "A copy whose first test shard has another JSON beside its first clip."
    def again(about):
        shard = first(about)
        with tarfile.open(place/shard['name']) as old, tarfile.open(to/shard['name'], 'w') as new:
            done = False
            for member in old.getmembers():
                data = old.extractfile(member).read()
                if member.name.endswith('.json') and not done:
                    data, done = change(json.loads(data)), True
                if not isinstance(data, bytes):
                    data = json.dumps(data).encode()
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
        shard['bytes'] = (to/shard['name']).stat().st_size
    return changed(place, to, again)


@pytest.mark.parametrize('change, says', [
    (lambda s: {**s, 'row': -1}, 'row -1'), (lambda s: {**s, 'row': 'x'}, "row 'x'"),
    (lambda s: {**s, 'row': 10**9}, 'row 1000000000'),
    (lambda s: {**s, 'row': True}, 'row True'), (lambda s: {**s, 'row': 1.0}, 'row 1.0'),
    (lambda s: {**s, 'row': None}, 'row None'),
    (lambda s: {**s, 'row': (s['row'] + 1) % 5}, 'another clip in shards.csv'),
    (lambda s: [], 'TypeError'), (lambda s: {}, 'KeyError'),
    (lambda s: b'\xff\xfe', 'copy it again'), (lambda s: b'['*100_000, 'RecursionError'),
    (lambda s: b'', 'copy it again'),
    (lambda s: {**s, 'path': s['path'] + 'x'}, 'another clip in shards.csv')])
def test_an_odd_record_is_a_data_error(shards, tmp_path, change, says):
    from vidcls.data.shards import shard_loader
    with pytest.raises(DataError, match=says) as caught:
        list(shard_loader(rewritten(shards, tmp_path/'odd', change), SPEC, split='test'))
    assert 'test-000000.tar' in str(caught.value)


def test_a_clip_whose_suffix_is_json_or_odd_travels(own, tmp_path):
    pytest.importorskip('webdataset')
    from vidcls.data.shards import shard_loader, write_shards
    want = torch.cat([b.clips for b in loader(own, SPEC)])
    for i, name in enumerate(['clip.json', 'clip.m p4', 'clip.é', 'clip']):
        new = Path(own.df.path[i]).parent/name
        os.rename(own.paths[i], own.root/new)
        own.df.loc[i, 'path'] = str(new)
    own.df['split'] = 'test'
    place = write_shards(own, tmp_path/'shards', show=False)
    b = list(shard_loader(place, SPEC, split='test', bs=100))[0]
    assert len(b.rows) == len(own) and torch.equal(b.clips, want[b.rows])


# ---- habits

@pytest.mark.parametrize('given, says', [
    (dict(batch_size=4), 'say bs='), (dict(num_workers=2), 'say workers='), (dict(worker=2), 'workers='),
    (dict(drop_last=True), 'no clip is left out'),
    (dict(collate_fn=len), 'as_loader'), (dict(pin_memory=True), 'GPU'), (dict(transform=len), 'augment='),
    (dict(nonsense=1), 'accepted: ')])
def test_names_of_other_libraries_get_a_hint(root, given, says):
    table = from_folder(root)
    for f in (loaders, loader):
        with pytest.raises(ArgumentError, match=says) as caught:
            f(table, SPEC, **given)
        assert list(given)[0] in str(caught.value)


def test_a_folder_a_csv_and_a_model_will_do(root, own, tmp_path):
    want = torch.cat([b.clips for b in loaders(from_folder(root), SPEC).test])
    assert torch.equal(torch.cat([b.clips for b in loaders(str(root), SPEC).test]), want)
    class Model:
        spec = SPEC
    assert torch.equal(torch.cat([b.clips for b in loaders(root, Model()).test]), want)
    with pytest.raises(ArgumentError, match='model.spec'):
        loaders(root)
    with pytest.raises(ArgumentError, match='accepted: a ClipTable'):
        loaders([1, 2], SPEC)


def test_a_data_frame_will_do(root):
    from vidcls.data import datasets
    table = from_folder(root)
    df = table.df.assign(path=[str(p) for p in table.paths])
    if not hasattr(datasets, 'from_df'):
        pytest.skip('from_df is not there yet')
    assert sum(len(b.rows) for b in loaders(df, SPEC).test) == len(table.select_split('test'))


def test_the_test_split_is_read_from_its_files(own, tmp_path):
    files = loaders(own, DRAWN)
    assert files.test.cache_format is None and files.test.lossless
    cached = loaders(own, DRAWN, cache=tmp_path/'cache')
    assert (cached.train.cache_format, cached.train.lossless, cached.valid.cache_format) == (
        'jpeg',
        False,
        'jpeg',
    )
    assert cached.test.cache_format is None and cached.test.lossless
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(files.test, cached.test, strict=True))
    asked = loaders(own, DRAWN, cache=tmp_path/'cache', cache_test=True)
    assert asked.test.cache_format == 'jpeg' and not asked.test.lossless
    raw = loaders(own, DRAWN, cache=tmp_path/'raw', cache_format='raw', cache_test=True)
    assert raw.test.lossless and all(
        torch.equal(a.clips, b.clips) for a, b in zip(files.test, raw.test, strict=True)
    )
    assert not loader(own, DRAWN, cache=FrameCache(tmp_path/'raw', DRAWN, 'raw', short=40)).lossless


# ---- Datasets of one's own

CLIP = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('given, normalised', [
    (CLIP, False), (CLIP.numpy(), False), (CLIP.permute(0, 3, 1, 2), False),
    (CLIP.permute(3, 0, 1, 2), False), (CLIP/255, False),
    ((CLIP/255).permute(3, 0, 1, 2).half().float(), False), ((CLIP/255).double().numpy(), False),
    ((CLIP/255-torch.tensor(SPEC.mean))/torch.tensor(SPEC.std), True), (SPEC.to_model(CLIP[None])[0], True)])
def test_clips_of_all_layouts_and_ranges_become_the_same(given, normalised):
    assert torch.equal(as_clip(given, SPEC, normalised), CLIP)


def test_blue_first_is_undone_as_to_model_does_it():
    spec = SPEC.with_(channels='BGR')
    assert torch.equal(as_clip(spec.to_model(CLIP[None])[0], spec, True), CLIP)


@pytest.mark.parametrize('given, normalised, says', [
    (CLIP.float(), False, 'give uint8 for 0..255'),
    (SPEC.to_model(CLIP[None])[0], False, 'say normalised=True'), (CLIP.int(), False, 'int32'),
    (CLIP, True, 'uint8, and normalised=True'), (5*SPEC.to_model(CLIP[None])[0], True, 'other numbers'),
    (CLIP[:3], False, r'\(3, 32, 32, 3\)'),
    (CLIP[0], False, r'\(32, 32, 3\)'), (CLIP[..., :1], False, 'expects'),
    (CLIP/255*float('nan'), False, 'nan')])
def test_what_is_no_clip_of_the_spec_is_refused(given, normalised, says):
    with pytest.raises(SpecMismatchError, match=says):
        as_clip(given, SPEC, normalised)


def test_three_frames_channels_first_are_not_guessed():
    spec = SPEC.with_(n_frames=3)
    with pytest.raises(SpecMismatchError, match='can be read as'):
        as_clip(np.zeros((3, 3, 32, 32), np.uint8), spec)
    assert as_clip(np.zeros((3, 32, 32, 3), np.uint8), spec).shape == (3, 32, 32, 3)


class Dicts(Odd):
    def __getitem__(self, i): return dict(zip(('pixel_values', 'labels'), super().__getitem__(i)))


class Names(Odd):
    targets = None
    def __init__(self):
        super().__init__()
        del self.targets
    def __getitem__(self, i): return super().__getitem__(i)[0], 'audio', 'ab'[i % 2]


def own_collate(items):
    return torch.stack([torch.as_tensor(x) for x, _ in items]), torch.tensor([y for _, y in items])


@pytest.mark.parametrize('data', [
    Odd(), Dicts(), Names(), DataLoader(Odd(), batch_size=5),
    DataLoader(Odd(), batch_size=5, shuffle=True), DataLoader(Dicts(), num_workers=1),
    DataLoader(Odd(), batch_size=4, collate_fn=own_collate),
    [(np.full((4, 32, 32, 3), 20*i, np.uint8), i % 2) for i in range(12)],
    TensorDataset(torch.stack([torch.full((4, 32, 32, 3), 20*i, dtype=torch.uint8) for i in range(12)]),
        torch.arange(12) % 2)])
def test_datasets_and_loaders_of_ones_own(data):
    made = as_loader(data, SPEC, labels=['a', 'b'])
    batches = list(made)
    rows = torch.cat([b.rows for b in batches])
    assert sorted(rows.tolist()) == list(range(12)) and made.batch_size == getattr(data, 'batch_size', 16)
    for b in batches:
        assert (
            (b.clips == (20 * b.rows).view(-1, 1, 1, 1, 1)).all()
            and torch.equal(b.labels, b.rows % 2)
            and b.clips.dtype == torch.uint8
        )


def test_own_orders_are_kept_and_drawn_from_the_seed():
    sampler = WeightedRandomSampler([0.]*6 + [1.]*6, 20)
    made = as_loader(DataLoader(Odd(), batch_size=5, sampler=sampler), SPEC)
    first, second = ([r for b in made for r in b.rows.tolist()] for _ in range(2))
    assert len(first) == 20 and min(first + second) >= 6 and first != second
    again = as_loader(DataLoader(Odd(), batch_size=5, sampler=sampler), SPEC)
    assert [r for b in again for r in b.rows.tolist()] == first
    twice = as_loader(DataLoader(Odd(), sampler=RandomSampler(Odd(), replacement=True, num_samples=9)), SPEC)
    assert sum(len(b.rows) for b in twice) == 9


def test_a_part_of_a_dataset_keeps_classes_and_targets():
    b = next(iter(as_loader(Subset(Odd(), [3, 4, 9]), SPEC)))
    assert b.labels.tolist() == [1, 0, 1] and b.rows.tolist() == [0, 1, 2] and b.clips[2, 0, 0, 0, 0] == 180


@pytest.mark.parametrize('label, error, says', [
    (2, LabelError, 'item 1 has label 2'), (-1, LabelError, 'label -1'), (.5, DataError, 'regression'),
    ('c', LabelError, "label 'c'"),
    (torch.tensor([0., 1.]), DataError, '2 labels; one class each'),
    (None, DataError, 'accepted: a class number')])
def test_labels_that_are_no_class_are_refused(label, error, says):
    clip = np.zeros((4, 32, 32, 3), np.uint8)
    with pytest.raises(error, match=says):
        as_loader([(clip, 0), (clip, label)], SPEC, labels=['a', 'b'])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self): yield 0


@pytest.mark.parametrize('data, error, says', [
    (Stream(), ArgumentError, 'A stream'), (DataLoader(Stream()), ArgumentError, 'A stream'),
    (3, ArgumentError, 'data is a int'), ([], DataError, 'empty'),
    (DataLoader(Odd(), batch_sampler=[[0, 1], [2]]), ArgumentError, 'give its Dataset'),
    ([(1, 2)], ArgumentError, 'labels is missing')])
def test_what_cannot_be_a_loader_says_why(data, error, says):
    with pytest.raises(error, match=says):
        as_loader(data, SPEC)


def test_targets_that_are_not_the_items_are_noticed():
    with pytest.raises(DataError, match="item 0 has label 'a', but its target is 'b'"):
        list(as_loader(Odd(), SPEC, targets=[1]*12))


def test_a_model_trains_and_is_judged_on_a_dataset_of_ones_own():
    from vidcls.evaluate import evaluate
    from vidcls.models.zoo import create_model
    from vidcls.train import fit
    model = create_model('videomae_tiny', n_classes=2, dim=24, depth=1, heads=2)
    spec = model.spec
    def items(n, seed):
        rng = np.random.default_rng(seed)
        return [
            (
                rng.integers(
                    100 * (i % 2), 100 * (i % 2) + 100, (spec.n_frames, spec.size, spec.size, 3)
                ).astype(np.uint8),
                i % 2,
            )
            for i in range(n)
        ]
    dls = as_loaders(spec, items(16, 0), items(8, 1), items(8, 2), labels=['dark', 'bright'], bs=8)
    history = fit(model, dls, epochs=2, show=False)
    record = evaluate(model, dls.test, show=False)
    assert (
        len(history) == 2
        and record.n_evaluated == 8
        and record.split == 'test'
        and list(record.labels) == ['dark', 'bright']
    )
    assert dls.one_batch().clips.shape[0] == 8
