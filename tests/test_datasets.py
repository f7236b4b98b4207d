"Data sets: splits that hold for any groups, official layouts, leaks, bad rows, and downloads that break."
import hashlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from vidcls.core import ArgumentError, DataError, LabelError, LeakageError
from vidcls.data import datasets, download as downloads, files
from vidcls.data.datasets import from_csv, from_folder
from vidcls.data.decode import probe, read_frames
from vidcls.data.download import SOURCES, Archive, DownloadError, Source, download, fetch, unpack
from vidcls.data.files import check_leaks, content_ids, ucf_group
from vidcls.data.public import (
    flip_classes, hmdb51, hmdb_group, jester, kinetics, ssv2, ucf11, ucf50, ucf101, weizmann)
from vidcls.data.synthetic import MOVES, motion_clip
from vidcls.data.table import ClipTable, share_out
from vidcls.show import frames_to_video, frames_to_videos, write_video

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# (class, group) of each
clips = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 25)), min_size=1, max_size=150)


def table_of(rows, **columns):
    label, group = zip(*rows)
    df = pd.DataFrame({'path': [f'{i}.mp4' for i in range(len(rows))], 'label': [f'c{l}' for l in label],
                       'group': [f'g{g}' for g in group], 'split': 'train', **columns})
    return ClipTable(df, 'nowhere')


# Splits

@quick
@given(
    rows=clips,
    fractions=st.sampled_from([(.7, .1, .2), (.5, .5), (.8, .2), (.34, .33, .33), (1., 0., 0.)]),
    seed=st.integers(0, 99),
)
def test_a_split_keeps_groups_and_shares(rows, fractions, seed):
    t = table_of(rows)
    s = t.split(fractions, seed).df
    assert (s.groupby('group').split.nunique() == 1).all()
    biggest = s.groupby('group').size().max()
    plain = t.split(fractions, seed, stratified=False).df
    assert (plain.groupby('group').split.nunique() == 1).all()
    for name, share in zip(
        ('train', 'valid', 'test') if len(fractions) == 3 else ('train', 'test'), fractions
    ):
        assert abs((plain.split == name).sum() - share*len(rows)) <= biggest  # sizes alone: within a group
        assert abs((s.split == name).sum() - share*len(rows)) <= biggest + 5  # five classes: a clip each more


@quick
@given(rows=clips, k=st.integers(2, 6), seed=st.integers(0, 99), valid=st.sampled_from([0., .2]))
def test_folds_test_each_clip_once(rows, k, seed, valid):
    t = table_of(rows)
    if t.df.group.nunique() < k:
        with pytest.raises(ArgumentError, match='groups'):
            t.kfold(k, seed)
        return
    folds = t.kfold(k, seed, valid)
    tested = [set(f.df.path[f.df.split == 'test']) for f in folds]
    assert set().union(*tested) == set(t.df.path) and sum(map(len, tested)) == len(t)
    for f in folds:
        assert (f.df.groupby('group').split.nunique() == 1).all()
    assert all(t.df.equals(f.df.assign(split='train')) for f in folds)  # nothing but the split differs


@quick
@given(rows=clips, shares=st.tuples(*[st.floats(.1, 1)]*3), seed=st.integers(0, 9))
def test_the_fast_split_is_the_plain_greedy_one(rows, shares, seed):
    "Against a loop over groups; at every step it took one of the shares that lacked most."
    label, group = map(np.array, zip(*rows))
    shares = np.array(shares)/sum(shares)
    home = share_out(label, group, shares, seed)
    names, held = np.unique(group), pd.crosstab(group, label).to_numpy()
    order = np.random.RandomState(seed).choice(len(names), len(names), replace=False)
    order = order[np.argsort(-held.sum(1)[order], kind='stable')]
    lacks = np.outer(shares, held.sum(0))
    for i in sorted(order, key=lambda i: held[i].sum() == 1):  # single clips come last, class by class
        k = home[group == names[i]][0]
        if held[i].sum() > 1:
            score = lacks @ held[i]
            assert score[k] > score.max() - 1e-6
        lacks[k] -= held[i]
    single = [i for i in order if held[i].sum() == 1]
    for c in range(held.shape[1]):  # what the last ones left is level
        took = {home[group == names[i]][0] for i in single if held[i, c]}
        assert all(lacks[k, c] + 1 > lacks[:, c].max() - 1e-6 for k in took)


def test_as_many_folds_as_groups_leave_one_group_out():
    t = table_of([(c, g) for c in range(3) for g in range(9)])
    assert sorted(f.select_split('test').df.group.unique().tolist() for f in t.kfold(9)) == [
        [f'g{g}'] for g in range(9)
    ]


def test_rare_classes_do_not_pile_up_in_the_first_fold():
    t = table_of([(i, i) for i in range(200)])  # 200 classes of one clip
    assert {len(f.select_split('test')) for f in t.kfold(5)} == {40}


@pytest.mark.slow
def test_a_large_table_in_seconds(tmp_path):
    n = 200_000
    df = pd.DataFrame(
        {
            'path': [f'c{i % 400}/v{i}.mp4' for i in range(n)],
            'label': [f'c{i % 400}' for i in range(n)],
            'group': [f'g{i // 2}' for i in range(n)],
        }
    )
    df.to_csv(tmp_path/'big.csv', index=False)
    t0 = time.perf_counter()
    t = from_csv(tmp_path/'big.csv', missing='unchecked')
    again = from_csv(t.save(tmp_path/'again.csv'), missing='unchecked')
    repr(t), t.summary(), t.drop([3], 'x'), t.filter("label == 'c1'")
    assert time.perf_counter() - t0 < 15 and again.df.equals(t.df)  # 3 s where it was written


# The table and its file

names = st.text(
    st.characters(exclude_categories=['Cs', 'Cc'], include_characters='\n,;"\' \t#%'), min_size=1, max_size=20
).filter(str.strip)

@quick
@given(data=st.data())
def test_what_is_saved_comes_back(data, tmp_path):
    paths = data.draw(st.lists(names.map(lambda n: f'd/{n}.mp4'), min_size=1, max_size=8, unique=True))
    n = len(paths)
    cell = lambda: data.draw(st.lists(names, min_size=n, max_size=n))
    df = pd.DataFrame({'path': paths, 'label': cell(), 'group': paths, 'split': data.draw(st.lists(
        st.sampled_from(['train', 'valid', 'test']), min_size=n, max_size=n))})
    if data.draw(st.booleans()):
        df['start'] = [data.draw(st.floats(0, 1e5)) for _ in paths]
        df['end'] = [
            s + data.draw(st.floats(0.01, 1e4)) if data.draw(st.booleans()) else None for s in df.start
        ]
    labels = data.draw(st.permutations(sorted(set(df.label) | {'a class without clips'})))
    t = ClipTable(
        df,
        tmp_path / 'elsewhere',
        labels,
        'näme',
        data.draw(st.dictionaries(names, st.integers(1, 9), max_size=3)),
    )
    again = from_csv(t.save(tmp_path/'deep'/'t.csv'), missing='unchecked')
    pd.testing.assert_frame_equal(again.df, t.df, check_dtype=False)
    assert (again.labels, again.name, again.dropped, again.root.resolve()) == (
        t.labels,
        t.name,
        t.dropped,
        t.root.resolve(),
    )


def test_a_saved_fold_keeps_its_train_part_whole(tmp_path):
    fold = table_of([(i % 2, i) for i in range(40)]).kfold(4)[0]
    csv = fold.save(tmp_path/'t.csv')
    assert from_csv(csv, missing='unchecked').splits == ['train', 'test']
    assert from_csv(csv, missing='unchecked', valid=.2).splits == ['train', 'valid', 'test']
    (tmp_path/'t.table.json').unlink()
    assert from_csv(csv, missing='unchecked').splits == ['train', 'valid', 'test']  # a CSV of anybody: .15


def test_notes_travel_and_damage_is_named(tmp_path):
    t = table_of([(0, 0), (1, 1), (0, 2)]).drop('1.mp4', 'truncated')
    parts = t.select_split('train'), t.select_classes(['c0']), t.filter([True, False])
    for u in (*parts, t.split(), t.kfold(2)[0]):
        assert u.dropped == {'truncated': 1}
    assert t.drop([0], 'truncated').dropped == {'truncated': 2}
    assert '1 dropped (1 truncated)' in repr(t) and '1 truncated' in t._repr_html_()
    csv = t.save(tmp_path/'t.csv')
    (tmp_path/'t.table.json').write_text('{"labels":')
    with pytest.raises(DataError, match='t.table.json: damaged'):
        from_csv(csv, missing='unchecked')


def test_drop_takes_rows_masks_and_paths():
    t = table_of([(0, i) for i in range(4)])
    for which in (
        [1, 2],
        np.array([1, 2]),
        np.array([False, True, True, False]),
        ['1.mp4', Path('nowhere/2.mp4')],
        pd.Series([1, 2]),
    ):
        assert t.drop(which, 'x').df.path.tolist() == ['0.mp4', '3.mp4']
    for bad in ([7], [-1], 'x.mp4', np.array([True])):
        with pytest.raises(ArgumentError):
            t.drop(bad, 'x')
    windows = ClipTable(t.df.assign(path='one.mp4', start=range(4), end=range(1, 5)), '.')
    assert len(windows.drop('one.mp4', 'x')) == 0 and len(windows.drop([0], 'x')) == 3


BAD_CSV = {  # faults 28 to 33: the file, what is said of it, and what else was passed
    'no rows': ('path,label\n', 'no rows below the header', {}),
    'no column': ('path,klass\na.mp4,x\n', "no column 'label'; it has", {}),
    'no such group': ('path,label\na.mp4,x\n', "no column 'actor'", dict(group='actor')),
    'empty label': ('path,label\na.mp4,x\nb.mp4,\n', 'line 3: the label is empty', {}),
    'nan after blank lines': ('path,label\n\n\na.mp4,x\n\nb.mp4,\n', 'line 6: the label is empty', {}),
    'twice': ('path,label\na.mp4,x\nb.mp4,x\na.mp4,y\n', 'line 4: a.mp4 is listed twice', {}),
    'unknown label': (
        'path,label\na.mp4,x\nb.mp4,z\n',
        "line 3: label 'z' is not among the known ones",
        dict(labels=['x', 'y']),
    ),
    'missing file': ('path,label\na.mp4,x\nq.mp4,y\n', 'line 3: .*q.mp4 does not exist', {}),
    'unknown split': ('path,label,split\na.mp4,x,train\nb.mp4,y,dev2\n', "line 3: split 'dev2'", {}),
    'empty split': ('path,label,split\na.mp4,x,train\nb.mp4,y,\n', 'line 3: split', {}),
    'bad second': ('path,label,start\na.mp4,x,1:20\n', "line 2: start '1:20'; accepted: seconds", {}),
    'negative second': ('path,label,start\na.mp4,x,-1\n', "line 2: start '-1'", {}),
    'end before start': ('path,label,start,end\na.mp4,x,5,5\n', 'line 2: start 5.0 and end 5.0', {}),
    'group in two splits': (
        'path,label,group,split\na.mp4,x,g,train\nb.mp4,y,g,test\n',
        "group 'g' is in test and train",
        {},
    ),
    'ragged': ('path,label\n"a.mp4,x\nb.mp4,y\n', 'not a CSV file', {}),
    'empty file': ('', 'not a CSV file', {}),
}

@pytest.mark.parametrize('sep', [',', ';', '\t'], ids=['comma', 'semicolon', 'tab'])
@pytest.mark.parametrize('kind', BAD_CSV)
def test_a_bad_row_is_named(tmp_path, kind, sep):
    text, says, kwargs = BAD_CSV[kind]
    for f in 'ab':
        (tmp_path/f'{f}.mp4').touch()
    text = text.replace(',', sep).replace('\n', '\r\n' if sep == ';' else '\n')
    (tmp_path/'t.csv').write_bytes(('\ufeff' if sep == '\t' else '').encode() + text.encode())
    with pytest.raises(DataError, match=says), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from_csv(tmp_path/'t.csv', **kwargs)


def test_not_utf8_and_no_file(tmp_path):
    (tmp_path/'t.csv').write_bytes('path,label\nü.mp4,x\n'.encode('latin-1'))
    with pytest.raises(DataError, match='not a CSV file'):
        from_csv(tmp_path/'t.csv')
    with pytest.raises(DataError, match='no such file'):
        from_csv(tmp_path/'gone.csv')


def test_one_class_warns_and_labels_cannot_run_over(tmp_path):
    for f in 'ab':
        (tmp_path/f'{f}.mp4').touch()
    (tmp_path/'t.csv').write_text('path,label\na.mp4,x\nb.mp4,x\n')
    with pytest.warns(UserWarning, match='one class'):
        t = from_csv(tmp_path/'t.csv')
    assert t.targets.max() < t.n_classes
    with pytest.raises(LabelError, match='twice'):
        ClipTable(t.df, '.', ['x', 'x'])


def test_missing_files_can_be_counted(tmp_path):
    for f in ('a', 'd/ü b'):
        (tmp_path/f'{f}.mp4').parent.mkdir(exist_ok=True)
        (tmp_path/f'{f}.mp4').touch()
    # d is a folder
    (tmp_path/'t.csv').write_text('path,label\na.mp4,x\nq.mp4,y\nd/ü b.mp4,y\nd,y\n', encoding='utf-8')
    t = from_csv(tmp_path/'t.csv', missing='drop')
    assert (t.df.path.tolist(), t.dropped) == (['a.mp4', 'd/ü b.mp4'], {'missing file': 2})
    (tmp_path/'t.csv').write_text('path,label\nq.mp4,y\n')
    with pytest.raises(DataError, match='Is root='):
        from_csv(tmp_path/'t.csv', missing='drop')     # all of them: the wrong folder


def test_a_clip_csv_is_read_once(tmp_path, monkeypatch):
    for c, i in itertools.product('xy', range(4)):
        (tmp_path/c/f'{i}.mp4').parent.mkdir(exist_ok=True)
        (tmp_path/c/f'{i}.mp4').touch()
    (tmp_path / 'clips.csv').write_text(
        'path,label\n' + ''.join(f'{c}/{i}.mp4,{c}\n' for c in 'xy' for i in range(4))
    )
    calls, real = [], datasets.read_list
    monkeypatch.setattr(datasets, 'read_list', lambda csv: calls.append(csv) or real(csv))
    assert len(from_folder(tmp_path, (.5, .5)).select_split('test')) == 4 and len(calls) == 1


def test_folders_with_junk_links_and_empty_classes(tmp_path):
    for f in ('x/1.mp4', 'x/._1.mp4', 'y/2.MP4', 'y/.cache/3.mp4', '__MACOSX/x/1.mp4', 'y/notes.txt'):
        (tmp_path/'set'/f).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'set'/f).touch()
    (tmp_path/'set'/'z').mkdir()
    (tmp_path/'set'/'x'/'loop').symlink_to(tmp_path/'set')
    (tmp_path/'far').mkdir()
    (tmp_path/'far'/'4.mp4').touch()
    (tmp_path/'set'/'w').symlink_to(tmp_path/'far')
    with pytest.warns(UserWarning, match=r"no videos in \['z'\]"):
        t = from_folder(tmp_path/'set')
    assert t.df.path.tolist() == ['w/4.mp4', 'x/1.mp4', 'y/2.MP4']


# Leaks

def test_copies_in_two_splits_are_found_by_content(tmp_path):
    for name, data in (('a', b'same'), ('b', b'same'), ('c', b'diff'), ('e', b'other size')):
        (tmp_path/f'{name}.mp4').write_bytes(data)
    (tmp_path / 't.csv').write_text(
        'path,label,split\na.mp4,x,train\nb.mp4,y,test\nc.mp4,x,train\ne.mp4,y,test\n'
    )
    from_csv(tmp_path/'t.csv', valid=0)
    with pytest.raises(LeakageError, match="a copy of 'a.mp4' is in test and train"):
        from_csv(tmp_path/'t.csv', valid=0, check_content=True)
    with pytest.warns(UserWarning, match='a copy of'):
        from_csv(tmp_path/'t.csv', valid=0, check_content=True, leaks='warn')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        from_csv(tmp_path/'t.csv', valid=0, check_content=True, leaks='allow')


@quick
@given(contents=st.lists(st.binary(max_size=3), min_size=1, max_size=12))
def test_content_ids_are_equality_of_bytes(tmp_path, contents):
    for i, c in enumerate(contents):
        (tmp_path/f'{i}').write_bytes(c)
    ids = content_ids([tmp_path/f'{i}' for i in range(len(contents))])
    for i, j in itertools.combinations(range(len(contents)), 2):
        assert (ids[i] == ids[j]) == (contents[i] == contents[j])


def test_only_files_of_equal_size_are_read(tmp_path, monkeypatch):
    for name, data in (('a', b'1'), ('b', b'22'), ('c', b'33')):
        (tmp_path/name).write_bytes(data)
    read, real = [], files.file_sha256
    monkeypatch.setattr(files, 'file_sha256', lambda p: read.append(os.path.basename(p)) or real(p))
    content_ids([tmp_path/n for n in 'abcc'])
    assert sorted(read) == ['b', 'c']


def test_random_folds_of_real_clips_leak(real_data):
    t = from_csv(real_data/'surv_fight'/'clips.csv', group='source')
    drawn = t.df.assign(split=np.where(np.random.default_rng(0).random(len(t)) < .3, 'test', 'train'))
    with pytest.raises(LeakageError, match='such groups'):
        check_leaks(drawn)
    for f in t.kfold(5, valid=.1):
        check_leaks(f.df)


# Official layouts, in miniature

@pytest.fixture(scope='session')
def clip_file(tmp_path_factory):
    return write_video(
        tmp_path_factory.mktemp('one') / 'clip.mp4', motion_clip('left', 0, n_frames=4, size=32)
    )

@pytest.fixture
def put(tmp_path, clip_file):
    "put(path) links a real clip there; put(path, text) writes a list."
    def put(path, text=None):
        file = tmp_path/path
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            os.link(clip_file, file)
        else:
            file.write_bytes(text.encode())
        return file
    return put


def all_readable(t):
    for p in t.paths:
        assert len(read_frames(p, [0, 3])) == 2


UCF = ['ApplyEyeMakeup', 'Archery', 'HandstandPushups']
TESTED = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}  # the groups of the official test lists

def ucf_name(label, g):
    return f"{label}/v_{label.replace('Handstand', 'HandStand')}_g{g:02}_c01.avi"  # as they spell it


@pytest.fixture
def ucf_tree(put, tmp_path):
    for c in UCF:
        for g in range(1, 26):
            put(f'ucf/UCF-101/{ucf_name(c, g)}')
    put('ucf/ucfTrainTestlist/classInd.txt', ''.join(f'{i} {c}\r\n' for i, c in enumerate(UCF, 1)))
    for fold, tested in TESTED.items():
        train = [
            f'{ucf_name(c, g)} {i}\r\n' for i, c in enumerate(UCF, 1) for g in range(1, 26) if g not in tested
        ]
        put(f'ucf/ucfTrainTestlist/trainlist{fold:02}.txt', ''.join(train))
        put(
            f'ucf/ucfTrainTestlist/testlist{fold:02}.txt',
            ''.join(f'{ucf_name(c, g)}\r\n' for c in UCF for g in tested),
        )
    return tmp_path/'ucf'


@pytest.mark.parametrize('fold', [1, 2, 3])
def test_ucf101(ucf_tree, fold):
    t = ucf101(ucf_tree, fold=fold)
    assert (t.labels, t.splits, t.dropped) == (UCF, ['train', 'test'], {})
    assert set(t.select_split('test').df.group) == {f'{c}/g{g:02}' for c in UCF for g in TESTED[fold]}
    assert len(t) == 75
    assert (t.df.label == t.df.path.str.split('/').str[-2]).all() and t.targets.tolist() == sorted(
        t.targets.tolist()[:54]
    ) + t.targets.tolist()[54:]
    with_valid = ucf101(ucf_tree, ucf_tree/'ucfTrainTestlist', fold, valid=.2)
    assert with_valid.select_split('test').df.equals(t.select_split('test').df)
    assert 'valid' in with_valid.splits
    all_readable(t.filter(t.df.group.str.endswith('/g01')))


def test_ucf101_leaked_groups_and_wrong_lists(ucf_tree, put):
    lists = ucf_tree/'ucfTrainTestlist'
    test, train = (lists/'testlist01.txt').read_text(), (lists/'trainlist01.txt').read_text()
    one = ucf_name('Archery', 9)
    (lists/'testlist01.txt').write_text(test + one)                                      # the same clip
    with pytest.raises(LeakageError, match=f"path 'UCF-101/{one}' is in test and train"):
        ucf101(ucf_tree)
    other = one.replace('_c01', '_c02')                       # moved: another clip of its film is left behind
    put(f'ucf/UCF-101/{other}')
    (lists/'trainlist01.txt').write_text(train.replace(f'{one} 2', f'{other} 2'))
    with pytest.raises(LeakageError, match="group 'Archery/g09' is in test and train"):
        ucf101(ucf_tree)
    with pytest.warns(UserWarning, match="group 'Archery/g09'"):
        assert len(ucf101(ucf_tree, leaks='warn')) == 76
    (lists/'testlist01.txt').write_text(test)
    (lists/'trainlist01.txt').write_text(train.replace(f'{one} 2', f'{one} 3'))
    with pytest.raises(DataError, match='trainlist01.txt, line .*Archery'):
        ucf101(ucf_tree)
    (lists/'trainlist01.txt').write_text(train)
    (ucf_tree/'UCF-101'/one).unlink()
    with pytest.raises(DataError, match=f'1 of the 75 listed videos are not there, the first: {one}'):
        ucf101(ucf_tree)
    assert ucf101(ucf_tree, missing='drop').dropped == {'missing file': 1}
    put(f'ucf/copy/{ucf_name("Archery", 1)}')
    with pytest.raises(DataError, match="are both 'v_Archery_g01_c01'"):
        ucf101(ucf_tree, missing='drop')


def test_ucf101_converted_and_flat(put, tmp_path, ucf_tree):
    for c in UCF:
        for g in range(1, 26):
            put('flat/' + ucf_name(c, g).split('/')[1].replace('.avi', '.mp4').lower())
    assert len(ucf101(tmp_path/'flat', ucf_tree/'ucfTrainTestlist')) == 75


HMDB = ['brush_hair', 'wave']

@pytest.fixture
def hmdb_tree(put, tmp_path):
    films = ['April_09', 'RATRACE', '50_FIRST_DATES', '#Trumans_(show)!']
    for c in HMDB:
        names = [f'{film}_{c}_u_cm_np{n}_fr_med_{i}.avi' for i, film in enumerate(films) for n in (1, 2)]
        for n in names:
            put(f'hmdb/videos/{c}/{n}')
        for fold in (1, 2, 3):  # film `fold` is tested, film 0 is in neither part
            marks = [0 if i < 2 else 2 if i//2 == fold else 1 for i in range(8)]
            put(
                f'hmdb/testTrainMulti_7030_splits/{c}_test_split{fold}.txt',
                ''.join(f'{n} {m} \n' for n, m in zip(names, marks)),
            )
    return tmp_path/'hmdb'


@pytest.mark.parametrize('fold, film', [(1, 'RATRACE'), (2, '50_FIRST_DATES'), (3, '#Trumans_(show)!')])
def test_hmdb51(hmdb_tree, fold, film):
    with warnings.catch_warnings():
        warnings.simplefilter('error')                                                   # no leak
        t = hmdb51(hmdb_tree, fold=fold)
    assert (t.labels, t.dropped, len(t)) == (HMDB, {f'not in fold {fold}': 4}, 12)
    assert set(t.select_split('test').df.group) == {f'{c}/{film}' for c in HMDB}
    assert (t.df.path.str.split('/').str[-2] == t.df.label).all()
    all_readable(t.select_split('test'))


def test_hmdb51_leak_and_bad_mark(hmdb_tree):
    file = hmdb_tree/'testTrainMulti_7030_splits'/'wave_test_split1.txt'
    text = file.read_text()
    file.write_text(
        text.replace('RATRACE_wave_u_cm_np1_fr_med_1.avi 2', 'RATRACE_wave_u_cm_np1_fr_med_1.avi 1')
    )
    with pytest.warns(UserWarning, match="group 'wave/RATRACE' is in test and train"):
        hmdb51(hmdb_tree)
    with pytest.raises(LeakageError):
        hmdb51(hmdb_tree, leaks='error')
    file.write_text(text.replace(' 2 ', ' 3 '))
    with pytest.raises(DataError, match="wave_test_split1.txt, line 3: .*expected 'clip.avi 0', 1 or 2"):
        hmdb51(hmdb_tree)
    with pytest.raises(DataError, match='give the folder of the lists'):
        hmdb51(hmdb_tree/'videos')


def test_real_names_have_their_groups(real_data):
    files = [f.stem for f in (real_data/'single').iterdir()]
    assert {ucf_group(f) for f in files if f.startswith('v_Soccer')} == {'g23', 'g24'}
    assert {hmdb_group(f, 'wave') for f in files if '_wave_' in f} == {
        'wave/RATRACE',
        'wave/TrumanShow',
        'wave/SchoolRulesHowTheyHelpUs',
    }
    assert {hmdb_group(f, 'cartwheel') for f in files if 'cartwheel' in f} == {
        'cartwheel/hmdb51_Turnk_r_Pippi_Michel'
    }


HEAD = 'label,youtube_id,time_start,time_end,split,is_cc\n'

@pytest.mark.parametrize('form', ['cut, flat', 'cut, class folders', 'whole'])
def test_kinetics(put, tmp_path, form):
    rows = [
        ('playing guitar', '--aaaaaaaaa', 10, 20, 'train'),
        ("massaging person's head", 'BBBBbbbb_b2', 0, 10, 'train'),
        ('playing guitar', 'bbbbBBBB_b2', 5, 15, 'train'),
        ('playing guitar', 'ccc-ccccccc', 100, 110, 'validate'),
        ('abseiling', 'gone_goneee', 1, 11, 'validate'),
        ('abseiling', 'ddddddddddd', 7, 17, 'test'),
    ]
    for csv, split in (('train', 'train'), ('val', 'validate'), ('test', 'test')):
        put(
            f'k/annotations/{csv}.csv',
            HEAD + ''.join(f'"{l}",{i},{a},{b},{s},0\n' for l, i, a, b, s in rows if s == split),
        )
    for l, i, a, b, s in rows:
        if i == 'gone_goneee':
            continue
        folder = f"{s[:5]}/{l.replace(' ', '_')}" if form == 'cut, class folders' else s[:3]
        put(f'k/{folder}/{i}.mp4' if form == 'whole' else f'k/{folder}/{i}_{a:06}_{b:06}.mp4')
    t = kinetics(tmp_path/'k')
    assert t.labels == ['abseiling', "massaging person's head", 'playing guitar'] and t.dropped == {
        'missing file': 1
    }
    assert t.df.split.tolist() == ['train'] * 3 + ['valid', 'test'] or sorted(t.df.split) == [
        'test',
        'train',
        'train',
        'train',
        'valid',
    ]
    assert t.df.group.nunique() == 5  # two ids that differ in case only
    if form == 'whole':
        assert {tuple(w) for w in t.windows} == {(a, b) for _, i, a, b, _ in rows if i[:4] != 'gone'}
    else:
        assert t.windows is None
    all_readable(t)
    again = from_csv(t.save(tmp_path/'t.csv'))
    assert again.df.equals(t.df) and again.dropped == t.dropped


def test_kinetics_replacements_windows_and_lists_without_labels(put, tmp_path):
    put(
        'k/a.csv',
        'label,youtube_id,time_start,time_end,split\nrun,aaaaaaaaaaa,0,10,train\n'
        'run,aaaaaaaaaaa,20,30,train\nwalk,bbbbbbbbbbb,5,15,train\n',
    )
    put('k/k700_test.csv', 'youtube_id,time_start,time_end\nccccccccccc,1,11\n')
    put('k/other.csv', 'path,label\nx,y\n')  # not a list of Kinetics
    put('k/train/aaaaaaaaaaa.mp4')
    put('k/train/bbbbbbbbbbb_000005_000015.mp4')
    put('k/test/ccccccccccc.mp4')
    put('k/replacement/replacement_for_corrupted_k400/bbbbbbbbbbb_000005_000015.mp4')
    t = kinetics(tmp_path/'k', name='k700')
    assert (t.name, t.dropped) == ('k700', {'no label': 1})
    assert t.df.path.tolist() == ['train/aaaaaaaaaaa.mp4'] * 2 + [
        'replacement/replacement_for_corrupted_k400/bbbbbbbbbbb_000005_000015.mp4'
    ]
    np.testing.assert_array_equal(t.windows, [[0, 10], [20, 30], [np.nan, np.nan]])
    put('k/b.csv', 'label,youtube_id,time_start,time_end,split\nrun,aaaaaaaaaaa,40,50,val\n')
    with (
        pytest.warns(UserWarning, match="path 'train/aaaaaaaaaaa.mp4' is in train and valid"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings('ignore', message='group')
        kinetics(tmp_path/'k')
    with pytest.raises(LeakageError):
        kinetics(tmp_path/'k', leaks='error')
    with pytest.raises(DataError, match='line 2: the time_end is empty'):
        kinetics(
            tmp_path / 'k',
            put('y.csv', 'label,youtube_id,time_start,time_end,split\nrun,aaaaaaaaaaa,4,,val\n'),
        )
    with pytest.raises(DataError, match='no such folder'):
        kinetics(tmp_path/'nowhere')
    with pytest.raises(DataError, match="no column 'time_end'"):
        kinetics(tmp_path/'k', put('x.csv', 'label,youtube_id,time_start\n'))


def ssv2_entry(i, template, *things):
    label = re.sub(r'\[[^]]*\]', '{}', template).format(*things)
    return {'id': str(i), 'label': label, 'template': template, 'placeholders': list(things)}

@pytest.mark.parametrize('prefix', ['something-something-v2-', ''])
def test_ssv2(put, tmp_path, prefix):
    classes = [
        "Putting something on the edge of something so it is not supported and falls down",
        "Pushing something from right to left",
        "Pushing something from left to right",
        "Poking something so lightly that it doesn't or almost doesn't move",
    ]
    put(f'ss/labels/{prefix}labels.json', json.dumps({c: str(i) for i, c in enumerate(classes)}))
    train = [
        ssv2_entry(3, 'Pushing [something] from left to right', 'a mug'),
        ssv2_entry(12, "Poking [something] so lightly that it doesn't or almost doesn't move", 'cat'),
        ssv2_entry(
            5,
            'Putting [something] on the edge of [something] so it is not supported and falls down',
            'a pen',
            'table',
        ),
    ]
    put(f'ss/labels/{prefix}train.json', json.dumps(train))
    put(
        f'ss/labels/{prefix}validation.json',
        json.dumps([ssv2_entry(7, 'Pushing [something] from right to left', 'mug')]),
    )
    put(f'ss/labels/{prefix}test.json', json.dumps([{'id': '9'}, {'id': '10'}]))
    for i in (3, 12, 5, 7, 9):
        put(f'ss/20bn-something-something-v2/{i}.webm')
    t = ssv2(tmp_path/'ss')
    assert (t.labels, t.targets.tolist(), t.splits, t.dropped) == (
        classes,
        [2, 3, 0, 1],
        ['train', 'valid'],
        {'no label': 2},
    )
    assert flip_classes(t.labels).tolist() == [0, 2, 1, 3]
    all_readable(t)
    put('ss/labels/test-answers.csv', f'9;{classes[1]}\n10;{classes[0]}\n')
    with pytest.raises(DataError, match='first: 10'):
        ssv2(tmp_path/'ss')
    assert ssv2(tmp_path/'ss', missing='drop').dropped == {'missing file': 1}
    put(f'ss/labels/{prefix}train.json', json.dumps(train + [ssv2_entry(1, 'Eating [something]', 'bread')]))
    with pytest.raises(DataError, match="clip 1: 'Eating something' is not in labels.json"):
        ssv2(tmp_path/'ss')
    put(f'ss/labels/{prefix}train.json', '[{"id"')
    with pytest.raises(DataError, match='train.json: damaged JSON'):
        ssv2(tmp_path/'ss')


JESTER = [
    'Doing other things',
    'Drumming Fingers',
    'No gesture',
    'Pulling Hand In',
    'Pulling Two Fingers In',
    'Pushing Hand Away',
    'Pushing Two Fingers Away',
    'Rolling Hand Backward',
    'Rolling Hand Forward',
    'Shaking Hand',
    'Sliding Two Fingers Down',
    'Sliding Two Fingers Left',
    'Sliding Two Fingers Right',
    'Sliding Two Fingers Up',
    'Stop Sign',
    'Swiping Down',
    'Swiping Left',
    'Swiping Right',
    'Swiping Up',
    'Thumb Down',
    'Thumb Up',
    'Turning Hand Clockwise',
    'Turning Hand Counterclockwise',
    'Zooming In With Full Hand',
    'Zooming In With Two Fingers',
    'Zooming Out With Full Hand',
    'Zooming Out With Two Fingers',
]

def test_jester_from_frames(put, tmp_path):
    put('j/jester-v1-labels.csv', '\n'.join(JESTER))
    put('j/jester-v1-test.csv', '9\n10\n')
    put('j/jester-v1-train.csv', '1;Swiping Left\n2;Thumb Up\n')
    put('j/jester-v1-validation.csv', '3;No gesture\n')
    originals = {}
    for i in (1, 2, 3):
        for t, frame in enumerate(motion_clip('right', i, n_frames=11, size=64)[:, :45, :63], 1):
            jpeg = cv2.imencode('.jpg', frame[..., ::-1])[1].tobytes()
            put(f'j/20bn-jester-v1/{i}/{t:05}.jpg', '').write_bytes(jpeg)
            originals[i, t-1] = cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)[..., ::-1]
    with pytest.raises(DataError, match='folders of JPEGs'):
        jester(tmp_path/'j')
    assert frames_to_videos(tmp_path/'j'/'20bn-jester-v1', tmp_path/'v') == 3
    t = jester(tmp_path/'v', tmp_path/'j')
    assert (t.labels, t.dropped, t.df.label.tolist()) == (
        JESTER,
        {'no label': 2},
        ['Swiping Left', 'Thumb Up', 'No gesture'],
    )
    for i, p in enumerate(t.paths, 1):
        info = probe(p)
        assert (info.n_frames, info.fps, info.width, info.height, info.codec) == (11, 12, 63, 45, 'mjpeg')
        frames = read_frames(p, range(11))
        # and in order
        assert all(np.abs(f.astype(int) - originals[i, k]).mean() < 2 for k, f in enumerate(frames))
    assert frames_to_videos(tmp_path/'j'/'20bn-jester-v1', tmp_path/'v') == 0


def test_frames_that_do_not_belong_together(tmp_path):
    for n, shape in (('1.jpg', (20, 30, 3)), ('2.jpg', (20, 32, 3))):
        cv2.imwrite(str(tmp_path/n), np.zeros(shape, np.uint8))
    with pytest.warns(UserWarning, match='1 of 2 frames were scaled to 30 x 20'):
        frames_to_video(tmp_path, tmp_path/'x.mov')
    assert (probe(tmp_path/'x.mov').n_frames, probe(tmp_path/'x.mov').width) == (2, 30)
    (tmp_path/'x.mov').unlink()
    (tmp_path/'empty').mkdir()
    with pytest.raises(DataError, match='no picture in it'):
        frames_to_video(tmp_path/'empty', tmp_path/'x.mov')
    assert not [f for f in tmp_path.iterdir() if 'x' in f.name]


def test_ucf11_ucf50_weizmann(put, tmp_path):
    for c, stem in (('basketball', 'v_shooting'), ('soccer_juggling', 'v_juggle')):
        for g, n in itertools.product((1, 2, 25), (1, 2)):
            put(f'u11/UCF11_updated_mpg/{c}/{stem}_{g:02}/{stem}_{g:02}_{n:02}.mpg')
        put(f'u11/UCF11_updated_mpg/{c}/Annotation/{stem}_01_01.xgtf', '')
    t = ucf11(tmp_path/'u11')
    assert (
        t.labels == ['basketball', 'soccer_juggling']
        and set(t.df.group) == {'g01', 'g02', 'g25'}
        and len(t) == 12
    )
    assert [f.select_split('test').df.group.nunique() for f in t.kfold(3)] == [1, 1, 1]
    for c, g in itertools.product(('Basketball', 'Billiards'), range(1, 26)):
        put(f'u50/UCF50/{c}/v_{c}_g{g:02}_c01.avi')
    t = ucf50(tmp_path/'u50')
    assert (t.labels, t.df.group.nunique(), t.splits) == (
        ['Basketball', 'Billiards'],
        25,
        ['train', 'valid', 'test'],
    )
    assert (t.df.groupby('group').split.nunique() == 1).all()
    for name in (
        'daria_walk',
        'lena_walk1',
        'lena_walk2',
        'lena_run1',
        'ido_wave1',
        'ido_wave2',
        'ira_pjump',
        'ira_jump',
        'eli_bend',
    ):
        put(f'w/{name}.avi')
    t = weizmann(tmp_path/'w')
    assert dict(zip(t.df.path.str[:-4], t.df.label)) == {
        'daria_walk': 'walk',
        'lena_walk1': 'walk',
        'lena_walk2': 'walk',
        'lena_run1': 'run',
        'ido_wave1': 'wave1',
        'ido_wave2': 'wave2',
        'ira_pjump': 'pjump',
        'ira_jump': 'jump',
        'eli_bend': 'bend',
    }
    all_readable(t)


def test_weizmann_of_real_clips(real_data):
    t = weizmann(real_data/'weizmann'/'silhouettes')
    assert (len(t), t.n_classes, t.df.group.nunique(), t.dropped) == (93, 10, 9, {})
    known = pd.read_csv(real_data/'weizmann'/'clips.csv').set_index('path')
    for p, label, actor in zip(t.df.path, t.df.label, t.df.group):
        assert tuple(known.loc[f'silhouettes/{p}', ['label', 'actor']]) == (label, actor)


# In the mirror

def test_mirror_of_jester_and_of_the_moves():
    flip = flip_classes(JESTER)
    swapped = {JESTER[i]: JESTER[k] for i, k in enumerate(flip) if i != k}
    assert swapped == {
        a: b
        for x, y in (
            ('Swiping Left', 'Swiping Right'),
            ('Sliding Two Fingers Left', 'Sliding Two Fingers Right'),
            ('Turning Hand Clockwise', 'Turning Hand Counterclockwise'),
        )
        for a, b in ((x, y), (y, x))
    }
    moves = list(MOVES)
    flip = {a: moves[k] if k >= 0 else None for a, k in zip(moves, flip_classes(moves))}
    assert flip == {
        'left': 'right',
        'right': 'left',
        'up': 'up',
        'down': 'down',
        'up_left': None,
        'down_right': None,
        'spin_ccw': 'spin_cw',
        'spin_cw': 'spin_ccw',
    }


def test_the_mirror_is_what_the_pixels_do():
    "A mirrored clip of a move that has a counterpart moves as that one does, by phase correlation."
    def step(frames):
        grey = [f.mean(-1).astype(np.float32) for f in frames[:2]]
        return np.array(cv2.phaseCorrelate(*grey)[0])
    moves = list(MOVES)
    flip = flip_classes(moves)
    for label in ('left', 'right', 'up', 'down'):
        ours, theirs = (
            step(motion_clip(label, 4)[:, :, ::-1]),
            step(motion_clip(moves[flip[moves.index(label)]], 4)),
        )
        assert np.abs(ours - theirs).max() < .8 and np.abs(theirs).max() > 1


@quick
@given(st.lists(
    st.lists(st.sampled_from('left right Left turn clockwise counterclockwise cw upright x'.split()),
             min_size=1, max_size=4).map(' '.join),
    min_size=1, max_size=12, unique=True,
))
def test_a_flip_is_its_own_inverse(labels):
    flip = flip_classes(labels)
    assert all(k == -1 or flip[k] == i for i, k in enumerate(flip))


# Downloads

class Site(BaseHTTPRequestHandler):
    "Files with ranges and tags; hangs up half-way `cuts` times; slow where `pause` says so."
    files, cuts, asked, pause = {}, 0, [], 0
    def do_GET(self):
        body = self.files.get(self.path)
        self.asked.append((self.path, self.headers.get('Range')))
        if body is None:
            return self.send_error(404)
        tag, start = f'"{hashlib.md5(body).hexdigest()}"', 0
        if self.headers.get('Range') and self.headers.get('If-Range') == tag:
            start = int(self.headers['Range'][6:-1])
        if start >= len(body) > 0:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(body)}')
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header('ETag', tag)
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        stop = len(body)
        if type(self).cuts > 0:
            type(self).cuts -= 1
            stop = (start + stop)//2
        try:
            for i in range(start, stop, 2**18):
                self.wfile.write(body[i:min(i + 2**18, stop)])
                time.sleep(self.pause)
        except OSError:
            pass
        self.close_connection = True
    def log_message(self, *args): pass


@pytest.fixture
def site():
    Site.files, Site.cuts, Site.asked, Site.pause = {}, 0, [], 0
    server = ThreadingHTTPServer(('127.0.0.1', 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


BODY = np.random.default_rng(0).bytes(5 * 2**20)
SHA = 'sha256:' + hashlib.sha256(BODY).hexdigest()


def test_a_cut_download_goes_on(site, tmp_path):
    Site.files, Site.cuts = {'/f.bin': BODY}, 2
    assert fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA).read_bytes() == BODY
    starts = [int(r[6:-1]) for _, r in Site.asked if r]
    assert len(Site.asked) == 3 and 0 < starts[0] < starts[1]
    assert [f.name for f in tmp_path.iterdir()] == ['f.bin']
    fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA)
    assert len(Site.asked) == 3  # there already, and right


def test_a_cut_download_is_never_taken_for_whole(site, tmp_path):
    Site.files, Site.cuts = {'/f.bin': BODY}, 9
    with pytest.raises(DownloadError, match='run it again to go on'):
        fetch(f'{site}/f.bin', tmp_path/'f.bin', tries=2)     # no checksum
    assert not (tmp_path/'f.bin').exists() and (tmp_path/'f.bin.part').stat().st_size > 0
    Site.cuts = 0
    assert fetch(f'{site}/f.bin', tmp_path/'f.bin').read_bytes() == BODY


def test_a_part_of_another_file_is_not_continued(site, tmp_path):
    Site.files, Site.cuts = {'/f.bin': BODY}, 9
    with pytest.raises(DownloadError):
        fetch(f'{site}/f.bin', tmp_path/'f.bin', tries=1)
    other = BODY[::-1]
    Site.files, Site.cuts = {'/f.bin': other}, 0
    # no checksum: the server's tag decides
    assert fetch(f'{site}/f.bin', tmp_path/'f.bin').read_bytes() == other
    (tmp_path/'g.bin.part').write_bytes(b'of unknown origin')
    assert fetch(f'{site}/f.bin', tmp_path/'g.bin').read_bytes() == other


def test_a_whole_part_is_not_fetched_again(site, tmp_path):
    Site.files = {'/f.bin': BODY}
    (tmp_path/'f.bin.part').write_bytes(BODY)
    (tmp_path/'f.bin.part.tag').write_text(f'"{hashlib.md5(BODY).hexdigest()}"')
    assert fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA).read_bytes() == BODY
    assert [r for _, r in Site.asked] == [f'bytes={len(BODY)}-']


def test_wrong_checksum_then_heals(site, tmp_path):
    Site.files = {'/f.bin': BODY[:-1] + b'x'}
    with pytest.raises(DownloadError, match='does not have the checksum'):
        fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA)
    assert not list(tmp_path.iterdir())
    Site.files = {'/f.bin': BODY}
    assert fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA).exists()
    (tmp_path/'f.bin').write_bytes(b'rotten')  # an existing wrong file is replaced
    assert fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA).read_bytes() == BODY


def test_no_network_no_file_no_space(site, tmp_path, monkeypatch):
    Site.files = {'/f.bin': BODY}
    with pytest.raises(DownloadError, match='no connection'):
        fetch('http://127.0.0.1:9/f.bin', tmp_path/'f.bin')
    with pytest.raises(DownloadError, match='answers 404'):
        fetch(f'{site}/g.bin', tmp_path/'f.bin')
    usage = type('usage', (), dict(free=1_000_000))
    monkeypatch.setattr(downloads.shutil, 'disk_usage', lambda p: usage)
    with pytest.raises(DownloadError, match=r'no space; needs 0.01 GB, 0.00 GB are free'):
        fetch(f'{site}/f.bin', tmp_path/'f.bin')
    assert not list(tmp_path.iterdir())
    with zipfile.ZipFile(tmp_path/'big.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('zeros', bytes(10_000_000))
    with pytest.raises(DownloadError, match='no space'):
        unpack(tmp_path/'big.zip', tmp_path/'out')
    assert [f.name for f in tmp_path.iterdir()] == ['big.zip']


def test_a_disk_that_fills_up_while_writing(site, tmp_path, monkeypatch):
    Site.files = {'/f.bin': BODY}
    def full(items, *args):
        for i, x in enumerate(items):
            if i == 2:
                raise OSError(28, 'No space left on device')
            yield x
    monkeypatch.setattr(downloads, 'progress', full)
    with pytest.raises(DownloadError, match='no space left; free some'):
        fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA)
    assert not (tmp_path/'f.bin').exists()
    monkeypatch.undo()
    assert fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA).read_bytes() == BODY  # on from where it stopped
    assert Site.asked[-1][1] == f'bytes={2*2**18}-'


def test_killed_while_downloading(site, tmp_path):
    Site.files, Site.pause = {'/f.bin': BODY}, .05
    code = ("from vidcls.data.download import fetch; "
            f"fetch({site + '/f.bin'!r}, {str(tmp_path/'f.bin')!r}, {SHA!r})")
    child = subprocess.Popen([sys.executable, '-c', code])
    part = tmp_path/'f.bin.part'
    for _ in range(400):
        if part.exists() and part.stat().st_size >= 2**19:
            break
        time.sleep(.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert part.exists() and not (tmp_path/'f.bin').exists()
    Site.pause = 0
    assert fetch(f'{site}/f.bin', tmp_path/'f.bin', SHA).read_bytes() == BODY
    assert Site.asked[-1][1] is not None


def tar_with(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as t:
        for name, kind, link in members:
            m = tarfile.TarInfo(name)
            m.type, m.linkname, m.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
            t.addfile(m, io.BytesIO(b'text'))
    return out.getvalue()

def zip_with(*members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for name, mode in members:
            m = zipfile.ZipInfo(name)
            m.external_attr = mode << 16
            z.writestr(m, '/etc')
    return out.getvalue()

EVIL = {
    'slip.zip': zip_with(('ok.txt', 0o100644), ('../evil', 0o100644)),
    'absolute.zip': zip_with(('/tmp/evil-vidcls', 0o100644)),
    'windows.zip': zip_with(('..\\evil', 0o100644)),
    'drive.zip': zip_with(('C:/evil', 0o100644)),
    'link.zip': zip_with(('etc', 0o120777)),
    'slip.tar.gz': tar_with(('ok.txt', tarfile.REGTYPE, ''), ('../evil', tarfile.REGTYPE, '')),
    'symlink.tar.gz': tar_with(('out', tarfile.SYMTYPE, '../..'), ('out/evil', tarfile.REGTYPE, '')),
    'hardlink.tar.gz': tar_with(('passwd', tarfile.LNKTYPE, '../../etc/passwd')),
    'device.tar.gz': tar_with(('null', tarfile.CHRTYPE, '')),
}

@pytest.mark.parametrize('name', EVIL)
def test_nothing_is_written_outside(tmp_path, name):
    (tmp_path/'in').mkdir()
    (tmp_path/'in'/name).write_bytes(EVIL[name])
    with pytest.raises(DownloadError, match='leads outside or is no file; refused'):
        unpack(tmp_path/'in'/name, tmp_path/'in'/'out')
    assert [str(f.relative_to(tmp_path)) for f in tmp_path.rglob('*')] == ['in', f'in/{name}'] and not Path(
        '/tmp/evil-vidcls'
    ).exists()


@pytest.mark.parametrize('name', ['a.zip', 'a.tar.gz', 'a.tar'])
def test_damaged_archives_leave_nothing(tmp_path, name):
    whole = (
        zip_with(('a', 0o100644), ('b', 0o100644))
        if name == 'a.zip'
        else tar_with(*[(f'{i}', tarfile.REGTYPE, '') for i in range(50)])
    )
    (tmp_path/name).write_bytes(whole[:len(whole)//2])
    with pytest.raises(DownloadError, match='a damaged archive'):
        unpack(tmp_path/name, tmp_path/'out')
    assert [f.name for f in tmp_path.iterdir()] == [name]
    (tmp_path/name).write_bytes(whole)
    (tmp_path/'.out.tmp').mkdir()
    (tmp_path/'.out.tmp'/'rest').touch()     # of a killed run
    assert not (unpack(tmp_path/name, tmp_path/'out')/'rest').exists()


@pytest.fixture
def no_rar_tools(monkeypatch, tmp_path):
    (tmp_path/'bin').mkdir()
    monkeypatch.setenv('PATH', str(tmp_path/'bin'))
    return tmp_path/'bin'


def test_rar_needs_a_tool_and_uses_it(no_rar_tools, tmp_path):
    "No .rar can be made here; zips under that name and a tool that reads them show what is called."
    inner = zip_with(('wave/a.avi', 0o100644))
    with zipfile.ZipFile(tmp_path/'z', 'w') as z:
        z.writestr('wave.rar', inner)
        z.writestr('README', 'x')
    os.rename(tmp_path/'z', tmp_path/'hmdb51_org.rar')
    rar = tmp_path/'hmdb51_org.rar'
    zip_check, downloads.zipfile.is_zipfile = downloads.zipfile.is_zipfile, lambda f: False
    try:
        with pytest.raises(DownloadError, match='needs one of unrar, unar, bsdtar'):
            unpack(rar, tmp_path/'out')
        def tool(name, code):
            (no_rar_tools/name).write_text(f'#!{sys.executable}\nimport sys, zipfile\n{code}')
            (no_rar_tools/name).chmod(0o755)
        tool('unrar', 'sys.exit("CRC failed")')
        with pytest.raises(DownloadError, match='unrar: CRC failed'):
            unpack(rar, tmp_path/'out')
        assert not (tmp_path/'out').exists()
        tool('bsdtar', 'zipfile.ZipFile(sys.argv[2]).extractall(sys.argv[4])')
        assert sorted(
            str(f.relative_to(tmp_path / 'out')) for f in unpack(rar, tmp_path / 'out').rglob('*')
        ) == ['README', 'wave', 'wave/a.avi']
        tool('bsdtar', 'import os; os.symlink("/etc", sys.argv[4] + "/etc")')
        with pytest.raises(DownloadError, match="holds 'etc', which leads outside"):
            unpack(rar, tmp_path/'out2')
    finally:
        downloads.zipfile.is_zipfile = zip_check


def test_a_whole_data_set(site, tmp_path, ucf_tree):
    "UCF101 in miniature from a server: lists with a published checksum, videos without; then it is read."
    def pack(folder):
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w') as z:
            for f in sorted((ucf_tree/folder).rglob('*.*')):
                z.write(f, f.relative_to(ucf_tree))
        return out.getvalue()
    lists = pack('ucfTrainTestlist')
    Site.files = {'/lists.zip': lists, '/videos.zip': pack('UCF-101')}
    mini = Source(
        site,
        'ours',
        (
            Archive(f'{site}/lists.zip', 'annotations', 'sha256:' + hashlib.sha256(lists).hexdigest()),
            Archive(f'{site}/videos.zip', 'videos'),
        ),
    )
    with pytest.warns(UserWarning, match='videos.zip: nobody has published a checksum'):
        folder = download(mini, tmp_path/'set')
    assert ucf101(folder).df.drop(columns='path').equals(ucf101(ucf_tree).df.drop(columns='path'))
    noted = json.loads((folder/'archives'/'hashes.json').read_text())
    assert noted == {'videos.zip': 'sha256:' + hashlib.sha256(Site.files['/videos.zip']).hexdigest()}
    asked = len(Site.asked)
    download(mini, folder)
    assert len(Site.asked) == asked
    import shutil
    shutil.rmtree(folder/'videos')
    (folder/'archives'/'videos.zip').unlink()
    Site.files['/videos.zip'] += b'changed'
    with pytest.raises(DownloadError, match='does not have the checksum'):
        download(mini, folder)       # not the file of the first time


@pytest.mark.parametrize('name', SOURCES)
def test_every_source_is_fit_to_use(name):
    s = SOURCES[name]
    assert s.home.startswith('http') and s.terms and bool(s.archives) != bool(s.ask)
    for a in s.archives:
        assert re.fullmatch(r'https?://\S+\.(zip|rar)', a.url) and not Path(a.into).is_absolute()
        assert a.known_hash is None or re.fullmatch(r'sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}', a.known_hash)
    if s.ask:
        with pytest.raises(DownloadError, match='then read it with'):
            download(name, 'nowhere')
