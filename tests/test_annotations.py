"Exports of Label Studio, CVAT and FiftyOne, by hand after their documentation: read, and written back."
import json
import zipfile

import numpy as np
import pandas as pd
import pytest

from vidcls.core import ArgumentError, DataError
from vidcls.data.annotated import FrameClock, MediaFiles, answers_of, media_path
from vidcls.data.annotations import (
    annotation_tool, from_cvat, from_fiftyone, from_label_studio, label_studio_config, to_cvat, to_fiftyone,
    to_label_studio)
from vidcls.data.datasets import as_table
from vidcls.data.table import ClipTable
from vidcls.records import record_of
from vidcls.show import write_video

NAMES = ('run.mp4', 'a walk.mp4', 'cam 1/day.mp4', 'cam 2/day.mp4')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    "Four videos of twenty frames, ten a second."
    root = tmp_path_factory.mktemp('videos')
    for name in NAMES:
        write_video(root/name, np.zeros((20,16,16,3), np.uint8), fps=10)
    return root


def put(tmp_path, content, name='export.json'):
    (tmp_path/name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path/name


def scenes(root, **columns):
    "Two scenes of one video, and another video as a whole."
    df = pd.DataFrame({'path': ['cam 1/day.mp4']*2 + ['run.mp4'], 'label': ['walk', 'run', 'run'],
                       'group': ['a', 'a', 'b'], 'split': ['train', 'train', 'test'],
                       'start': [.2, .7, None], 'end': [.7, 2., None]})
    return ClipTable(df.assign(**columns), root)


# Files and frames

@pytest.mark.parametrize('media, path', [
    ('/data/upload/1/ab12cd34-run.mp4', '/data/upload/1/ab12cd34-run.mp4'),
    ('/data/local-files/?d=cam%201/day.mp4', 'cam 1/day.mp4'),
    ('s3://bucket/cam/day.mp4', '/cam/day.mp4'), ('https://x.org/a%20b.mp4?token=1', '/a b.mp4'),
    ('/tasks/3/resolve/?fileuri=czM6Ly9idWNrZXQvY2FtL2RheS5tcDQ=', '/cam/day.mp4'),
    ('C:\\films\\day.mp4', 'C:/films/day.mp4'), ('a?b.mp4', 'a?b.mp4'), ('100%.mp4', '100%.mp4')])
def test_addresses_hold_paths(media, path):
    assert media_path(media) == path


@pytest.mark.parametrize('media, path', [
    ('/data/upload/1/ab12cd34-run.mp4', 'run.mp4'), ('/data/upload/1/ab12cd34-a_walk.mp4', 'a walk.mp4'),
    ('/data/local-files/?d=x/cam%202/day.mp4', 'cam 2/day.mp4'), ('gone.mp4', None)])
def test_files_are_found(videos, media, path):
    assert MediaFiles(videos).find(media, 'task 1') == path


def test_two_files_that_fit_are_named(videos):
    with pytest.raises(DataError, match=r"task 1: .*may be 'cam 1/day.mp4', 'cam 2/day.mp4'"):
        MediaFiles(videos).find('/data/upload/1/ab12cd34-day.mp4', 'task 1')


def test_a_whole_path_is_taken_at_its_word(tmp_path):
    for name in ('a.mp4', 'sub/a.mp4'):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).touch()
    files = MediaFiles(tmp_path)
    assert files.find('/data/local-files/?d=a.mp4', '') == 'a.mp4'
    with pytest.raises(DataError, match='may be'):
        files.find('a.mp4', '')                            # CVAT keeps the name alone


def test_frames_and_seconds_are_inverse(videos):
    clock = FrameClock(videos)
    for fps in (None, 10, 24, 7.5):
        n = 20 if fps in (None, 10) else int(np.ceil(2*fps))
        for first, stop in [(0, 1), (3, 4), (3, n), (n-1, n)]:
            got = clock.seconds('run.mp4', first, stop, fps, '')
            assert clock.frames('run.mp4', *got, fps) == (first, stop)
        assert np.isnan(clock.seconds('run.mp4', 0, n, fps, '')).all()
    with pytest.raises(DataError, match="frames 30 to 39 .* has 20.*fps=24"):
        clock.seconds('run.mp4', 30, 40, None, 'task 1')


# Label Studio: labelstud.io/guide/export (JSON, JSON_MIN, CSV), labelstud.io/tags/timelinelabels

def annotation(*results, who=1, **more):
    return {'id': 1001, 'completed_by': who, 'was_cancelled': False, 'ground_truth': False,
            'lead_time': 4.288, 'result': list(results), **more}


def choice(*names):
    return {'id': 'Dx_aB91ISN', 'from_name': 'ch', 'to_name': 'video', 'type': 'choices',
            'value': {'choices': list(names)}}


def span(label, *ranges):
    return {'id': 's', 'from_name': 'tl', 'to_name': 'video', 'type': 'timelinelabels',
            'value': {'ranges': [{'start': a, 'end': b} for a,b in ranges], 'timelinelabels': [label]}}


def task(name, *annotations, i=1, **data):
    return {'id': i, 'project': 83, 'data': {'video': f'/data/upload/83/ab12cd34-{name}', **data},
            'annotations': list(annotations), 'predictions': []}


def test_label_studio_json(tmp_path, videos):
    three = [annotation(choice(c), who=w) for w,c in enumerate(('walk', 'run', 'walk'))]
    file = put(tmp_path, [
        task('run.mp4', annotation(choice('run')), i=1),
        task('a_walk.mp4', *three, i=2), task('a_walk.mp4', annotation(was_cancelled=True), i=3),
        task('gone.mp4', annotation(choice('run')), i=4),
        task('run.mp4', annotation(), i=5), task('run.mp4', i=6)])
    with pytest.raises(DataError, match="1 of its videos .*gone.mp4.*root="):
        from_label_studio(file, videos)
    table = from_label_studio(file, videos, missing='drop', split='test')
    assert dict(zip(table.df.path, table.df.label)) == {'run.mp4': 'run', 'a walk.mp4': 'walk'}
    assert table.dropped == {'skipped': 1, 'without a class': 1, 'not annotated': 1, 'missing file': 1}
    assert table.windows is None


def test_label_studio_timeline(tmp_path, videos):
    file = put(tmp_path, [task('run.mp4', annotation(span('run', (3, 5)), span('walk', (6, 20))))])
    with pytest.warns(UserWarning, match='24 a second'):
        table = from_label_studio(file, videos, split='test')
    assert table.df[['label', 'start', 'end']].values.tolist() == [['run', .2, .5], ['walk', .5, 2.]]
    table = from_label_studio(file, videos, fps=24, split='test')
    np.testing.assert_allclose(table.windows, [[2/24, 5/24], [5/24, 20/24]])
    seconds = {**span('run'), 'type': 'labels', 'value': {'start': .25, 'end': 1.5, 'labels': ['run']}}
    table = from_label_studio(put(tmp_path, [task('run.mp4', annotation(seconds))]), videos, split='test')
    assert table.windows.tolist() == [[.25, 1.5]]


def test_label_studio_min_and_csv(tmp_path, videos):
    own = dict(annotator=1, annotation_id=7, created_at='2021', updated_at='2021', lead_time=3.2)
    spans = [{'ranges': [{'start': 3, 'end': 5}], 'timelinelabels': ['run'], 'type': 'TimelineLabels'}]
    whole = [{'video': '/data/upload/1/ab12cd34-run.mp4', 'id': 1, 'ch': 'run', **own},
             {'video': '/data/upload/1/ab12cd34-a_walk.mp4', 'id': 2, 'ch': 'walk', **own}]
    parts = [{'video': '/data/upload/1/ab12cd34-run.mp4', 'id': 1, 'tl': spans, 'fps': 10, **own}]
    for records, expected in (whole, ['run', 'walk']), (parts, ['run']):
        rows = [{k: json.dumps(v) if isinstance(v, list) else v for k,v in r.items()} for r in records]
        pd.DataFrame(rows).to_csv(tmp_path/'e.csv', index=False, quoting=2)
        a = from_label_studio(put(tmp_path, records), videos, split='test')
        b = from_label_studio(tmp_path/'e.csv', videos, split='test')
        assert list(a.df.label) == list(b.df.label) == expected
        assert annotation_tool(tmp_path/'e.csv') == 'label studio'
    assert a.windows.tolist() == b.windows.tolist() == [[.2, .5]]


@pytest.mark.parametrize('tasks, message', [
    ([task('run.mp4', annotation(choice('run', 'walk')))], "task 1: several classes in one answer"),
    ([task('run.mp4', annotation(choice('run')), annotation(choice('walk'), who=2))],
     "task 1: a tie.*annotator="),
    ([task('run.mp4', annotation(span('a', (1, 3))), annotation(span('a', (1, 4)), who=2))],
     "different ranges.*annotator="),
    ([task('run.mp4', annotation(span('a', (1, 3)), span('b', (1, 3))))], "several classes at one time"),
    ([task('run.mp4', annotation(choice('run'), span('a', (1, 3))))], "several questions.*label='ch'"),
    ([task('run.mp4', annotation(span('a', (5, 3))))], "a range that is none"),
    ([task('run.mp4', annotation(span('a', (None, 3))))], "a range without numbers"),
    ([{**task('', annotation(choice('cat'))), 'data': {'image': 'a.png'}}], "project of pictures"),
    ([{**task('', annotation(choice('good'))), 'data': {'text': 'hello'}}], "project of texts"),
    ([task('run.mp4', annotation({'from_name': 'box', 'value': {'sequence': [], 'labels': ['Man']}}))],
     "answers are"),
    ([task('run.mp4')], "no annotated video .1 not annotated"),
    ({'a': 1}, "not an export of Label Studio"), ([], "not an export"), ('[{"data"', "damaged JSON")])
def test_label_studio_refusals(tmp_path, videos, tasks, message):
    with pytest.raises(DataError, match=message):
        from_label_studio(put(tmp_path, tasks), videos)


@pytest.mark.parametrize('odd', [1e300, None, 'x', {}, [None], float('nan'), float('inf')])
def test_damaged_answers_are_no_crash(tmp_path, videos, odd):
    "What a damaged export may hold in place of a list or a number is counted, or refused with a sentence."
    good = task('a_walk.mp4', annotation(span('walk', (1, 9))), i=2, fps=10)
    bad = [{**good, 'annotations': odd}, {**good, 'annotations': [{'result': odd}]},
           {**good, 'annotations': [annotation({**span('a', (1, 3)), 'value': odd})]},
           {**good, 'annotations': [annotation(span('a', (1, odd)))]}]
    for one in bad:
        try:
            assert len(from_label_studio(put(tmp_path, [good, one]), videos, split='test')) == 1
        except DataError as e:
            assert str(e).startswith(str(tmp_path))


def test_annotators_are_chosen(tmp_path, videos):
    two = [annotation(choice('run')), annotation(choice('walk'), who={'id': 2, 'email': 'b@x.org'})]
    file = put(tmp_path, [task('run.mp4', *two), task('a_walk.mp4', *two, i=2)])
    assert from_label_studio(file, videos, annotator='b@x.org', split='test').labels == ['walk']
    with pytest.raises(DataError, match='different answers'):
        from_label_studio(file, videos, vote='error')
    two[1]['ground_truth'] = True
    assert from_label_studio(put(tmp_path, [task('run.mp4', *two)]), videos, split='test').labels == ['walk']


def test_label_studio_round_trip(tmp_path, videos):
    table = scenes(videos)
    file = to_label_studio(table, None, tmp_path/'t.json')
    again = from_label_studio(file, videos, label='timeline', valid=0.)
    pd.testing.assert_frame_equal(again.df[list(table.df)], table.df[:2])
    assert again.dropped == {'without a class': 1}
    assert 'frameRate="$fps"' in label_studio_config(table) and '<Choices' in label_studio_config(table)


def test_predictions_are_written(tmp_path, videos):
    table = scenes(videos)
    record = record_of(table.df[2:].reset_index(drop=True), np.array([[.9, .1]]), table.labels, dataset='',
                       split='test', model='m', spec={}, views={}, n_expected=1, failures={}, seed=0)
    written, = json.loads(to_label_studio(table, record, tmp_path/'p.json', 'run 7').read_text())
    prediction, = written['predictions']
    assert prediction['model_version'] == 'run 7' and prediction['score'] == .9
    assert prediction['result'][0]['value'] == {'choices': ['run']} and written['data']['split'] == 'test'
    answers = answers_of(table, pd.DataFrame({'path': ['run.mp4'], 'predicted': ['walk']}))
    assert answers[:2] == [None, None] and answers[2].label == 'walk'
    with pytest.raises(ArgumentError, match=r'shape \(2, 2\)'):
        answers_of(table, np.ones((2, 2)))
    with pytest.raises(ArgumentError, match='predictions is a .*Path'):
        answers_of(table, tmp_path)
    with pytest.raises(DataError, match='none of its 1 clips'):
        answers_of(table, pd.DataFrame({'path': ['x.mp4'], 'predicted': ['walk']}))


# CVAT: docs.cvat.ai/docs/manual/advanced/xml_format (Annotation, Interpolation)

META = ('<meta><task><id>5</id><name>clip</name><size>20</size><mode>interpolation</mode>{}</task>'
        '<source>run.mp4</source></meta>')


def cvat(*elements, meta=''):
    content = META.format(meta) + ''.join(elements)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{content}</annotations>'


def tags(label, *frames, attribute=''):
    return ''.join(f'<image id="{i}" name="frame_{i:06d}" width="16" height="16"><tag label="{label}" '
                   f'source="manual">{attribute}</tag></image>' for i in frames)


def track(label, *shapes, value=''):
    def box(f, out):
        return (f'<box frame="{f}" xtl="1" ytl="1" xbr="5" ybr="5" outside="{out}" occluded="0" keyframe="1">'
                f'{value}</box>')
    return f'<track id="0" label="{label}" source="manual">{"".join(box(*s) for s in shapes)}</track>'


def test_cvat_tags_and_tracks(tmp_path, videos):
    action = '<attribute name="action">wave</attribute>'
    run = track('run', (8, 0), (9, 0), (12, 1))
    file = put(tmp_path, cvat(tags('walk', 0, 1, 2), tags('run', 5), run), 'a.xml')
    df = from_cvat(file, videos, split='test').df
    assert df.label.tolist() == ['walk', 'run', 'run']
    np.testing.assert_allclose(df[['start', 'end']], [[0, .3], [.5, .6], [.8, 1.2]])
    packed = tmp_path/'a.zip'
    with zipfile.ZipFile(packed, 'w') as z:
        z.write(file, 'annotations.xml')
    assert len(from_cvat(packed, videos, split='test')) == 3
    file = put(tmp_path, cvat(track('person', (15, 0), value=action)), 'a.xml')
    df = from_cvat(file, videos, attribute='action', split='test').df
    assert df[['label', 'start', 'end']].values.tolist() == [['wave', 1.5, 2.]]
    file = put(tmp_path, cvat(tags('walk', 0, 5), meta='<frame_filter>step=5</frame_filter>'), 'a.xml')
    assert from_cvat(file, videos, split='test').windows.tolist() == [[0, 1.]]
    assert from_cvat(file, videos, whole=True, split='test').windows is None


@pytest.mark.parametrize('text, message', [
    ('<!DOCTYPE x [<!ENTITY a "b">]>' + cvat().split('\n')[1], 'DOCTYPE'),
    (cvat()[:-9], 'damaged XML'), ('<svg/>', 'not an export of CVAT.*<svg>'),
    (cvat(), 'no annotated video .1 not annotated'),
    (cvat(tags('a', 1).replace('</image>', '<tag label="b"/></image>')), 'frame 1 has several classes'),
    (cvat(track('a', (0, 0), (5, 1)), track('b', (0, 0), (5, 1))), 'several classes at one time'),
    (cvat(tags('a', 1)).replace('run.mp4', 'x'), 'names no video'),
    (cvat('<image id="0" name="dog.jpg"><tag label="a"/></image>').replace('run.mp4', 'x'),
     'task of pictures'),
    (cvat(tags('a', 99)), 'frames 99 to 99')])
def test_cvat_refusals(tmp_path, videos, text, message):
    with pytest.raises(DataError, match=message):
        from_cvat(put(tmp_path, text, 'a.xml'), videos)
    if 'DOCTYPE' in message:
        (tmp_path/'a.xml').write_bytes(text.replace('utf-8', 'utf-16').encode('utf-16'))
        with pytest.raises(DataError, match='DOCTYPE'):
            from_cvat(tmp_path/'a.xml', videos)


def test_cvat_round_trip(tmp_path, videos):
    table = scenes(videos, group=['cam 1/day.mp4']*2 + ['run.mp4'], split='test')
    files = to_cvat(table, None, tmp_path/'tags')
    assert [f.name for f in files] == ['cam 1__day.mp4.xml', 'run.mp4.xml']
    pd.testing.assert_frame_equal(from_cvat(tmp_path/'tags', videos, split='test').df, table.df)
    with pytest.raises(ArgumentError, match='2 videos'):
        to_cvat(table, None, tmp_path/'one.xml')
    with pytest.raises(DataError, match='overlap in frame 5'):
        to_cvat(scenes(videos, start=[.2, .5, None]), None, tmp_path/'tags')
    hostile = ClipTable(table.df.replace({'label': {'run': '<a & "b">'}}), videos)
    to_cvat(hostile, None, tmp_path/'tags')
    assert from_cvat(tmp_path/'tags', videos, split='test').labels == hostile.labels


# FiftyOne: docs.voxel51.com/user_guide/import_datasets.html (FiftyOneVideoClassificationDataset and tree)

def fiftyone(folder, targets, classes=('walk', 'run'), names=('a.mp4', 'b.mp4', 'sub/c.mp4')):
    for name in names:
        (folder/'data'/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/'data'/name).touch()
    put(folder, {'classes': classes and list(classes), 'labels': targets}, 'labels.json')
    return folder


def test_fiftyone_labels(tmp_path):
    folder = fiftyone(tmp_path, {'a': 0, 'b': {'label': 1, 'confidence': .7}, 'sub/c': None})
    table = from_fiftyone(folder, split='test')
    assert table.labels == ['walk', 'run'] and list(table.df.label) == ['walk', 'run']
    assert table.dropped == {'unlabelled': 1}
    table = from_fiftyone(fiftyone(tmp_path, {'a': 'x', 'sub/c': ['y']}, None), split='test')
    assert list(table.df.path) == ['data/a.mp4', 'data/sub/c.mp4'] and table.labels == ['x', 'y']
    assert annotation_tool(folder) == 'fiftyone' and len(as_table(folder, split='test')) == 2


@pytest.mark.parametrize('targets, message', [
    ({'a': [0, 1]}, "'a' has several classes"), ({'a': 7}, "the target 7"), ({'x': 0}, "1 of its videos"),
    ([1], "not FiftyOne's")])
def test_fiftyone_refusals(tmp_path, targets, message):
    with pytest.raises(DataError, match=message):
        from_fiftyone(fiftyone(tmp_path, targets))


def test_fiftyone_name_of_two_files(tmp_path):
    with pytest.raises(DataError, match="'a' may be 'data/a.avi', 'data/a.mp4'"):
        from_fiftyone(fiftyone(tmp_path, {'a': 0}, names=('a.mp4', 'a.avi')))


@pytest.mark.parametrize('media', ['link', 'copy'])
def test_fiftyone_round_trip(tmp_path, videos, media):
    df = pd.DataFrame({'path': NAMES, 'label': ['run', 'walk', 'run', 'walk'], 'group': list('aabb'),
                       'split': ['train', 'train', 'test', 'test']})
    table = ClipTable(df, videos)
    again = from_fiftyone(to_fiftyone(table, tmp_path/'json', media=media), valid=0.)
    pd.testing.assert_frame_equal(again.df.assign(path=again.df.path.str.removeprefix('data/')), table.df)
    tree = from_fiftyone(to_fiftyone(table, tmp_path/'tree', 'tree', media=media), valid=0.)
    assert sorted(zip(tree.df.path, tree.df.split)) == [
        ('test/run/cam 1/day.mp4', 'test'), ('test/walk/cam 2/day.mp4', 'test'),
        ('train/run/run.mp4', 'train'), ('train/walk/a walk.mp4', 'train')]
    with pytest.raises(ArgumentError, match='not empty'):
        to_fiftyone(table, tmp_path/'tree')
    with pytest.raises(ArgumentError, match='parts of videos'):
        to_fiftyone(scenes(videos), tmp_path/'parts')


def test_unlabelled_folder(tmp_path):
    for name in ('run/a.mp4', 'walk/b.mp4', '_unlabeled/c.mp4'):
        (tmp_path/name).parent.mkdir()
        (tmp_path/name).touch()
    table = from_fiftyone(tmp_path, split='test')
    assert table.labels == ['run', 'walk'] and table.dropped == {'unlabelled': 1}


# Wherever a data set is asked for

def test_as_table_takes_exports(videos):
    table = ClipTable(scenes(videos).df[2:], videos)
    file = to_label_studio(table, None, videos/'export.json')
    try:
        # as a command gives them
        kwargs = dict(path='path', label='label', group=None, leaks='error', seed=0, split='test')
        assert as_table(file, **kwargs).df.path.tolist() == ['run.mp4']
        (videos/'other.json').write_text('{"a": 1}')
        with pytest.raises(DataError, match='no CSV file'):
            as_table(videos/'other.json')
    finally:
        file.unlink()
        (videos/'other.json').unlink(missing_ok=True)
    folder = videos/'tags'
    xml, = to_cvat(table, None, folder)
    assert as_table(xml.rename(videos/'a.xml'), split='test').df.label.tolist() == ['run']
