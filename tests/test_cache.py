"The frame cache under kills, several processes, full disks, replaced files: it serves right frames or none."
import errno, os, random, signal, subprocess, sys, time, warnings

import numpy as np
import pytest

from vidcls.core import ClipSpec, VidclsError
from vidcls.data.cache import CACHE_FORMATS, FrameCache
from vidcls.data.datasets import from_folder
from vidcls.data.decode import Video, read_frames, resize_short
from vidcls.data.synthetic import make_motion_clips

# all frames: entries of 2 MB, so that kills hit their middle
SPEC = ClipSpec(n_frames=16, size=160, sampling='random')
SCRIPT = """
import resource, signal, sys
from vidcls.core import ClipSpec
from vidcls.data.cache import FrameCache
from vidcls.data.datasets import from_folder
print('ready', flush=True)
if len(sys.argv) > 3:                            # the kernel kills it where a file reaches this size
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),)*2)
cache = FrameCache(sys.argv[2], ClipSpec(n_frames=16, size=160, sampling='random'), 'raw')
cache.build(from_folder(sys.argv[1]), threads=2, show=False)
print('done', flush=True)
"""


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    return from_folder(make_motion_clips(tmp_path_factory.mktemp('clips'), n_groups=8, n_frames=30, size=64))


@pytest.fixture(scope='module')
def truth(table):
    found = {}
    for p in table.paths:
        with Video(p) as v:
            found[p] = np.stack([resize_short(f, 160) for f in v.frames()])
    return found


def start(table, folder, *limit):
    p = subprocess.Popen(
        [sys.executable, '-c', SCRIPT, str(table.paths[0].parents[1]), str(folder), *map(str, limit)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert p.stdout.readline() == 'ready\n'
    return p


def served(cache, table, truth):
    "How many clips the cache serves; each of them must be right to the bit."
    n = 0
    for p in table.paths:
        if (clip := cache.get(p)) is None:
            continue
        assert np.array_equal(clip.read(range(clip.n_frames)), truth[p]), p
        n += 1
    return n


def test_ten_kills(tmp_path, table, truth):
    "Five kills at a random byte of an entry, then five at a random time."
    rng, counts, torn = random.Random(0), [], []
    for i in range(10):
        if i < 5:
            assert start(table, tmp_path, rng.randrange(10_000, 5_000_000)).wait(60) == -signal.SIGXFSZ
        else:
            p = start(table, tmp_path)
            time.sleep(rng.uniform(.02, .25))
            os.kill(p.pid, signal.SIGKILL)
            p.wait()
        cache = FrameCache(tmp_path, SPEC, 'raw')
        counts.append(served(cache, table, truth))
        # bytes of entries half written
        torn.append(cache.nbytes - sum(int(r['size'].sum()) for r,_ in cache._known.values()))
    assert counts == sorted(counts) and counts[-1] > counts[0]  # nothing that was stored is lost again
    assert 0 < torn[0] < torn[1] < torn[2] < torn[3] < torn[4]                     # each of the five met one
    FrameCache(tmp_path, SPEC, 'raw').build(table, show=False)
    assert served(FrameCache(tmp_path, SPEC, 'raw'), table, truth) == len(table)


def test_two_processes_build_one_cache(tmp_path, table, truth):
    both = [start(table, tmp_path) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    assert served(FrameCache(tmp_path, SPEC, 'raw'), table, truth) == len(table)


def test_launched_processes_share_the_work(tmp_path, table, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    reports = []
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        reports.append(FrameCache(tmp_path/rank, SPEC.with_(size=32)).build(table, show=False).built)
    assert sum(reports) == len(table) and abs(reports[0]-reports[1]) <= 1


def test_any_damage_is_seen(tmp_path, table, truth):
    cache = FrameCache(tmp_path, SPEC, 'raw')
    cache.build(table.select_classes(['up', 'down']), show=False)
    data = next(f for f in cache.folder.glob('*.data'))
    whole = data.read_bytes()
    rng = random.Random(0)
    for _ in range(5):
        at = rng.randrange(len(whole))
        data.write_bytes(whole[:at] + bytes([whole[at]^1]) + whole[at+1:])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            assert served(FrameCache(tmp_path, SPEC, 'raw'), table, truth) == 15
        assert 'is damaged' in str(said[-1].message)
    data.write_bytes(whole[:len(whole)//2])                                        # as after a power cut
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert 0 < served(FrameCache(tmp_path, SPEC, 'raw'), table, truth) < 16


def test_a_full_disk(tmp_path, table, truth, monkeypatch):
    import vidcls.data.cache as module
    real, left = module._write_all, [3_000_000]
    def write(file, data):
        left[0] -= len(data)
        if left[0] < 0:
            file.write(data[:100])
            raise OSError(errno.ENOSPC, 'No space left on device')
        real(file, data)
    cache = FrameCache(tmp_path, SPEC, 'raw')
    monkeypatch.setattr(module, '_write_all', write)
    with pytest.raises(VidclsError, match='No space left'):
        cache.build(table, threads=1, show=False)
    monkeypatch.undo()
    assert served(FrameCache(tmp_path, SPEC, 'raw'), table, truth) == 1
    assert cache.nbytes == sum(
        int(r['size'].sum()) for r, _ in FrameCache(tmp_path, SPEC, 'raw')._known.values()
    )


def test_a_fork_writes_its_own_files(tmp_path, table):
    import multiprocessing as mp
    spec = SPEC.with_(size=32)
    cache = FrameCache(tmp_path, spec, 'raw')
    assert cache.put(table.paths[0])
    p = mp.get_context('fork').Process(target=cache.put, args=(table.paths[1],))
    p.start()
    p.join()
    cache.refresh()
    assert len(cache) == 2 and len(list(cache.folder.glob('*.data'))) == 2


@pytest.mark.parametrize('format', CACHE_FORMATS)
def test_real_clips(tmp_path, real_data, format):
    paths = sorted(real_data.glob('single/*.mp4'))[:3] + sorted(real_data.glob('single/*.avi'))[:2]
    cache = FrameCache(tmp_path, ClipSpec(n_frames=8, size=112, sampling='random'), format)
    for p in paths:
        assert cache.put(p)
    cache.refresh()
    for p in paths:
        clip = cache.get(p)
        idxs = np.linspace(0, clip.n_frames-1, 8).astype(int)
        want, got = read_frames(p, idxs, size=112), clip.read(idxs)
        h, w = got.shape[1:3]
        assert abs(h-want.shape[1]) < 2 and abs(w-want.shape[2]) < 2
        if format == 'raw':
            assert np.array_equal(got, want)
        mse = ((got.astype(float) - want[:,:h,:w])**2).mean()
        assert 10*np.log10(255**2/max(mse, 1e-9)) > 30, (p, mse)
