"Tables, lists and folders as people bring them: read right, or refused with the line and the way out."
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from hostile import encode, numbered
from vidcls.core import ArgumentError, DataError, LeakageError
from vidcls.data.datasets import as_table, from_csv, from_df, from_folder
from vidcls.data.decode import Video, probe, read_frames
from vidcls.data.doctor import audit, examine
from vidcls.data.files import TableWarning, find_videos
from vidcls.data.table import ClipTable
from vidcls.show import frames_to_video, frames_to_videos, write_video


@pytest.fixture(scope='session')
def clip(tmp_path_factory): return write_video(tmp_path_factory.mktemp('clip')/'c.mp4', numbered(8, 48, 128))

def touch(root, *names):
    for n in names:
        (root/n).parent.mkdir(parents=True, exist_ok=True)
        (root/n).write_bytes(b'x' + n.encode())
    return root

def listing(root, text, name='t.csv', encoding='utf-8', **kwargs):
    (root/name).write_bytes(text.encode(encoding))
    return from_csv(root/name, **kwargs)

def said(f):
    "(result, warnings) of f."
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        return f(), ' | '.join(str(w.message) for w in told)


# One walk of a folder

def test_training_predicting_and_the_doctor_see_the_same_clips(tmp_path, clip):
    from vidcls.commands.judge import list_videos

    for n in (
        'run/a.mp4',
        'run/b.MP4',
        'walk/c.mp4',
        'walk/deep/d.mp4',
        'walk/e.txt',
        'run/.hidden.mp4',
        'run/._a.mp4',
        '__MACOSX/run/a.mp4',
    ):
        (tmp_path/'set'/n).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path/'set'/n)
    (tmp_path/'set'/'jump').symlink_to(touch(tmp_path/'far', 'x.mp4'))
    shutil.copy(clip, tmp_path/'far'/'x.mp4')
    (tmp_path/'set'/'run'/'up').symlink_to(tmp_path/'set')
    names = ['jump/x.mp4', 'run/a.mp4', 'run/b.MP4', 'walk/c.mp4', 'walk/deep/d.mp4']
    table, told = said(lambda: from_folder(tmp_path/'set'))
    paths = [tmp_path/'set'/n for n in names]
    assert table.df.path.tolist() == names and find_videos(tmp_path / 'set').paths == paths == list_videos(
        [tmp_path / 'set']
    )
    assert (
        '.txt 1' in told
        and 'hidden video (1)' in told
        and 'link to a folder that is read already (1)' in told
    )
    found = audit(tmp_path/'set', n_frames=8, workers=1, show=False)
    assert found.df.path.tolist() == names and '.txt 1' in repr(found)


@pytest.mark.parametrize('order', ['ab', 'ba'])
def test_a_folder_is_known_by_its_own_name_not_by_a_link(tmp_path, order):
    touch(tmp_path, f'{order[0]}/1.mp4', f'{order[0]}/2.mp4', 'z/3.mp4')
    (tmp_path/order[1]).symlink_to(tmp_path/order[0])
    (tmp_path/'z'/'self').symlink_to('self')                                          # a link to itself
    assert set(said(lambda: from_folder(tmp_path))[0].df.label) == {order[0], 'z'}


CONTAINERS = {
    'mp4': 'mp4',
    'm4v': 'mp4',
    'mov': 'mov',
    'qt': 'mov',
    'avi': 'avi',
    'mkv': 'matroska',
    'mpg': 'mpeg',
    'vob': 'mpeg',
    'MOD': 'mpeg',
    'asf': 'asf',
    'wmv': 'asf',
    'flv': 'flv',
    'f4v': 'mp4',
    'ts': 'mpegts',
    'MTS': 'mpegts',
    'm2ts': 'mpegts',
    '3gp': '3gp',
    '3g2': '3g2',
}

@pytest.mark.parametrize('suffix', CONTAINERS)
def test_each_suffix_is_listed_and_can_be_read(tmp_path, suffix):
    codec = {
        'mpg': 'mpeg2video',
        'vob': 'mpeg2video',
        'MOD': 'mpeg2video',
        'avi': 'mpeg4',
        'wmv': 'mpeg4',
        'asf': 'mpeg4',
    }.get(suffix, 'libx264')
    (tmp_path/'a').mkdir()
    encode(tmp_path/'a'/f'1.{suffix}', codec, numbered(6), container=CONTAINERS[suffix])
    assert (
        find_videos(tmp_path).paths == [tmp_path / 'a' / f'1.{suffix}']
        and probe(tmp_path / 'a' / f'1.{suffix}').n_frames == 6
    )


def test_what_is_left_out_is_counted_with_its_way(tmp_path):
    touch(
        tmp_path,
        'a/1.mp4',
        'a/2.braw',
        'a/3.zip',
        'b/x/1.png',
        'b/x/2.png',
        'a/noext',
        'readme.md',
        'labels.json',
    )
    (_, skipped), note = find_videos(tmp_path), find_videos(tmp_path).note
    assert skipped == {'.png': 2, '.braw': 1, '.zip': 1, 'no suffix': 1}
    assert (
        '5 files' in note and 'Convert .braw' in note and 'Unpack .zip' in note and 'frames_to_videos' in note
    )
    for p in tmp_path.rglob('*.mp4'):
        p.unlink()
    with pytest.raises(DataError, match=r'found no videos.*Left out: 5 files.*\.png 2'):
        from_folder(tmp_path)
    (tmp_path/'nothing'/'inside').mkdir(parents=True)
    with pytest.raises(DataError, match='It is empty, or holds empty folders'):
        find_videos(tmp_path/'nothing')


def test_names_that_are_no_utf8(tmp_path):
    for k, c in enumerate(('run', 'wälk')):
        for i in range(4):
            (tmp_path/'d'/c).mkdir(parents=True, exist_ok=True)
            write_video(tmp_path/'d'/c/f'{i}.mp4', np.roll(numbered(8, 48, 128), 9*i + 50*k, axis=2))
    odd = os.path.join(os.fsencode(tmp_path/'d'/'run'), b'\xff\xfe "x".mp4')
    try:
        Path(os.fsdecode(odd)).write_bytes(b'no video')
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    t = from_folder(tmp_path/'d', leaks='allow')
    again = from_csv(t.save(tmp_path/'t.csv'))
    assert again.df.path.tolist() == t.df.path.tolist() and os.fsencode(again.df.path.iloc[4]).endswith(
        b'\xff\xfe "x".mp4'
    )
    found = audit(t, n_frames=8, workers=1, show=False)
    print(found)
    page = found.save(tmp_path/'out')
    assert (
        'udcff' in page.read_text(encoding='utf-8')
        and len(found.table) == 9 == 1 + len(found.df[found.df.fault == ''])
        and len(from_csv(tmp_path / 'out' / 'clips.csv', leaks='allow')) == len(found.repaired())
    )


# Lists

def test_a_comma_without_quotes_is_an_error_that_names_its_line(tmp_path):
    touch(tmp_path, 'a.mp4', 'b.mp4', 'c.mp4')
    for sep in ',;\t':
        text = (
            f'path{sep}label\na.mp4{sep}rolls\n"b.mp4"{sep}"so{sep} it\nfalls"\nc.mp4{sep}so{sep} it falls\n'
        )
        with pytest.raises(DataError, match='t.csv, line 5: 3 fields, but there are 2 columns'):
            listing(tmp_path, text)
    t = listing(tmp_path, 'path,label\na.mp4,rolls\nb.mp4,"so, it\nfalls"\nc.mp4,"so, it stays"\n')
    assert t.labels == ['rolls', 'so, it\nfalls', 'so, it stays']
    t = listing(tmp_path, 'path, label,\na.mp4, x,\nb.mp4,"y",,\n')  # blanks and empty fields at the end
    assert t.labels == ['x', 'y'] and t.df.path.tolist() == ['a.mp4', 'b.mp4']
    t = listing(tmp_path, 'sep=;\r\npath;label\r\na.mp4;x, y\r\nb.mp4;z\r\n')  # as Excel writes it
    assert t.labels == ['x, y', 'z']


def test_lines_are_counted_as_an_editor_counts(tmp_path):
    touch(tmp_path, 'a.mp4', 'b.mp4')
    with pytest.raises(DataError, match='line 7: the label is empty'):
        listing(tmp_path, '\npath,label\n\na.mp4,"x\ny"\n\nb.mp4,\n')
    with pytest.raises(DataError, match='line 4: .*gone.mp4 does not exist'):
        listing(tmp_path, 'path,label\r\na.mp4,"x\r\ny"\r\ngone.mp4,z\r\n')
    with pytest.raises(DataError, match='line 3: the label is empty'):
        listing(tmp_path, 'path,label\ra.mp4,x\rb.mp4,  \r')
    with pytest.raises(DataError, match="two columns are called 'label'"):
        listing(tmp_path, 'path,label,label\na.mp4,x,y\n')
    with pytest.raises(DataError, match='line 2: not a CSV file'):
        listing(tmp_path, 'path,label\na.mp4,"x\nb.mp4,y\n')
    with pytest.raises(DataError, match='no rows below'):
        listing(tmp_path, ' , \n,\n')


@pytest.mark.parametrize('encoding', 'utf-8 utf-8-sig utf-16 utf-16-le utf-16-be cp1252 latin-1'.split())
def test_encodings_are_read_or_have_a_remedy(tmp_path, encoding):
    touch(tmp_path, 'ü.mp4', 'b.mp4')
    read = lambda: listing(tmp_path, 'path;label\nb.mp4;gehen\nü.mp4;überqueren\n', encoding=encoding)
    if encoding in ('utf-8', 'utf-8-sig', 'utf-16'):
        t, told = said(read)
        assert t.labels == ['gehen', 'überqueren'] and ('UTF-16' in told) == (encoding == 'utf-16')
    else:
        says = 'UTF-16' if '16' in encoding else r'line 3: not a CSV file in UTF-8 \(byte 0xfc\).*cp1252'
        with pytest.raises(DataError, match=f"{says}.*'CSV UTF-8'"):
            read()


@pytest.mark.parametrize('text, labels', [
    ('run/a 1.mp4 0\nwalk/b.avi 1\n', ['0', '1']),
    ('a.mp4,brushing teeth\nb.avi,run\n', ['brushing teeth', 'run']),
    ('a.mp4 brushing teeth\n\nb.avi  run\n', ['brushing teeth', 'run']),
    ('run;a.mp4;train\nwalk;b.avi;val\n', ['run', 'walk']),
    ('a.mp4\trun\nb.avi\twalk\n', ['run', 'walk'])])
def test_lists_without_a_header(tmp_path, text, labels):
    t, told = said(lambda: listing(tmp_path, text, missing='unchecked'))
    assert t.labels == labels and len(t) == 2 and 'has no header' in told
    assert [p.suffix for p in t.paths] == ['.mp4', '.avi'] and (
        ';train' not in text or t.splits == ['train', 'valid']
    )


def test_lists_without_a_header_that_say_too_little(tmp_path):
    with pytest.raises(DataError, match='has no header; put the names of its 4 columns'):
        listing(tmp_path, 'a.mp4,1,2,3\n')
    with pytest.raises(DataError, match='has no header'):
        listing(tmp_path, 'a.mp4\nb.mp4\n')
    with pytest.raises(DataError, match="line 2: 'b.mp4'; expected"):
        listing(tmp_path, 'a.mp4 x\nb.mp4\n')


@pytest.mark.parametrize('path', ['path', 'filename', 'File', 'video', 'clip', 'name', 'Video Path'])
@pytest.mark.parametrize('label', ['label', 'class', 'Category', 'target', 'action'])
def test_names_of_columns_are_understood_and_said(tmp_path, path, label):
    touch(tmp_path, 'a.mp4', 'b.mp4')
    t, told = said(lambda: listing(tmp_path, f'id,{label},{path}\n1,x,a.mp4\n2,y,b.mp4\n'))
    assert t.labels == ['x', 'y'] and t.df.path.tolist() == ['a.mp4', 'b.mp4']
    assert (
        (path == 'path' or repr(path) in told)
        and (label == 'label' or repr(label) in told)
        and ('from' in told) == ((path, label) != ('path', 'label'))
    )


def test_columns_by_name_and_splits_under_other_names(tmp_path):
    touch(tmp_path, 'a.mp4', 'b.mp4', 'c.mp4')
    text = 'where,what,subset,path\na.mp4,x,training,q\nb.mp4,y,val,q\nc.mp4,x,Testing,q\n'
    t, told = said(lambda: listing(tmp_path, text, path='where', label='what'))
    assert t.df.split.tolist() == ['train', 'valid', 'test'] and "'subset'" in told
    with pytest.raises(DataError, match=r"no column 'tag'; it has.*label= \(at the command line --label\)"):
        listing(tmp_path, text, label='tag')
    with pytest.raises(DataError, match="no column 'path'.*--path-column"):
        listing(tmp_path, 'where,label\na.mp4,x\n')
    # a 'set' of something else
    assert listing(tmp_path, 'path,label,set\na.mp4,x,kitchen\nb.mp4,y,garden\n').splits != []


@pytest.mark.parametrize('cells, looks', [
    (['fight,person', 'walk', 'run'], 'multi-label'),
    (['a;b', 'a', 'b'], 'multi-label'),
    (['a|b', 'c', 'd'], 'multi-label'),
    (['fight, person', 'fight', 'x'], 'multi-label'),
    (["['a', 'b']", 'c', 'd'], 'multi-label'),
    (['[1, 0, 1]', '[0, 1, 1]', '[1, 1, 1]'], 'multi-label'),
    (['sit+eat', 'sit', 'eat'], 'multi-label'),
    (['0.13', '2.5', '7.0'], 'regression'),
    (['0,5', '1,25', '7'], 'regression'),
    (['-1.5e-3', '2', '3'], 'regression'),
])
def test_other_tasks_are_refused(tmp_path, cells, looks):
    touch(tmp_path, 'a.mp4', 'b.mp4', 'c.mp4')
    df = pd.DataFrame({'path': ['a.mp4', 'b.mp4', 'c.mp4'], 'label': cells})
    df.to_csv(tmp_path/'t.csv', index=False)
    with pytest.raises(DataError, match=rf't.csv, line \d: label .*{looks}.*here each clip has one class'):
        from_csv(tmp_path/'t.csv')
    with pytest.raises(DataError, match=rf'df, row \d: label .*{looks}'):
        from_df(df, tmp_path)


def test_other_tasks_in_a_frame_and_in_columns(tmp_path):
    touch(tmp_path, 'a.mp4', 'b.mp4')
    df = pd.DataFrame({'path': ['a.mp4', 'b.mp4'], 'label': [['x', 'y'], ['x']]})
    with pytest.raises(DataError, match='row 0: .*multi-label'):
        from_df(df, tmp_path)
    with pytest.raises(DataError, match='regression'):
        from_df(df.assign(label=[.25, .5]), tmp_path)
    with pytest.raises(DataError, match="no column 'label'.*one for each class"):
        listing(tmp_path, 'path,run,walk\na.mp4,1,0\nb.mp4,1,1\n')


def test_whole_numbers_commas_and_odd_names_are_classes(tmp_path):
    touch(tmp_path, 'a.mp4', 'b.mp4', 'c.mp4')
    df = pd.DataFrame({'path': ['a.mp4', 'b.mp4', 'c.mp4'], 'label': [0, 1, 10]})
    assert (
        from_df(df, tmp_path).labels
        == ['0', '1', '10']
        == from_df(df.assign(label=[0.0, 1.0, 10.0]), tmp_path).labels
    )
    for labels in (
        ['so, it falls', 'so, it stays', 'x'],
        ['NA', 'nan', 'inf'],
        ['$x$', 'C++', 'a/b'],
        ["it's", '5" nail', '(x) y'],
    ):
        assert sorted(from_df(df.assign(label=labels), tmp_path).labels) == sorted(labels)


def test_labels_that_are_nearly_the_same_and_too_many_classes(tmp_path):
    touch(tmp_path, *[f'{i}.mp4' for i in range(12)])
    rows = [
        ('Run', 'run'),
        ('wave hand', 'wave  hand '),
        ('wave_hand', 'jump'),
        ('é', 'e\u0301'),
        ('x', 'y'),
        ('x', 'y'),
    ]
    text = 'path,label\n' + ''.join(f'{i}.mp4,{l}\n' for i, l in enumerate(sum(rows, ())))
    t, told = said(lambda: listing(tmp_path, text))
    for same in ("'Run' and 'run'", "'wave  hand ' and 'wave hand' and 'wave_hand'", "'e\u0301' and 'é'"):
        assert same in told
    _, told = said(lambda: listing(tmp_path, 'path,label\n' + ''.join(f'{i}.mp4,c{i}\n' for i in range(12))))
    assert '12 classes for 12 clips' in told
    _, told = said(
        lambda: listing(tmp_path, 'path,label\n' + ''.join(f'{i}.mp4,c{i % 3}\n' for i in range(12)))
    )
    assert told == ''


def test_notes_beside_a_list_are_checked(tmp_path):
    touch(tmp_path, 'a.mp4', 'b.mp4')
    text, notes = 'path,label,group,split\na.mp4,x,g,train\nb.mp4,y,h,test\n', tmp_path/'t.table.json'
    for bad in (
        '[]',
        '3',
        'null',
        '{"labels": 3}',
        '{"labels": ["x", 1]}',
        '{"root": []}',
        '{"dropped": {"x": "y"}}',
        '{"dropped": {"x": true}}',
        '{"name": {}}',
        '[' * 100_000,
        '{"a":' * 50_000,
        '\0',
        '{"labels"',
    ):
        notes.write_text(bad)
        with pytest.raises(DataError, match='t.table.json: damaged'):
            listing(tmp_path, text)
    notes.write_text(json.dumps({'labels': ['y', 'x'], 'root': '.', 'name': 'n', 'dropped': {'short': 2}}))
    assert listing(tmp_path, text).labels == ['y', 'x']


# What was given

def test_what_is_no_data_set_is_named_with_its_way(tmp_path, clip):
    with zipfile.ZipFile(tmp_path/'set.zip', 'w') as z:
        z.write(clip, 'run/a.mp4')
    shutil.copy(tmp_path/'set.zip', tmp_path/'noname')
    shutil.copy(clip, tmp_path/'clip.mp4')
    shutil.copy(clip, tmp_path/'video')
    shutil.make_archive(tmp_path/'t', 'gztar', tmp_path, 'clip.mp4')
    touch(tmp_path, 'book.xlsx', 'rows.parquet', 'one.png')
    for name, says in (
        ('set.zip', 'archive; unpack'),
        ('noname', 'archive; unpack'),
        ('t.tar.gz', 'archive; unpack'),
        ('clip.mp4', 'one video'),
        ('video', 'one video'),
        ('book.xlsx', 'spreadsheet; save'),
        ('rows.parquet', 'from_df'),
        ('one.png', 'one picture'),
        ('gone', 'no such folder'),
        ('gone.csv', 'no such file'),
    ):
        for read in (as_table, from_folder if name != 'gone.csv' else from_csv):
            with pytest.raises(DataError, match=says):
                read(tmp_path/name)
        with pytest.raises(DataError, match=says):
            audit(tmp_path/name, show=False)
    for name in ('set.zip',):
        r = subprocess.run(
            [sys.executable, '-m', 'vidcls.cli', 'train', str(tmp_path / name), '--out', str(tmp_path / 'o')],
            capture_output=True,
            text=True,
        )
        assert (
            r.returncode == 2
            and 'Traceback' not in r.stderr
            and ('archive' in r.stderr or 'one video' in r.stderr)
        ), r.stderr


def test_a_frame_a_folder_a_list_and_a_table(tmp_path):
    touch(tmp_path, *[f'{c}/{i}.mp4' for c in 'xy' for i in range(5)])
    t = as_table(tmp_path)
    df = pd.DataFrame(
        {
            'video': [tmp_path / p for p in t.df.path],
            'class': pd.Categorical(t.df.label),
            'split': t.df.split.str.upper(),
        }
    )
    u = as_table(df, valid=0)
    assert (
        u.df.label.tolist() == t.df.label.tolist()
        and u.df.split.tolist() == t.df.split.tolist()
        and all(p.is_file() for p in u.paths)
    )
    assert as_table(t) is t and as_table(t.save(tmp_path/'t.csv')).df.equals(t.df)
    for bad, says in (
        (df.drop(columns='class'), "no column 'label'"),
        (df.assign(video=3), 'row 0: the path is 3'),
        (df.head(0), 'no rows'),
        (df.assign(video=None), 'row 0: the path is empty'),
        (pd.concat([df, df], axis=1), "two columns are called 'video'"),
    ):
        with pytest.raises(DataError, match=says):
            from_df(bad)
    for bad in (None, ['a.mp4'], 3):
        with pytest.raises(ArgumentError, match='accepted: a ClipTable, a pandas DataFrame, or a path'):
            as_table(bad)
    with pytest.raises(ArgumentError, match='accepted: a pandas DataFrame'):
        from_df(df['video'])
    for path, says in (
        ('https://x.org/set.zip', 'is an address; download it'),
        ('https://x.org/t.csv', 'is an address; download it'),
    ):
        with pytest.raises(DataError, match=says):
            as_table(path)
    with pytest.raises(DataError, match='is a folder; from_folder reads it'):
        from_csv(tmp_path)


# Splits by folder, lists beside clips, groups

def test_split_folders_under_their_usual_names(tmp_path):
    for k, (a, b, c) in enumerate(
        [
            ('train', 'val', 'test'),
            ('Training', 'validation', 'testing'),
            ('train', 'eval', 'TEST'),
            ('train', 'valid', 'test'),
            ('train', 'dev', 'test'),
        ]
    ):
        t = from_folder(
            touch(
                tmp_path / f'{k}', *[f'{s}/{l}/{s}{i}.mp4' for s in (a, b, c) for l in 'xy' for i in range(3)]
            )
        )
        assert t.df.split.value_counts().to_dict() == {'train': 6, 'valid': 6, 'test': 6} and t.labels == [
            'x',
            'y',
        ]
    t = from_folder(
        touch(
            tmp_path / 'two', *[f'{s}/{l}/{i}.mp4' for s in ('train', 'val') for l in 'xy' for i in range(3)]
        ),
        leaks='allow',
    )
    assert t.df.split.value_counts().to_dict() == {'train': 6, 'valid': 6}  # and nothing is drawn


def test_a_held_out_folder_is_judged_whole(tmp_path):
    touch(tmp_path/'h', *[f'{l}/{i}.mp4' for l in 'xy' for i in range(10)])
    assert (
        from_folder(tmp_path / 'h', split='test').splits == ['test']
        and len(from_folder(tmp_path / 'h').select_split('test')) < 20
    )
    t = from_folder(
        touch(
            tmp_path / 's',
            *[f'{s}/{l}/{i}{s}.mp4' for s in ('train', 'test') for l in 'xy' for i in range(4)],
        ),
        split='test',
        valid=0,
    )
    assert t.df.split.value_counts().to_dict() == {'train': 8, 'test': 8}  # folders that say it come first
    (tmp_path/'h'/'t.csv').write_text('path,label\nx/1.mp4,x\ny/2.mp4,y\n')
    assert from_csv(tmp_path/'h'/'t.csv', split='test').splits == ['test']
    with pytest.raises(DataError, match="no column 'held'"):
        from_csv(tmp_path/'h'/'t.csv', split='held')
    with pytest.raises(DataError, match="no column 'held'|'held'"):
        from_folder(tmp_path/'h', split='held')


@pytest.mark.parametrize('name', ['clips.csv', 'labels.csv', 'annotations.csv'])
def test_a_list_beside_flat_clips_is_found_and_said(tmp_path, name):
    touch(tmp_path, *[f'{i}.mp4' for i in range(6)])
    (tmp_path/name).write_text('filename,class\n' + ''.join(f'{i}.mp4,{"xy"[i % 2]}\n' for i in range(6)))
    t, told = said(lambda: from_folder(tmp_path))
    assert (
        len(t) == 6
        and t.labels == ['x', 'y']
        and (name == 'clips.csv' or f'come from {name}' in told)
        and "'filename'" in told
    )
    (tmp_path/name).write_text('tape,kind\n' + ''.join(f'{i}.mp4,{"xy"[i % 2]}\n' for i in range(6)))
    assert said(lambda: from_folder(tmp_path, path='tape', label='kind'))[0].labels == ['x', 'y']


def test_a_labels_csv_of_another_kind_does_not_hide_the_folders(tmp_path):
    touch(tmp_path, *[f'{l}/{i}.mp4' for l in 'xy' for i in range(3)])
    (tmp_path/'labels.csv').write_text('id,name\n0,x\n1,y\n')
    t, told = said(lambda: from_folder(tmp_path))
    assert len(t) == 6 and "labels.csv is not read as a list of clips: no column 'label'" in told
    (tmp_path/'loose.mp4').touch()
    (tmp_path/'labels.csv').unlink()
    with pytest.raises(
        DataError, match='loose.mp4 lies in no class folder.*labels.csv with the columns path and label'
    ):
        from_folder(tmp_path)


def test_groups_from_the_folders_below_the_classes(tmp_path):
    names = [f'{l}/{who}/{i}.mp4' for l in ('run', 'walk') for who in ('ann', 'bob', 'cy') for i in range(4)]
    touch(tmp_path/'d', *names)
    t, told = said(lambda: from_folder(tmp_path/'d', group='parent'))
    assert (
        set(t.df.group) == {'ann', 'bob', 'cy'}
        and (t.df.groupby('group').split.nunique() == 1).all()
        and told == ''
    )
    t, told = said(lambda: from_folder(tmp_path/'d'))
    assert (
        t.df.group.nunique() == 24
        and "group='parent'" in told
        and '--group parent' in told
        and '3 folders' in told
    )
    (tmp_path/'d'/'t.csv').write_text('path,label\n' + ''.join(f"{n},{n.split('/')[0]}\n" for n in names))
    assert set(from_csv(tmp_path/'d'/'t.csv', group='parent').df.group) == {'ann', 'bob', 'cy'}
    assert set(from_csv(tmp_path/'d'/'t.csv', group=lambda p: p.parent.name).df.group) == {'ann', 'bob', 'cy'}
    touch(tmp_path/'s', *[f'{s}/{n}' for s, n in zip(['train']*12 + ['val']*12, names)])
    with pytest.raises(LeakageError, match="group 'ann' is in train and valid"):
        from_folder(tmp_path/'s', group='parent')
    with pytest.raises(DataError, match='lies in no folder below its class'):
        from_folder(touch(tmp_path/'flat', 'x/1.mp4', 'y/2.mp4'), group='parent')
    # a folder for each clip
    assert (
        said(
            lambda: from_folder(touch(tmp_path / 'one', 'x/a/1.mp4', 'x/b/2.mp4', 'y/c/3.mp4', 'y/d/4.mp4'))
        )[1]
        == ''
    )


# One file under several names

SPELLINGS = {
    'dot': './x/a.mp4',
    'dots': 'y/../x/a.mp4',
    'slashes': 'x//a.mp4',
    'absolute': '{root}/x/a.mp4',
    'link': 'link.mp4',
    'folder link': 'other/a.mp4',
    'out and in': '../{name}/x/a.mp4',
}

@pytest.mark.parametrize('how', SPELLINGS)
def test_one_file_in_two_splits_under_two_names(tmp_path, how):
    root = touch(tmp_path/'d', 'x/a.mp4', 'y/b.mp4', 'y/c.mp4')
    (root/'link.mp4').symlink_to(root/'x'/'a.mp4')
    (root/'other').symlink_to(root/'x')
    twin = SPELLINGS[how].format(root=root, name=root.name)
    text = f'path,label,split\nx/a.mp4,x,train\ny/b.mp4,y,train\n{twin},x,test\ny/c.mp4,y,test\n'
    with pytest.raises(
        LeakageError,
        match=r"path 'x/a.mp4' is in test and train.*leaks='allow', at the command line --leaks allow",
    ):
        listing(root, text, valid=0)
    with pytest.warns(TableWarning, match='the same as'):
        listing(root, text, valid=0, leaks='warn')
    assert len(listing(root, text.replace(twin, 'y/d.mp4'), valid=0, missing='unchecked')) == 4
    if 'link' not in how:
        with pytest.warns(TableWarning, match='line 4: .* is a clip that is listed already'):
            listing(root, text.replace(',test', ',train'), valid=0)


def test_hard_links_are_told_and_other_files_are_not(tmp_path):
    touch(tmp_path, *[f'{i}.mp4' for i in range(4)])
    os.link(tmp_path/'0.mp4', tmp_path/'twin.mp4')
    text = 'path,label,split\n0.mp4,x,train\n1.mp4,y,train\n{},x,test\n3.mp4,y,test\n'
    with pytest.warns(TableWarning, match="a hard link of '0.mp4' is in test and train"):
        listing(tmp_path, text.format('twin.mp4'), valid=0)
    assert said(lambda: listing(tmp_path, text.format('2.mp4'), valid=0))[1] == ''
    shutil.copy(tmp_path/'0.mp4', tmp_path/'2.mp4')
    with pytest.raises(LeakageError, match="a copy of '0.mp4'.*the same as '2.mp4'"):
        listing(tmp_path, text.format('2.mp4'), valid=0, check_content=True)


# Folders of pictures

def test_folders_of_pictures_at_any_depth_and_size(tmp_path):
    rng = np.random.default_rng(0)
    def frames(folder, suffix, shapes):
        (tmp_path/'f'/folder).mkdir(parents=True)
        for i, (h, w) in enumerate(shapes, 1):
            cv2.imwrite(str(tmp_path/'f'/folder/f'img_{i}{suffix}'), np.full((h, w, 3), 20*i, np.uint8))
    frames('run/v0', '.jpg', [(32, 40)]*11)
    frames('run/v1', '.png', [(32, 40)]*3)
    frames('walk/p/v2', '.bmp', [(30, 40), (32, 40), (32, 40), (31, 41)])
    frames('walk/p/v3', '.webp', [(20, 20)]*2)
    # transparent, among others
    cv2.imwrite(str(tmp_path/'f'/'walk'/'p'/'v3'/'img_3.png'), np.full((20, 20, 4), 60, np.uint8))
    # 16 bits, grey
    cv2.imwrite(str(tmp_path/'f'/'walk'/'p'/'v3'/'img_4.png'), np.full((20, 20), 80*256, np.uint16))
    with pytest.raises(DataError, match='frames_to_videos'):
        from_folder(tmp_path/'f')
    n, told = said(lambda: frames_to_videos(tmp_path/'f', tmp_path/'out', show=False))
    assert (
        n == 4
        and 'clips with frames of several sizes: 1' in told
        and '2 of 4 frames were scaled to 40 x 32' in told
    )
    assert from_folder(tmp_path / 'out').df.path.tolist() == [
        'run/v0.mov',
        'run/v1.mov',
        'walk/p/v2.mov',
        'walk/p/v3.mov',
    ]
    for name, k in (('run/v0', 11), ('run/v1', 3), ('walk/p/v2', 4), ('walk/p/v3', 4)):
        means = read_frames(tmp_path/'out'/f'{name}.mov', range(k)).reshape(k, -1).mean(1)
        assert np.abs(means - 20*np.arange(1, k+1)).max() < 3, name  # each frame, in order
    assert frames_to_videos(tmp_path/'f', tmp_path/'out', show=False) == 0
    with pytest.raises(DataError, match='frames_to_video writes one clip'):
        frames_to_videos(tmp_path/'f'/'run'/'v0', tmp_path/'o2')
    with pytest.raises(DataError, match='found no folder with pictures'):
        frames_to_videos(tmp_path/'out', tmp_path/'o2')
    (tmp_path/'f'/'run'/'v0'/'img_4.jpg').write_bytes(b'')
    with pytest.raises(DataError, match='img_4.jpg: no JPEG'):
        frames_to_video(tmp_path/'f'/'run'/'v0', tmp_path/'x.mov')
    assert not list(tmp_path.glob('*x*.mov'))


# Splits, pictures of a table

def test_the_worth_of_a_validation_split():
    def table(sizes):
        df = pd.concat(
            [
                pd.DataFrame(
                    {
                        'path': [f'{g}/{i}.mp4' for i in range(n)],
                        'label': 'x',
                        'group': f'speaker {g}',
                        'split': 'valid',
                    }
                )
                for g, n in enumerate(sizes)
            ]
        )
        return ClipTable(df, '.').worth()

    assert (
        str(table([37])) == 'validation: 37 clips of 1 group (speaker 0): too few to choose by'
        and not table([37]).enough
    )
    assert (
        table([20] * 5).enough
        and table([20] * 5).effective == pytest.approx(5)
        and 'too few' not in str(table([20] * 5))
    )
    assert not table([90, 5, 5]).enough and table([90, 5, 5]).effective < 1.3  # three groups worth hardly one
    assert str(table([1]*40)) == 'validation: 40 clips each of its own group'
    assert str(table([1])) == 'validation: 1 clip of 1 group (speaker 0): too few to choose by'


def test_class_names_with_signs_of_mathematics_are_drawn(tmp_path):
    labels = ['$x', 'a$b$c', '$\\frac{$', 'new\nline', '中文', 'x'*80]
    t = ClipTable(
        pd.DataFrame(
            {'path': [f'{i}.mp4' for i in range(6)], 'label': labels, 'group': range(6), 'split': 'train'}
        ),
        '.',
    )
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph')
        t.plot().savefig(tmp_path/'t.png')
    assert (tmp_path/'t.png').stat().st_size > 1000 and '$' in t._repr_html_()


# The doctor

def test_the_doctor_says_what_a_reader_would(tmp_path, clip):
    for l, n in (('run', 6), ('Run', 4), ('alone', 1)):
        for i in range(n):
            (tmp_path/'d'/'train'/l).mkdir(parents=True, exist_ok=True)
            write_video(tmp_path/'d'/'train'/l/f'{i}.mp4', numbered(4 + i, 48, 128) + len(l)*i)
    for i in range(3):
        (tmp_path/'d'/'val'/'run').mkdir(parents=True, exist_ok=True)
        write_video(tmp_path/'d'/'val'/'run'/f'v{i}.mp4', 255 - numbered(12 + i, 48, 128))
    touch(tmp_path/'d', 'train/run/1.srt', 'train/run/2.srt', 'train/run/x.swf')
    found = audit(tmp_path/'d', n_frames=8, workers=1, show=False)
    text = repr(found)
    for says in (
        "'Run' and 'run' differ only in case",
        "'alone' has one readable clip",
        '.srt 2',
        'Convert .swf',
        'validation: 3 clips each of its own group: too few',
        'no test split',
        '1 note' if '1 note\n' in text else 'note',
    ):
                     assert says in text, text
    assert 'salvage' not in text and "='" not in text and 'can not' not in text
    short = found.problems[found.problems.kind == 'short']
    assert (
        len(short) == 1
        and '9 of 14 clips have fewer than 8 (median 5; '.replace('; ', ')') in short.what.iloc[0]
    )
    page = found.save(tmp_path/'o').read_text()
    assert page.count('<img') >= 3


def test_a_list_that_names_too_few_is_told(tmp_path, clip):
    for n in 'abcd':
        shutil.copy(clip, tmp_path/f'{n}.mp4')
    (tmp_path/'clips.csv').write_text('path,label\na.mp4,x\nb.mp4,y\n')
    assert 'does not name: 2, the first:' in repr(audit(tmp_path, workers=1, show=False, leaks='allow'))


@pytest.mark.parametrize('how', ['script', 'stdin', 'module'])
def test_an_audit_needs_no_main_guard(tmp_path, how, clip):
    for l in ('run', 'walk'):
        for i in range(2):
            (tmp_path/'d'/l).mkdir(parents=True, exist_ok=True)
            write_video(tmp_path/'d'/l/f'{i}.mp4', np.roll(numbered(20), 9*i + 40*(l == 'run'), axis=2))
    code = ("print('STARTED')\nfrom vidcls.data.doctor import audit\n"
            f"f = audit({str(tmp_path/'d')!r}, workers=2, show=False)\n"
            "print('ERRORS', (f.problems.severity == 'error').sum(), f.df.n_frames.sum())\n")
    (tmp_path/'s.py').write_text(code)
    args = {'script': ['s.py'], 'stdin': ['-'], 'module': ['-m', 's']}[how]
    r = subprocess.run(
        [sys.executable, *args],
        input=code if how == 'stdin' else None,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert 'ERRORS 0 80' in r.stdout and r.stdout.count('STARTED') == 1, r.stdout + r.stderr


def test_workers_that_never_start_are_no_broken_clips(tmp_path, clip):
    (tmp_path/'x').mkdir()
    (tmp_path/'y').mkdir()
    shutil.copy(clip, tmp_path/'x'/'a.mp4')
    shutil.copy(clip, tmp_path/'y'/'b.mp4')
    code = (
        "import multiprocessing.spawn as s\ns.set_executable('/bin/false')\nfrom vidcls.core import "
        "WorkerError\nfrom vidcls.data.doctor import audit\n"
        f"try: audit({str(tmp_path)!r}, workers=1, show=False, leaks='allow')\nexcept WorkerError as e: "
        "print('SAID', e)\n"
    )
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert 'SAID the worker processes of the audit do not come up' in r.stdout, r.stdout + r.stderr


def test_the_doctor_sees_what_a_full_decode_sees(tmp_path, clip):
    "Noise and cuts: a fault or a doubt where reading all frames gives an error or a warning; as many frames."
    rng = np.random.default_rng(0)
    good = write_video(tmp_path/'good.mp4', rng.integers(0, 256, (30, 64, 96, 3), dtype=np.uint8))
    data, seen = bytearray(good.read_bytes()), []
    for k in range(12):
        sick = bytearray(data) if k < 8 else data[:len(data)*(k - 3)//10]
        at = int(rng.integers(len(data)//5, len(data)*4//5))
        if k < 8:
            sick[at:at+64] = rng.bytes(64)
        (tmp_path/f'{k}.mp4').write_bytes(sick)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter('always')
            try:
                with Video(tmp_path/f'{k}.mp4') as v:
                    n, fault = sum(1 for _ in v.frames()), ''
            except Exception as e:
                n, fault = None, str(e)
        found = examine(tmp_path/f'{k}.mp4')
        assert (
            bool(found['fault']) == bool(fault)
            and bool(found['said']) == bool(told)
            and (fault or found['n_frames'] == n)
        ), (k, found)
        seen.append(bool(fault or told))
    assert sum(seen) >= 4 and examine(good)['fault'] == examine(good)['said'] == ''


def test_a_file_that_blocks_does_not_hold_the_audit(tmp_path, clip):
    (tmp_path/'x').mkdir()
    (tmp_path/'y').mkdir()
    shutil.copy(clip, tmp_path/'x'/'a.mp4')
    os.mkfifo(tmp_path/'y'/'pipe.mp4')
    start = time.monotonic()
    found = audit(tmp_path, workers=2, timeout_s=20, show=False, leaks='allow')
    assert time.monotonic() - start < 60 and (found.df.fault != '').tolist() == [False, True]


# What the pages once checked in passing

@pytest.fixture
def csv(tmp_path):
    touch(tmp_path, 'a.mp4', 'b.mp4')
    def read(text, **kwargs):
        (tmp_path/'t.csv').write_text(text, encoding='utf-8-sig', newline='')    # as Excel writes it
        return from_csv(tmp_path/'t.csv', **kwargs)
    return read

def test_separators_line_ends_and_words_that_pandas_takes_for_nothing(csv):
    assert csv('path;label\r\na.mp4;x\r\nb.mp4;y\r\n').labels == ['x', 'y']
    assert csv('path\tlabel\na.mp4\tx\nb.mp4\ty\n').labels == ['x', 'y']
    assert csv('path,label\n\na.mp4,NA\nb.mp4,None\n').labels == ['NA', 'None']
    assert csv('path,label,start,end\na.mp4,x,0,1\na.mp4,y,1,2\n').windows.tolist() == [[0, 1], [1, 2]]

def test_missing_files_are_dropped_or_not_looked_for(csv):
    text = 'path,label\na.mp4,x\nz.mp4,y\n'
    assert csv(text, missing='drop', labels=['y', 'x']).dropped == {'missing file': 1}
    assert len(csv(text, missing='unchecked')) == 2

@pytest.mark.parametrize('text,says', [
    ('', 'not a CSV file'),
    ('path\na.mp4\n', r"no column 'label'; it has \['path'\]"),
    ('path,label\n', 'no rows'),
    ('path,label\nq.mp4,x\n', '1 of 1 files are missing'),
    ('path,label\n\na.mp4,x\n\nb.mp4,\n', 'line 5: the label is empty'),
    ('path,label\na.mp4,x\nb.mp4,q\n', r"line 3: label 'q' is not among the known ones \['x', 'y'\]"),
    ('path,label,start,end\na.mp4,x,3,2\n', 'line 2: start 3.0 and end 2.0'),
    ('path,label,start,end\na.mp4,x,0,1\na.mp4,y,0,1\n', 'line 3: a.mp4 is listed twice'),
    ('path,label,group,split\na.mp4,x,g1,train\nb.mp4,x,g1,test\n', "group 'g1' is in test and train"),
])
def test_a_row_that_cant_be_used_is_named(csv, text, says):
    with pytest.raises(DataError, match=says):
        csv(text, labels=['x', 'y'])

def test_one_class_is_said(csv):
    with pytest.warns(TableWarning, match='has one class'):
        csv('path,label\na.mp4,x\n')

def test_a_frame_of_people_and_lists_of_labels(tmp_path):
    touch(tmp_path, 'a.mp4', 'b.mp4')
    people = pd.DataFrame({'clip': ['a.mp4', 'b.mp4'], 'target': ['run', 'walk']})
    assert from_df(people, tmp_path).labels == ['run', 'walk']
    assert as_table(people, root=tmp_path, split='test').splits == ['test']
    with pytest.raises(DataError, match='row 0: label'):
        from_df(people.assign(target=[['run'], ['run', 'walk']]), tmp_path)

def test_what_is_said_aloud_comes_before_the_notes(tmp_path):
    touch(tmp_path, 'day.mp4')
    df = pd.DataFrame({'path': 'day.mp4', 'label': ['walk', 'run', 'walk'],
                       'group': 'cam 1', 'split': 'train',
                       'start': [0, 12.5, 60], 'end': [12.5, 20, None]})
    day = ClipTable(df, tmp_path, ['walk', 'run'], 'day', {'too dark': 2})
    file = day.save(tmp_path/'tables'/'day.csv')
    again = from_csv(file)
    assert (again.labels, again.name, again.dropped) == (['walk', 'run'], 'day', {'too dark': 2})
    assert again.root.resolve() == tmp_path.resolve()
    assert from_csv(file, labels=['run', 'walk']).targets.tolist() == [1, 0, 1]

def test_a_class_folder_without_a_clip_is_said(tmp_path):
    touch(tmp_path/'set', 'a/1.mp4', 'b/2.mp4')
    (tmp_path/'set'/'sideways').mkdir()
    with pytest.warns(TableWarning, match="no videos in \\['sideways'\\]"):
        from_folder(tmp_path/'set')
    with pytest.raises(DataError, match='lies in no class folder'):
        from_folder(touch(tmp_path/'set', 'loose.mp4'))

def test_a_table_has_the_name_that_its_reader_gives(tmp_path):
    touch(tmp_path/'set', 'a/1.mp4', 'b/2.mp4')
    assert from_folder(tmp_path/'set').name == 'set'
    assert from_folder(tmp_path/'set', name='mine').name == 'mine'
