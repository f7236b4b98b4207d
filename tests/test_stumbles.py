"Small things at which people stumble: each is said, with the way out."
import importlib, inspect, pkgutil, shutil, subprocess, sys, warnings

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import vidcls
from vidcls.cli import app, main
from vidcls.clip_map import unit_vectors
from vidcls.commands.embed import say_not_read
from vidcls.commands.options import callbacks, in_words
from vidcls.core import DataError, VidclsError, VideoReadError
from vidcls.data.cache import FrameCache
from vidcls.data.datasets import (
    TableWarning,
    as_table,
    find_videos,
    frames_to_videos,
    from_csv,
    from_df,
    from_folder,
)
from vidcls.data.doctor import examine
from vidcls.data.loaders import loaders
from vidcls.data.shards import read_manifest, write_shards
from vidcls.data.synthetic import make_motion_clips
from vidcls.evaluate import Views, load_views
from vidcls.explore import explore
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.show import write_video

VIDCLS = [sys.executable, '-c', 'from vidcls.cli import main; main()']
MODULES = [
    m.name
    for m in pkgutil.walk_packages(vidcls.__path__, 'vidcls.')
    if not m.ispkg and not m.name.endswith('_modidx')
]


def made_with(f):
    "The parameters of a function or a class; none where it takes whatever an exception takes."
    if hasattr(f, 'model_json_schema'):                       # forms of pydantic say it field by field
        return []
    try:
        return [p for p in inspect.signature(f).parameters if p not in ('self', 'cls')]
    except ValueError:
        return []


@pytest.mark.parametrize('name', MODULES)
def test_help_of_every_public_name_shows_its_parameters(name):
    module = importlib.import_module(name)
    commands = set(callbacks())
    own = [
        f
        for n in module.__all__
        if (inspect.isroutine(f := getattr(module, n)) or inspect.isclass(f)) and f.__module__ == name
    ]
    lacking = [
        f.__qualname__
        for f in own
        if f not in commands and made_with(f) and 'Parameters\n---' not in f.__doc__
    ]
    assert not lacking
    for f in own:
        if inspect.isclass(f):
            assert f.__doc__.count('Parameters\n---') <= 1, f


def test_help_of_what_is_inherited_or_named():
    from vidcls.augment import Flip
    from vidcls.data.loaders import Batch
    from vidcls.data.shards import ShardLoaders
    assert 'p : float, default 0.5\n    Probability' in Flip.__doc__
    assert 'labels : torch.Tensor\n    int64 (B,)' in Batch.__doc__
    assert 'table : ClipTable\n    The clips' in ShardLoaders.__doc__  # its base is in another module
    assert all(
        'device : str | None, default None\n    ' in f.__doc__
        for f in (Classifier.load, Classifier.from_pretrained)
    )


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with clips in two classes, the shards of them, and a classifier that has learned nothing."
    pytest.importorskip('webdataset')
    root = tmp_path_factory.mktemp('place')
    table = from_folder(make_motion_clips(root/'clips', n_groups=10, n_frames=4, size=16))
    write_shards(table, root/'shards', show=False)
    Classifier(
        create_model('videomae_tiny', n_classes=table.n_classes, n_frames=4, size=16), table.labels
    ).save(root / 'classifier')
    return root


def vidcls_says(*args, cwd):
    "What a command that fails as it should says, in one line; in a process of its own, as it is typed."
    r = subprocess.run([*VIDCLS, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert r.returncode == 2 and 'Traceback' not in r.stderr, r.stderr
    return r.stderr.strip().splitlines()[-1]


def said_by(*args):
    "The same within this process, which is quicker."
    r = CliRunner().invoke(app, [*map(str, args)])
    assert isinstance(r.exception, VidclsError), r.output
    return in_words(r.exception)


def picture(path):
    try:
        assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    except (AssertionError, cv2.error):
        pytest.skip(f"OpenCV writes no {path.suffix} here")
    return path


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp', 'tiff', 'avif'])
@pytest.mark.parametrize('named', ['', 'photo.mp4'])
def test_a_picture_is_no_video(place, tmp_path, suffix, named):
    path = picture(tmp_path/f'p.{suffix}')
    if named:
        path = path.rename(tmp_path/named)
    clf = Classifier.load(place/'classifier')
    for given in (path, path.read_bytes()):
        with pytest.raises(VideoReadError, match='is one picture, not a video; .*frames_to_videos'):
            clf.predict(given)
    with pytest.raises(VideoReadError, match='one picture'):
        load_views(path, clf.spec, Views())
    with pytest.raises(VideoReadError, match='one picture'):
        FrameCache(tmp_path/'cache', clf.spec).put(path)
    assert 'is one picture' in examine(path)['fault']  # the doctor finds it


def test_pictures_in_other_places(place, tmp_path):
    said = vidcls_says('predict', 'classifier', picture(tmp_path/'p.png'), cwd=place)
    assert 'p.png: is one picture, not a video' in said
    for c in ('a', 'b'):
        shutil.copytree(place/'clips'/'up', tmp_path/'set'/c)
        shutil.copy(tmp_path/'p.png', tmp_path/'set'/c/'photo.mp4')
    table = from_folder(tmp_path/'set')
    with pytest.raises(VideoReadError, match='one picture'):
        write_shards(table, tmp_path/'sh', show=False)
    write_shards(table, tmp_path/'sh2', on_error='skip', show=False)
    assert sum('one picture' in why for why in read_manifest(tmp_path/'sh2')[0]['failed'].values()) == 2


def test_what_looks_like_a_picture_and_is_none(place, tmp_path):
    clf, frames = Classifier.load(place/'classifier'), np.zeros((4, 32, 32, 3), np.uint8)
    one = write_video(tmp_path/'one.mp4', frames[:1])  # a video of one frame
    for given in (one, frames, list(frames)):
        assert len(clf.predict(given, top_k=3)) == 3
    for i, f in enumerate(frames):
        cv2.imwrite(str(picture_folder(tmp_path)/f'{i}.png'), f)
    frames_to_videos(tmp_path/'frames', tmp_path/'videos')
    assert clf.predict(find_videos(tmp_path/'videos').paths)


def picture_folder(root):
    (root/'frames'/'up'/'one').mkdir(parents=True, exist_ok=True)
    return root/'frames'/'up'/'one'


def test_shards_are_called_shards(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    for args in (
        ('evaluate', 'classifier', 'shards'),
        ('predict', 'classifier', 'shards'),
        ('doctor', 'shards', '--out', tmp_path / 'd'),
        ('shard', 'shards', tmp_path / 's'),
    ):
        said = said_by(*args)
        assert (
            said.startswith('shards: these are shards. `vidcls train shards`')
            and 'folder or CSV file' in said
        )
    for name in ('shards.json', 'shards.csv', 'train-000000.tar'):
        with pytest.raises(DataError, match='is a part of shards. `vidcls train .*shards`'):
            as_table(place/'shards'/name)
    with pytest.raises(VideoReadError, match='an archive.*unpack'):
        Classifier.load(place/'classifier').predict(place/'shards/train-000000.tar')
    shutil.copytree(place/'shards', tmp_path/'half', ignore=shutil.ignore_patterns('shards.*'))
    for read in (from_folder, find_videos):
        with pytest.raises(DataError, match='these are shards. shards.json and shards.csv are missing'):
            read(tmp_path/'half')
    table = from_folder(place/'clips').save(tmp_path/'own.csv')  # a list beside shards is still one
    shutil.copy(place/'shards/shards.json', tmp_path)
    assert len(as_table(table)) == 80


def test_a_misspelt_model_in_the_words_of_the_command_line(place, monkeypatch):
    said = vidcls_says('train', 'clips', '--model', 'videomae_tinny', '--out', 'no', cwd=place)
    assert said.startswith("vidcls: --model videomae_tinny. Did you mean 'videomae_tiny'?")
    monkeypatch.chdir(place)
    assert said_by('benchmark', 'views', 'clips', '--model', 'i4d').startswith('--model i4d')
    for command in ('step', 'inference'):
        assert said_by('benchmark', command, 'i4d').startswith('MODEL i4d; accepted:')
    assert said_by('download', 'ucf102', 'folder').startswith('NAME ucf102; accepted:')
    said = said_by('train', 'clips', '--model', 'transformers', '--out', 'no')
    assert '--pretrained a folder' in said and '=' not in said
    said = said_by('train', 'clips', '--model', 'i3d', '--pretrained', 'classifier', '--out', 'no')
    assert (
        "holds a classifier of the model 'videomae_tiny', not of --model i3d; give --model videomae_tiny"
        in said
    )


LIKE_GROUPS = {
    'actor': ['ann', 'bob', 'cat', 'dan']*5, 'subject_id': [1, 2, 3, 4, 5]*4, 'Camera': ['a', 'b']*10,
    'video_id': [f'v{i//2}' for i in range(20)], 'dancer': ['ann', 'bob', 'cat', 'dan']*5}
NO_GROUPS = {
    'fps': [25, 30, 50, 60] * 5,
    'video_id': [f'v{i}' for i in range(20)],
    'night': ['yes', 'no'] * 10,
    'remark': [None] * 19 + ['dark'],
    'class_id': ['c0'] * 10 + ['c1'] * 10,
    'duration': [float(i % 4) for i in range(20)],
}


def rows_with(name, values):
    "Twenty clips of two classes, and a further column."
    return pd.DataFrame(
        {'path': [f'{i}.mp4' for i in range(20)], 'label': ['run'] * 10 + ['sit'] * 10, name: values}
    )


@pytest.mark.parametrize('name', LIKE_GROUPS)
def test_a_column_like_groups_is_suggested_and_not_taken(tmp_path, name):
    rows = rows_with(name, LIKE_GROUPS[name])
    rows.to_csv(tmp_path/'t.csv', index=False)
    for read in (lambda **how: from_csv(tmp_path/'t.csv', missing='unchecked', **how),
                 lambda **how: from_df(rows, root=tmp_path, missing='unchecked', **how)):
        with pytest.warns(TableWarning, match=f"column '{name}' looks like a group .*group='{name}'"):
            table = read()
        assert table.df.group.nunique() == 20
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert read(group=name).df.group.nunique() == len(set(map(str, rows[name])))


@pytest.mark.parametrize('name', NO_GROUPS)
def test_a_column_that_is_no_group_is_not_suggested(name):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        from_df(rows_with(name, NO_GROUPS[name]), root='.', missing='unchecked')
        from_df(rows_with('group', LIKE_GROUPS['actor']).assign(actor='x'), root='.', missing='unchecked')


def test_the_command_line_suggests_the_column(place, tmp_path):
    table = from_folder(place/'clips').filter("label in ('up', 'down')")
    rows = pd.DataFrame(
        {'path': [str(p) for p in table.paths], 'label': table.df.label, 'who is it': table.df.group}
    )
    rows.to_csv(tmp_path/'t.csv', index=False)
    r = subprocess.run(
        [*VIDCLS, 'train', 't.csv', '--model', 'i4d'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "column 'who is it' looks like a group (10 values for 20 clips)" in r.stderr, r.stderr
    assert "--group 'who is it'." in r.stderr and 'group=' not in r.stderr
    assert 'note: every clip is its own group' in r.stdout


def test_similar_and_embed_keep_features_without_being_told_where(place, monkeypatch, tmp_path):
    "The default of --out is a Path already."
    monkeypatch.chdir(tmp_path)
    clips = sorted((place/'clips').rglob('*.mp4'))
    for words in (['similar', clips[0], '--among', place/'clips'], ['embed', place/'clips']):
        r = CliRunner().invoke(app, [*map(str, words), '--model', 'handcrafted'])
        assert r.exit_code == 0 and (tmp_path/'features'/'store').is_dir(), r.output


def test_what_could_not_be_read_is_said_without_advice_in_python(capsys):
    say_not_read({'a.mp4': 'damaged; copy it again, leave it out, or read it with salvage=True'})
    assert capsys.readouterr().out.startswith('not read: a.mp4: damaged; copy it again, leave it out\n')


def test_an_empty_label_and_columns_of_flags_say_how_sets_are_read(tmp_path):
    (tmp_path/'a.csv').write_text('path,label\na.mp4,run\nb.mp4,\n')
    with pytest.raises(DataError, match="line 3: the label is empty. Where .* add task='multi-label'") as e:
        from_csv(tmp_path/'a.csv', missing='unchecked')
    assert in_words(e.value).endswith('perhaps empty ones, add --multi-label.')
    (tmp_path/'b.csv').write_text('path,a,b,c,d\nx.mp4,1,0,0,1\ny.mp4,0,1,1,0\n')
    with pytest.raises(DataError, match='--multi-label --label a,b,c,d'):
        from_csv(tmp_path/'b.csv', missing='unchecked')


def test_compare_names_a_folder_that_is_not_there(tmp_path):
    r = CliRunner().invoke(app, ['compare', str(tmp_path/'nix')])
    assert isinstance(r.exception, VidclsError) and 'nix: no such file or folder' in str(r.exception)


def test_a_layer_without_a_pool_is_refused(place):
    said = said_by('embed', place/'clips', '--model', 'handcrafted', '--layer', 2)
    assert said == '--layer 2 needs --pool, such as --pool mean.'


def test_a_classifier_is_explored_like_its_network(place):
    clf = Classifier.load(place/'classifier')
    dl = loaders(from_folder(place/'clips'), clf.spec, bs=8).test
    assert explore(clf, dl).model is clf.model


def test_neighbours_refuse_features_that_are_not_finite():
    with pytest.raises(DataError, match='features are not finite'):
        unit_vectors(np.float32([[1, 2], [np.nan, 3]]))


@pytest.mark.parametrize('error', [OSError(28, 'No space left'), RuntimeError('I/O error (os error 28)')])
def test_a_full_disk_is_said_in_a_sentence(error, monkeypatch, capsys):
    def full(): raise error
    monkeypatch.setattr('vidcls.cli.app', full)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, 'reconfigure', lambda **k: None, raising=False)
    monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)
    monkeypatch.setattr(sys, 'stdout', sys.stdout)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith('vidcls: the disk is full (')
