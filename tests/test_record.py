"Records: what they say of themselves, and what they are as files."
import csv
import json
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from vidcls.core import CheckpointError, DataError, VidclsError
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader
from vidcls.evaluate import (
    EvalRecord,
    Views,
    combine,
    confusion_figure,
    csv_text,
    evaluate,
    load_record,
    read_clips,
    record_of,
    recompute_record,
    save_record,
)
from vidcls.models.videomae import videomae_tiny
from vidcls.show import write_video

matplotlib.use('Agg')
FORMULAS = [
    '=cmd|calc',
    '+1',
    '-1',
    '@sum',
    '\tx',
    "'=x",
    "''-",
    '=',
    "it's",
    "'quoted'",
    '',
    '§',
    '跑步',
    '1',
    'NA',
    '$5',
    '$a$',
]


def made(right, groups=None, labels=('a', 'b'), **more):
    "The record of answers that are right where it is said; the classes take turns."
    K = len(labels)
    y = np.arange(len(right)) % K
    said = np.where(right, y, (y+1) % K)
    groups = np.arange(len(y)) if groups is None else groups
    clips = pd.DataFrame(
        dict(
            path=[f'{labels[i]}/{n}.mp4' for n, i in enumerate(y)],
            label=[labels[i] for i in y],
            group=[f'{labels[0]}{g}' for g in groups],
        )
    )
    probs = np.where(np.arange(K) == said[:,None], .9, .1/(K-1))
    about = dict(
        dataset='d',
        split='test',
        model='m',
        spec={},
        views=dict(clips=1, crops=1),
        n_expected=len(y),
        failures={},
        seed=0,
    )
    return record_of(clips, probs, list(labels), **about | more)

@pytest.fixture(scope='module')
def judged(tmp_path_factory):
    "A table of six clips with noise in them, and a model that was never trained."
    root, rng = tmp_path_factory.mktemp('clips'), np.random.default_rng(0)
    for label in ('a', 'b'):
        for i in range(3):
            write_video(root/label/f'{i}.mp4', rng.integers(0, 256, (4,16,16,3), dtype=np.uint8), gop=1)
    return from_folder(root, split=(0, 0, 1)), videomae_tiny(n_classes=2, n_frames=2, size=16)


# What it says

@pytest.mark.parametrize('share, words', [(1., 'above chance, and above always naming the commonest class'),
                                          (.5, 'not above chance: the interval '
                                               'contains it'), (0., 'below chance')])
def test_a_record_says_whether_it_is_above_chance(share, words):
    rec = made(np.arange(200) % 100 < 100*share)
    assert rec.verdict == words and words in repr(rec).splitlines()


def test_above_chance_is_not_above_the_commonest_class():
    "Of three classes: 140 clips of one, ten of each other; all that is said is the first."
    y = np.repeat([0, 1, 2], [140, 10, 10])
    clips = pd.DataFrame(
        dict(path=[f'{i}.mp4' for i in range(160)], label=[f'c{i}' for i in y], group=range(160))
    )
    rec = record_of(
        clips,
        np.tile([0.8, 0.1, 0.1], (160, 1)),
        ['c0', 'c1', 'c2'],
        dataset='d',
        split='test',
        model='m',
        spec={},
        views=dict(clips=1, crops=1),
        n_expected=160,
        failures={},
        seed=0,
    )
    assert rec.verdict == 'above chance; not shown to be better than always naming the commonest class'


def test_a_note_is_a_sentence_for_somebody_who_sees_it_first():
    rec = made(np.ones(36, bool), np.arange(36)//3)
    assert repr(rec).endswith('Interval is wide: only 12 independent groups, no mistakes observed.')


def test_what_was_chosen_on_its_clips_is_optimistic(judged, tmp_path):
    table, model = judged
    dl = loader(table, model.spec)
    plain, chosen = evaluate(model, dl), evaluate(model, dl, optimistic=True)
    assert not plain.optimistic and 'optimistic' not in repr(plain)
    assert chosen.optimistic and 'chosen on these clips: optimistic' in repr(chosen)
    back = load_record(save_record(chosen, tmp_path/'r.json'))
    assert (
        back.optimistic
        and back == chosen
        and recompute_record(back).optimistic
        and combine([back, back]).optimistic
    )


@pytest.mark.parametrize('format', ['jpeg', 'raw'])
def test_a_lossy_cache_is_named(judged, tmp_path, format):
    """Noise suffers most: the numbers differ from those of the files, and the record says through what
    they came."""
    table, model = judged
    cached = evaluate(model, loader(table, model.spec, cache=tmp_path/format, cache_format=format))
    files = evaluate(model, loader(table, model.spec))
    same = np.allclose(cached.clips[['p_a', 'p_b']], files.clips[['p_a', 'p_b']], atol=1e-7)
    assert files.cache == '' and 'cache' not in repr(files)
    if format == 'raw':
        assert cached.cache == '' and same
    else:
        assert (
            cached.cache == 'jpeg'
            and not same
            and 'judged through a jpeg cache, not from the files' in repr(cached)
        )
        assert (
            load_record(save_record(cached, tmp_path / 'r.json')).cache
            == recompute_record(cached).cache
            == 'jpeg'
        )
        assert combine([cached, cached]).cache == 'jpeg'


def test_views_are_read_from_the_files_and_the_record_says_so(judged, tmp_path):
    "Several views never come through the cache."
    table, model = judged
    dl = loader(table, model.spec, cache=tmp_path/'jpeg', cache_format='jpeg')
    seen, plain = (evaluate(model, d, views=Views(2), show=False) for d in (dl, loader(table, model.spec)))
    assert seen.cache == '' and seen.clips.p_a.tolist() == plain.clips.p_a.tolist()


def test_tables_are_methods():
    rec = made(np.arange(60) % 3 > 0)
    assert rec.top_losses(5).loss.is_monotonic_decreasing and len(rec.top_losses(5)) == 5
    assert list(rec.class_table().index) == ['a', 'b'] and rec.class_table().n.sum() == 60
    assert rec.plot_confusion().axes


# Pictures

@pytest.mark.filterwarnings('ignore:no installed font')
@pytest.mark.parametrize('labels', [('a', 'b'), ('$5', '$a$'), ('跑步', '走路'), ('x'*200, 'x'*200+'y'),
                                    (r'\frac{', '{}_^'), ('', ' ')])
def test_confusion_pictures_can_be_read(tmp_path, labels):
    """At least 600 pixels wide, names apart from each other, no traceback, no empty boxes for letters
    that no font has."""
    fig = confusion_figure(made(np.ones(20, bool), labels=labels))
    fig.savefig(tmp_path/'confusion.png')
    H, W, _ = matplotlib.image.imread(tmp_path/'confusion.png').shape
    names = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert min(H, W) >= 600 and len(set(names)) == 2 and max(map(len, names)) < 45


# Files

def test_names_are_no_formulas_for_a_spreadsheet(tmp_path):
    "And come back as they were, also those that begin with an apostrophe."
    rec = made(np.arange(4*len(FORMULAS)) % 3 > 0, labels=FORMULAS)
    path = save_record(rec, tmp_path/'r.json')
    with open(tmp_path/'r.csv', newline='', encoding='utf-8') as f:
        cells = [c for row in csv.reader(f) for c in row]
    assert not [c for c in cells if c[:1] in ('=', '+', '-', '@', '\t', '\r') and c]
    back = load_record(path)
    assert back == rec
    for k in ('path', 'label', 'group', 'predicted'):
        assert back.clips[k].tolist() == rec.clips[k].tolist()


@pytest.mark.parametrize('name', FORMULAS)
def test_only_what_would_be_computed_gets_an_apostrophe(name, tmp_path):
    dangerous = name.lstrip("'")[:1] in ('=', '+', '-', '@', '\t') and name.lstrip("'") != ''
    assert csv_text(name) == ("'"+name if dangerous else name)


def test_older_files_load(tmp_path):
    "Without the newer fields, and with names that were written as they are."
    rec = made(np.ones(8, bool), labels=('=a', "it's"))
    path = save_record(rec, tmp_path/'r.json')
    rec.clips.to_csv(tmp_path/'r.csv', index=False)
    told = json.loads(path.read_text())
    for k in ('optimistic', 'cache', 'dropped', 'note'):
        del told[k]
    path.write_text(json.dumps(told))
    back = load_record(path)
    assert (
        not back.optimistic
        and back.cache == ''
        and read_clips(tmp_path / 'r.csv').label.tolist() == rec.clips.label.tolist()
    )


WRONG = dict(
    interval=[[], [1], ['a', 'b'], [0.9, 0.1], [-1, 2], [None, None], {}],
    labels=[[], [1, 2], ['a', 'a'], ['a', 'b', 'c'], 'ab', None],
    views=[{}, {'clips': '1', 'crops': 1}, [], {'clips': None, 'crops': 1}],
    confusion=[[], [[1]], [[1, 2], 3], [['a', 'b']] * 2],
    dropped=[{'why': 'many'}, []],
    video_top1=['1', None, 2, -0.5, []],
    chance=[None, 'a'],
    majority=[[], 7],
    note=[3, []],
    optimistic=['yes', 1],
    cache=[None, 3],
    n_evaluated=['4', 1.5, None, 10**30],
    failures=[[], 3],
    dataset=[None, 1],
    spec=[[], 'x'],
)

@pytest.mark.parametrize('field, value', [(k, v) for k, vs in WRONG.items() for v in vs])
def test_a_field_of_another_kind_is_named(tmp_path, field, value):
    path = save_record(made(np.ones(8, bool)), tmp_path/'r.json')
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=r'r\.json') as e:
        load_record(path)
    assert len(str(e.value)) < 500


@pytest.mark.parametrize('text', ['[]', '{}', 'null', '3', '"x"', '[{}]', '', '{',
                                  '['*100_000, '{"a":'*100_000, '\x00',
                                  '{"labels": ' + '['*5000 + ']'*5000 + '}',
                                  '{"unknown": 1}', 'NaN'])
def test_json_that_is_no_record_is_refused(tmp_path, text):
    path = save_record(made(np.ones(8, bool)), tmp_path/'r.json')
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r'r\.json'):
        load_record(path)


@pytest.mark.parametrize('raw', [b'', b'\xff\xfe\x00', b'path\n', b'a,b\n1,2,3\n', b'"',
                                 b'path,label,group,predicted,p_a,p_b\n' + b'x,a,g,a,nan,1\n'*8])
def test_a_csv_that_is_none_is_refused(tmp_path, raw):
    path = save_record(made(np.ones(8, bool)), tmp_path/'r.json')
    (tmp_path/'r.csv').write_bytes(raw)
    with pytest.raises(CheckpointError, match=r'r\.json'):
        load_record(path)


@pytest.mark.parametrize('call', [lambda r: r.top_losses(0), lambda r: r.top_losses('a'),
                                  lambda r: r.top_losses(1.5)])
def test_odd_numbers_of_rows_are_named(call):
    with pytest.raises(VidclsError, match='n='):
        call(made(np.ones(8, bool)))


@pytest.mark.parametrize('name', ['top_losses', 'class_table'])
def test_a_record_without_clips_says_so(name):
    bare = replace(made(np.ones(8, bool)), clips=None)
    assert isinstance(bare, EvalRecord)
    with pytest.raises(DataError, match='no clips'):
        getattr(bare, name)()
