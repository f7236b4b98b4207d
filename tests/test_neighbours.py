"Near-duplicates, odd labels, similar clips and maps: what is planted is found, and little else."
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from vidcls.cli import app
from vidcls.clip_map import ClipMap
from vidcls.core import ArgumentError, DataError, seed_everything
from vidcls.data.datasets import from_csv, from_folder
from vidcls.data.doctor import audit
from vidcls.data.loaders import loader, loaders
from vidcls.data.synthetic import make_motion_clips, roll_clips
from vidcls.data.table import ClipTable
from vidcls.duplicates import (
    Film, candidate_pairs, compare_films, film_vectors, likeness, mirrored_sketches, read_film, shifted_match,
)
from vidcls.explore import explore
from vidcls.features import Features, embed
from vidcls.models.zoo import create_model
from vidcls.neighbours import (
    add_near_duplicates, feature_map, near_duplicates, nearest, odd_labels, show_map, similar, sketches,
    unit_vectors,
)
from vidcls.show import write_video
from vidcls.studies.near import (
    COPY_WAYS, judge_pairs, measure_near, plant_copies, plant_copy, plant_wrong_labels, precision_of_odd,
    scene_clip,
)
from vidcls.train import fit

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "Eighty clips, ten copies."
    folder = tmp_path_factory.mktemp('near')
    root = make_motion_clips(folder/'clips', n_groups=10, n_frames=30, fps=15, gop=10)
    return plant_copies(from_folder(root), folder/'copies', 10)


def test_planted_copies_are_found(small):
    table, pairs = small
    found = near_duplicates(sketches(table, show=False), show=False)
    judged = judge_pairs(found, pairs, len(table))
    assert judged['recall'] == 1 and judged['false_alarms'] <= .05, found
    mirrored = found[found.path_b.str.contains('copy_[27]')]
    assert mirrored.mirrored.all()


@pytest.mark.slow
def test_fifty_copies_among_two_thousand(tmp_path):
    "All pairs count, and each clip that is named in a pair which was not planted is a false alarm."
    found = measure_near(tmp_path, 2000, 50)
    assert (found['clips'], found['planted']) == (2050, 50)
    assert found['recall'] >= .95 and found['false_alarms'] <= .01, found


def test_made_clips_differ_and_are_made_again(tmp_path):
    a, b, again = scene_clip((0,1)), scene_clip((0,2)), scene_clip((0,1))
    assert a.shape == (24,64,64,3) and (a == again).all() and (a != b).any()
    with pytest.raises(ArgumentError, match='how'):
        plant_copy('a.mp4', 'turned', tmp_path/'b.mp4', np.random.default_rng(0))


def test_the_doctor_names_pairs_of_two_splits(small):
    table, pairs = small
    rows = [r for p in sorted(pairs)[:3] for r in p]
    part = table.with_rows(table.df.iloc[rows])
    before = audit(part, n_frames=8, workers=1, show=False)
    after = add_near_duplicates(before, show=False)
    near = after.problems[after.problems.kind == 'nearly the same clip in two splits']
    assert len(near) == 3 and (near.severity == 'warning').all()
    looks = 'looks like a clip of another split'
    doubtful = (before.problems.kind == looks).sum()                     # of such a pair, each is said once
    assert doubtful and looks not in set(after.problems.kind)
    assert len(after.problems) == len(before.problems) - doubtful + 3
    for r in near.itertuples():                         # the advice keeps the clip of the test
        assert f'a leak. Leave out {r.path}, or give both the same group' in r.what and '(test)' in r.what


def test_within_a_split_a_pair_is_a_note_and_ten_lines_are_enough(small, tmp_path):
    table, pairs = small
    rows = [r for p in sorted(pairs)[:4] for r in p]
    df = table.df.iloc[rows].assign(split='train', label='x')
    broken = tmp_path/'broken.mp4'
    broken.write_bytes(b'no video')
    bad = pd.DataFrame([dict(path=str(broken), label='x', group='broken', split='train')])
    found = add_near_duplicates(audit(ClipTable(pd.concat([df, bad]), '/'), 8, 1, show=False), show=False)
    near = found.problems[found.problems.kind == 'nearly the same clip twice']
    assert len(near) >= 4 and (near.severity == 'note').all()
    lost = found.problems[found.problems.kind == 'not searched for near-duplicates'].what.item()
    assert lost == f'clips that cannot be read: 1 ({broken})'
    found.problems = pd.concat([found.problems, near, near, near], ignore_index=True)
    n = 4*len(near)
    said = repr(found).split(f'note: nearly the same clip twice ({n})\n')[1].splitlines()
    assert sum('is the same recording as' in line for line in said) == 10
    assert f'  … and {n-10} more in problems.csv' in said
    found.save(tmp_path/'audit')
    kept = pd.read_csv(tmp_path/'audit'/'problems.csv')
    assert (kept.kind == 'nearly the same clip twice').sum() == n


def test_the_doctor_leaves_equal_files_and_broken_ones_out(small, tmp_path):
    table, pairs = small
    a, b = min(pairs)
    for name, path in dict(one=table.paths[a], two=table.paths[a], three=table.paths[b]).items():
        (tmp_path/f'{name}.mp4').write_bytes(path.read_bytes())
    (tmp_path/'broken.mp4').write_bytes(b'no video')
    names = ['one', 'two', 'three', 'broken']
    df = pd.DataFrame(dict(path=[f'{n}.mp4' for n in names], label=['x','x','y','y'], group=names,
                           split=['train','test','train','train']))
    found = add_near_duplicates(audit(ClipTable(df, tmp_path), 8, 1, show=False), show=False)
    kinds = found.problems.kind.value_counts()
    assert kinds['the same clip in two splits'] == 1
    assert kinds['nearly the same clip in two splits'] == 1              # two and three
    assert kinds['nearly the same clip, two labels'] == 1                # one and three


def test_candidates_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23,4,144)).astype(np.float32)
    x[7] = mirrored_sketches(x[3:4])[0]
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    def loop(a, b):
        c = a @ b.T
        return max(c.max(1).mean(), c.max(0).mean())
    want = np.array([[loop(a, b) for b in x] for a in x])
    assert np.allclose(likeness(x, x), want, atol=1e-5)
    both = np.maximum(want, [[loop(a, b) for b in x] for a in mirrored_sketches(x)])
    pairs = {(i,j) for i in range(23) for j in range(i+1,23) if both[i,j] >= .12}
    for block in (5, 64):
        assert set(map(tuple, candidate_pairs(x, .12, 23, mirrored_sketches, block))) == pairs
    assert (3,7) in pairs


def test_matches_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    a, b = (film_vectors(rng.integers(0, 256, (n,40,40)).astype(np.uint8)) for n in (9, 6))
    frames, moves, _, shifts = shifted_match(a, b, 4)
    assert shifts.tolist() == list(range(-2, 6))
    for f,m,s in zip(frames, moves, shifts):
        x, y = a[max(s,0):][:6-max(-s,0)], b[max(-s,0):]
        n = min(len(x), len(y))
        x, y = x[:n].astype(float), y[:n].astype(float)
        assert np.isclose(f, (x*y).sum(1).mean(), atol=1e-5)
        x, y = x-x.mean(0), y-y.mean(0)
        assert np.isclose(m, (x*y).sum()/np.sqrt((x*x).sum()*(y*y).sum()), atol=1e-4)


def test_short_still_black_and_long_clips(tmp_path):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.integers(0, 255, (1,8,8,3)).astype(np.uint8).repeat(8,1).repeat(8,2), 12, 0)
    other = np.repeat(rng.integers(0, 255, (1,8,8,3)).astype(np.uint8).repeat(8,1).repeat(8,2), 12, 0)
    clips = dict(still=x, again=x, other=other, one=x[:1], black=x*0)
    films = {}
    for k,v in clips.items():
        path = write_video(tmp_path/f'{k}.mp4', v, fps=12)
        if k != 'one':
            films[k] = read_film(path)
    assert compare_films(films['still'], films['again'])['score'] > .95
    assert compare_films(films['still'], films['other'])['score'] < .5
    assert compare_films(films['still'], films['black'])['score'] < .5
    long = read_film(write_video(tmp_path/'long.mp4', np.concatenate([x]*10), fps=5))
    assert len(long.frames) <= 192 and long.doubled == 2
    assert compare_films(long, films['still'])['score'] > .9             # two steps of time
    assert compare_films(Film(x[:1,:40,:40,0], 0), Film(x[:1,:40,:40,0], 0))['score'] > .99


def test_arguments_are_named(small):
    features = Features(np.zeros((len(small[0]),3), np.float32), small[0], dict(model='x'))
    for bad in (dict(least=2), dict(alike=-.1), dict(most=0)):
        with pytest.raises(ArgumentError, match=next(iter(bad))):
            near_duplicates(features, show=False, **bad)


# Neighbours

def clouds(n_classes=4, n=300, dim=16, spread=.35, seed=0):
    "Features of classes that overlap a little."
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    x = rng.normal(size=(n_classes,dim))[y]/2 + spread*rng.normal(size=(n,dim)) + 3
    rows = dict(path=[f'{i}.mp4' for i in range(n)], label=[f'class {c}' for c in y], split='train')
    df = pd.DataFrame(rows | dict(group=[f'g{i//4}' for i in range(n)]))
    return Features(x.astype(np.float32), ClipTable(df, '/clips'), dict(model='x', layer=-1, pool=None)), y


def test_nearest_is_a_sort_of_all_cosines():
    x = unit_vectors(np.random.default_rng(0).normal(size=(40,8)))
    rows, cosines = nearest(x[:11], x, 5, block=3)
    want = np.argsort(-(x[:11] @ x.T), 1)[:,:5]
    assert (rows == want).all() and np.allclose(cosines[:,0], 1, atol=1e-5)


def test_wrong_labels_come_first():
    features, _ = clouds()
    broken, wrong = plant_wrong_labels(features, 30)
    found = odd_labels(broken)
    assert np.isin(found.index[:30], wrong).mean() >= .9
    hit = found[found.index.isin(wrong)]
    assert (hit.suggested == features.table.df.label.to_numpy()[hit.index]).mean() > .9
    assert found.score.is_monotonic_decreasing and found.score.between(0, 1).all()
    assert found.nearest.str.count('mp4').eq(3).all()


@pytest.mark.slow
def test_wrong_labels_come_first_on_learned_features(tmp_path):
    "A small network learns motion on other scenes; 30 of 400 labels are wrong."
    moves = ['left', 'right', 'up', 'down']
    made = [from_folder(make_motion_clips(tmp_path/f'{seed}', n_groups=100, n_frames=8, size=32, seed=seed))
            for seed in (0, 1)]
    known, new = (table.select_classes(moves) for table in made)
    seed_everything(0)
    model = create_model('videomae_tiny', n_classes=4)
    fit(model, loaders(known, model.spec, bs=32), epochs=20, lr=2e-3, augment=roll_clips, show=False)
    features = embed(model, new, show=False)
    assert len(features) == 400
    assert min(precision_of_odd(features, 30, seed) for seed in range(3)) >= .8


def test_clips_of_one_group_do_not_vote():
    "A film whose clips all have the same wrong label does not vouch for itself."
    features, y = clouds(n=120)
    df = features.table.df.reset_index(drop=True)
    film = np.flatnonzero(y == 0)[:12]
    df.loc[film,'label'], df.loc[film,'group'] = 'class 1', 'film'
    found = odd_labels(Features(features.x, features.table.with_rows(df), features.about))
    assert np.isin(film, found.index[:14]).all()
    alone = df.assign(group='all')
    with pytest.raises(ArgumentError, match='one group'):
        odd_labels(Features(features.x, features.table.with_rows(alone), features.about))


def test_similar_takes_a_row_a_path_or_features():
    features, y = clouds()
    found = similar(features, 5, k=20)
    assert len(found) == 20 and '5.mp4' not in set(found.path)
    assert (found.label == 'class 1').mean() > .9 and found.similarity.is_monotonic_decreasing
    for clip in ('5.mp4', '/clips/5.mp4', features.select([5])):
        pd.testing.assert_frame_equal(similar(features, clip, k=20), found)
    for clip in ('none.mp4', 300, -1):
        with pytest.raises(ArgumentError, match='not among'):
            similar(features, clip)
    other = Features(features.x[:1], features.select([0]).table, dict(model='y', layer=-1, pool=None))
    with pytest.raises(ArgumentError, match='model'):
        similar(features, other)
    tokens = Features(features.x[:,None], features.table, features.about)
    with pytest.raises(ArgumentError, match='pooled'):
        similar(tokens, 0)


@pytest.mark.parametrize('method', ['pca', 'tsne'])
def test_a_map_keeps_classes_together(method):
    features, y = clouds(n=120)
    places = feature_map(features, method)
    assert places.shape == (120,2) and np.isfinite(places).all()
    assert (places == feature_map(features, method)).all()
    far = np.linalg.norm(places[:,None]-places, axis=-1) + 1e9*np.eye(120)
    assert (y[far.argmin(1)] == y).mean() > (.5 if method == 'pca' else .8)
    fig = show_map(features, places)
    assert len(fig.axes[0].collections) == 4


def test_a_map_refuses_what_it_cannot_draw():
    features, _ = clouds()
    with pytest.raises(ArgumentError, match='method'):
        feature_map(features, 'umap')
    with pytest.raises(ArgumentError, match='at least 4'):
        feature_map(features.select([0,1]))


class Page(HTMLParser):
    "The elements of a piece of HTML; raises where a tag is closed that is not open."
    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ('input', 'img', 'meta', 'br'):
            self.open.append(tag)

    def handle_endtag(self, tag): assert self.open.pop() == tag

    def all(self, tag): return [a for t,a in self.found if t == tag]


@pytest.fixture
def clips_and_model(tmp_path):
    table = from_folder(make_motion_clips(tmp_path/'clips', n_groups=10, n_frames=8, size=32))
    table = table.select_classes(['left', 'right'])
    return table.with_rows(table.df.assign(split='test')), create_model('videomae_tiny', n_classes=2, depth=1)


def test_the_map_of_the_explorer_plays_without_a_script(clips_and_model, tmp_path):
    table, model = clips_and_model
    seen = explore(model, loader(table, model.spec, bs=8))
    drawn = seen.map(films=10, show=False)
    assert repr(drawn) == 'ClipMap(20 clips, 10 of them play)' and repr(seen.map(show=False)).count('20') == 2
    plays = [c for c,s in zip(drawn.classes, drawn.strips) if s]
    assert plays.count('left') == plays.count('right') == 5            # as many of each class
    page = Page(drawn._repr_html_())
    points, films = page.all('input'), [a for a in page.all('span') if a.get('role') == 'img']
    assert len(points) == 20 and {a['type'] for a in points} == {'radio'}
    assert len({a['name'] for a in points}) == 1                     # one group: the arrow keys go through it
    names = {f'{p}, class {l}' for p,l in zip(table.df.path, table.df.label)}
    assert {a['aria-label'] for a in points} == names
    assert len(films) == 10 and all(a['aria-label'] for a in films)
    assert not page.all('script') and all(a['src'].startswith('data:image/jpeg') for a in page.all('img'))
    assert len({re.search('border-color:([^;]+)', a['style'])[1] for a in points}) == 2
    whole = drawn.save(tmp_path/'map.html').read_text()
    assert drawn._repr_html_() in whole and Page(whole).all('meta') and 'http' not in whole
    assert (drawn.places == seen.map(show=False).places).all()
    jpeg, width = next(s for s in drawn.strips if s)
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (96,8*width,3)


def test_a_map_names_what_it_lacks(clips_and_model):
    table, model = clips_and_model
    (table.root/table.df.path.iloc[3]).write_bytes(b'no video')
    seen = explore(model, loader(table, model.spec, bs=8, on_error='skip'))
    drawn = seen.map('tsne', show=False)
    assert repr(drawn) == 'ClipMap(19 clips, 19 of them play, 1 could not be read)'
    assert ' 1 could not be read.' in drawn._repr_html_()
    few = table.with_rows(table.df.iloc[:4])
    with pytest.raises(DataError, match='3 of 4 clips can be read; a map needs at least 4'):
        explore(model, loader(few, model.spec, bs=8, on_error='skip')).map(show=False)
    with pytest.raises(ArgumentError, match='method'):
        seen.map('umap')


def test_names_on_a_map_are_text():
    drawn = ClipMap(np.zeros((2,2)), ['<b>', '"a"'], ['x<y', 'x<y'], ['x<y'], [None, None])
    page = Page(drawn._repr_html_())
    assert {a['aria-label'] for a in page.all('input')} == {'<b>, class x<y', '"a", class x<y'}
    assert not page.all('b') or len(page.all('b')) == 2              # of the cards


# Commands

def run(*args):
    return subprocess.run([sys.executable, '-m', 'vidcls.cli', *map(str, args)], text=True, timeout=600,
                          capture_output=True, env={**os.environ, 'VIDCLS_PROGRESS': '0'})


def test_the_commands(small, tmp_path):
    table, pairs = small
    a, b = min(pairs)
    df = table.df.iloc[[a, b, b-11]]
    df.to_csv(tmp_path/'clips.csv', index=False)
    r = run('doctor', tmp_path/'clips.csv', '--near', '--out', tmp_path/'audit', '--workers', 1)
    assert r.returncode == 0 and 'nearly the same clip in two splits (1)' in r.stdout, r.stdout + r.stderr
    assert 'is the same recording as' in (tmp_path/'audit'/'index.html').read_text()
    r = run('similar', table.paths[b], '--among', tmp_path/'clips.csv', '--model', 'handcrafted', '--out',
            tmp_path/'f', '--most', 1)
    assert r.returncode == 0 and str(table.paths[a]) in r.stdout, r.stdout + r.stderr


def test_similar_speaks_plainly(small, tmp_path):
    "A wrong path, an empty folder, a broken clip: each is named, with the way out."
    table, _ = small
    (tmp_path/'empty').mkdir()
    (tmp_path/'flat').mkdir()
    for i in (0, 1):
        (tmp_path/'flat'/f'{i}.mp4').write_bytes(table.paths[i].read_bytes())
    (tmp_path/'flat'/'broken.mp4').write_bytes(b'no video')
    def said(clip, among='flat', model='handcrafted'):
        r = CliRunner().invoke(app, ['similar', str(clip), '--among', str(tmp_path/among), '--model', model,
                                     '--out', str(tmp_path/'f'), '--device', 'cpu'])
        return r.exit_code, r.exception if r.exit_code else r.output
    code, text = said(tmp_path/'flat'/'0.mp4')
    assert code == 0 and str(tmp_path/'flat'/'1.mp4') in text, text
    assert 'clips that could not be read: 1' in text and text.count('broken.mp4') == 1
    for clip, among, part in (
            ('nowhere.mp4', 'flat', 'nowhere.mp4: no such file'), (tmp_path/'flat', 'flat', 'one video file'),
            (tmp_path/'flat'/'broken.mp4', 'flat', 'not a video'),
            (table.paths[0], 'empty', 'found no videos'), (table.paths[0], 'none', 'no such file'),
            (tmp_path/'flat'/'0.mp4', 'flat/0.mp4', 'holds no clip besides')):
        code, text = said(clip, among)
        assert code and part in str(text), (clip, among, text)
    code, text = said(tmp_path/'flat'/'0.mp4', model='i3d_tiny')
    assert code == 0 and 'drawn at random' in text


# Real clips

real = Path(os.environ.get('VIDCLS_TEST_DATA', 'nowhere'))

@pytest.mark.skipif(not real.is_dir(), reason='VIDCLS_TEST_DATA names no folder of real clips')
def test_copies_of_real_clips(tmp_path):
    "Neighbouring clips of one film are no copies; made copies are."
    table = from_csv(real/'surv_fight'/'clips.csv', group='source', leaks='allow')
    df = table.df.sort_values('group', kind='stable').iloc[:25].assign(split='train')
    rng, rows = np.random.default_rng(0), []
    for i,how in enumerate(COPY_WAYS):
        path = plant_copy(table.root/df.path.iloc[5*i], how, tmp_path/f'{i}.mp4', rng)
        rows.append(dict(path=str(path), label=df.label.iloc[5*i], group=how, split='test'))
    df = df.assign(path=[str(table.root/p) for p in df.path])[['path', 'label', 'group', 'split']]
    both = ClipTable(pd.concat([df, pd.DataFrame(rows)], ignore_index=True), '/')
    found = near_duplicates(sketches(both, show=False), across=True, show=False)
    assert set(zip(found.a, found.b)) == {(5*i, len(df)+i) for i in range(5)}, found.to_string()
