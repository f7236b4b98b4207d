"Small things at which people stumble: each is said, with the way out."
import importlib, inspect, pkgutil, shutil, subprocess, sys

import cv2
import numpy as np
import pytest

import vidcls
from vidcls.core import DataError, VideoReadError
from vidcls.data.cache import FrameCache
from vidcls.data.datasets import as_table, find_videos, frames_to_videos, from_folder
from vidcls.data.doctor import examine
from vidcls.data.shards import read_manifest, write_shards
from vidcls.data.synthetic import make_motion_clips
from vidcls.evaluate import Views, load_views
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.show import write_video

MODULES = [m.name for m in pkgutil.walk_packages(vidcls.__path__, 'vidcls.') if not m.ispkg and not m.name.endswith('_modidx')]


def made_with(f):
    "The parameters of a function or a class; none where it takes whatever an exception takes."
    try: return [p for p in inspect.signature(f).parameters if p not in ('self', 'cls')]
    except ValueError: return []


@pytest.mark.parametrize('name', MODULES)
def test_help_of_every_public_name_shows_its_parameters(name):
    module = importlib.import_module(name)
    commands = {c.callback for t in (module.app, module.bench) for c in t.registered_commands} if name == 'vidcls.cli' else ()
    own = [f for n in module.__all__ if (inspect.isroutine(f := getattr(module, n)) or inspect.isclass(f)) and f.__module__ == name]
    lacking = [f.__qualname__ for f in own if f not in commands and made_with(f) and 'Parameters\n---' not in f.__doc__]
    assert not lacking
    for f in own:
        if inspect.isclass(f): assert f.__doc__.count('Parameters\n---') <= 1, f


def test_help_of_what_is_inherited_or_named():
    from vidcls.augment import Flip
    from vidcls.data.loaders import Batch
    from vidcls.data.shards import ShardLoaders
    assert 'p : float, default 0.5\n    Probability' in Flip.__doc__
    assert 'labels : torch.Tensor\n    int64 (B,)' in Batch.__doc__
    assert 'table : ClipTable\n    The clips' in ShardLoaders.__doc__                    # its base is in another module
    assert all('device : str | None, default None\n    ' in f.__doc__ for f in (Classifier.load, Classifier.from_pretrained))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with clips in two classes, the shards of them, and a classifier that has learned nothing."
    pytest.importorskip('webdataset')
    root = tmp_path_factory.mktemp('place')
    table = from_folder(make_motion_clips(root/'clips', n_groups=10, n_frames=4, size=16))
    write_shards(table, root/'shards', show=False)
    Classifier(create_model('videomae_tiny', n_classes=table.n_classes, n_frames=4, size=16), table.labels).save(root/'classifier')
    return root


def vidcls_says(*args, cwd):
    "What a command that fails as it should says, in one line."
    r = subprocess.run([sys.executable, '-c', 'from vidcls.cli import main; main()', *map(str, args)],
                       cwd=cwd, capture_output=True, text=True, timeout=300)
    assert r.returncode == 2 and 'Traceback' not in r.stderr, r.stderr
    return r.stderr.strip().splitlines()[-1]


def picture(path):
    try: assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    except (AssertionError, cv2.error): pytest.skip(f"OpenCV writes no {path.suffix} here")
    return path


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp', 'tiff', 'avif'])
@pytest.mark.parametrize('named', ['', 'photo.mp4'])
def test_a_picture_is_no_video(place, tmp_path, suffix, named):
    path = picture(tmp_path/f'p.{suffix}')
    if named: path = path.rename(tmp_path/named)
    clf = Classifier.load(place/'classifier')
    for given in (path, path.read_bytes()):
        with pytest.raises(VideoReadError, match='is one picture, not a video; .*frames_to_videos'): clf.predict(given)
    with pytest.raises(VideoReadError, match='one picture'): load_views(path, clf.spec, Views())
    with pytest.raises(VideoReadError, match='one picture'): FrameCache(tmp_path/'cache', clf.spec).put(path)
    assert 'is one picture' in examine(path)['fault']                                          # the doctor finds it


def test_pictures_in_other_places(place, tmp_path):
    said = vidcls_says('predict', 'classifier', picture(tmp_path/'p.png'), cwd=place)
    assert 'p.png: is one picture, not a video' in said
    for c in ('a', 'b'):
        shutil.copytree(place/'clips'/'up', tmp_path/'set'/c)
        shutil.copy(tmp_path/'p.png', tmp_path/'set'/c/'photo.mp4')
    table = from_folder(tmp_path/'set')
    with pytest.raises(VideoReadError, match='one picture'): write_shards(table, tmp_path/'sh', show=False)
    write_shards(table, tmp_path/'sh2', on_error='skip', show=False)
    assert sum('one picture' in why for why in read_manifest(tmp_path/'sh2')[0]['failed'].values()) == 2


def test_what_looks_like_a_picture_and_is_none(place, tmp_path):
    clf, frames = Classifier.load(place/'classifier'), np.zeros((4, 32, 32, 3), np.uint8)
    one = write_video(tmp_path/'one.mp4', frames[:1])                                       # a video of one frame
    for given in (one, frames, list(frames)): assert len(clf.predict(given, top_k=3)) == 3
    for i, f in enumerate(frames): cv2.imwrite(str(picture_folder(tmp_path)/f'{i}.png'), f)
    frames_to_videos(tmp_path/'frames', tmp_path/'videos')
    assert clf.predict(find_videos(tmp_path/'videos').paths)


def picture_folder(root):
    (root/'frames'/'up'/'one').mkdir(parents=True, exist_ok=True)
    return root/'frames'/'up'/'one'


def test_shards_are_called_shards(place, tmp_path):
    for args in (('evaluate', 'classifier', 'shards'), ('predict', 'classifier', 'shards'), ('doctor', 'shards', '--out', tmp_path/'d'),
                 ('shard', 'shards', tmp_path/'s')):
        said = vidcls_says(*args, cwd=place)
        assert said.startswith('vidcls: shards: these are shards. `vidcls train shards`') and 'folder or CSV file' in said
    for name in ('shards.json', 'shards.csv', 'train-000000.tar'):
        with pytest.raises(DataError, match='is a part of shards. `vidcls train .*shards`'): as_table(place/'shards'/name)
    with pytest.raises(VideoReadError, match='an archive.*unpack'): Classifier.load(place/'classifier').predict(place/'shards/train-000000.tar')
    shutil.copytree(place/'shards', tmp_path/'half', ignore=shutil.ignore_patterns('shards.*'))
    for read in (from_folder, find_videos):
        with pytest.raises(DataError, match='these are shards. shards.json and shards.csv are missing'): read(tmp_path/'half')
    table = from_folder(place/'clips').save(tmp_path/'own.csv')                             # a list beside shards is still one
    shutil.copy(place/'shards/shards.json', tmp_path)
    assert len(as_table(table)) == 80


def test_a_misspelt_model_in_the_words_of_the_command_line(place):
    said = vidcls_says('train', 'clips', '--model', 'videomae_tinny', '--out', 'no', cwd=place)
    assert said.startswith("vidcls: --model videomae_tinny. Did you mean 'videomae_tiny'?")
    assert vidcls_says('benchmark', 'views', 'clips', '--model', 'i4d', cwd=place).startswith('vidcls: --model i4d')
    for command in ('step', 'inference'):
        assert vidcls_says('benchmark', command, 'i4d', cwd=place).startswith('vidcls: MODEL i4d; accepted:')
    assert vidcls_says('download', 'ucf102', 'folder', cwd=place).startswith('vidcls: NAME ucf102; accepted:')
    said = vidcls_says('train', 'clips', '--model', 'transformers', '--out', 'no', cwd=place)
    assert '--pretrained a folder' in said and '=' not in said
    said = vidcls_says('train', 'clips', '--model', 'i3d', '--pretrained', 'classifier', '--out', 'no', cwd=place)
    assert "holds a classifier of the model 'videomae_tiny', not of --model i3d; give --model videomae_tiny" in said
