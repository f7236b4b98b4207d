"A choice among frozen features: by folds inside the training clips, judged once, kept as a classifier."
import subprocess
import sys
import time

import numpy as np
import pytest

from vidcls.choice import Candidate, Choice, Deadline, OutOfTime, choose_way
from vidcls.comparison import compare
from vidcls.controls import MOST_FREQUENT, judge_controls, measure_controls, with_controls
from vidcls.core import DataError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import make_motion_clips
from vidcls.models.handcrafted import MEASURES
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.plans import default_recipe
from vidcls.records import load_record, prob_columns, record_of, save_record
from vidcls.train import fit
from vidcls.ways import choose_probe, cross_validate_choice, trunks_for


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    return make_motion_clips(tmp_path_factory.mktemp('ways')/'clips', n_groups=40)


@pytest.fixture(scope='module')
def table(clips):
    return from_folder(clips).select_classes(['left', 'right'])


def cheap(): return {n: t for n,t in trunks_for(size=64).items() if n != 'ImageNet frames'}


def test_filters_over_time_are_chosen_where_only_time_tells(table, tmp_path):
    chosen = choose_probe(table, tmp_path/'f', cheap())
    assert chosen.ways[0].name == 'untrained 3-D filters'
    assert chosen.record.video_top1 > .8 and chosen.record.split == 'test'
    assert set(MEASURES) <= set(chosen.records)
    ways = chosen.table()
    assert list(zip(-ways.accuracy, ways.loss)) == sorted(zip(-ways.accuracy, ways.loss))
    chosen.classifier.save(tmp_path/'c')
    again = Classifier.load(tmp_path/'c')
    row = chosen.record.clips.iloc[0]
    want = row[[f'p_{l}' for l in again.labels]].to_numpy(float)
    assert np.allclose(again.probs(table.root/row.path), want, atol=1e-4)


def test_the_test_clips_do_not_choose(table, tmp_path):
    "With the labels of the test clips turned round, the same way is chosen, with the same loss."
    a = choose_probe(table, tmp_path/'f', cheap())
    df = table.df.copy()
    test = df.split == 'test'
    df.loc[test, 'label'] = df.label[test].map({'left': 'right', 'right': 'left'})
    b = choose_probe(table.with_rows(df), tmp_path/'f', cheap())
    assert [(w.name, w.loss) for w in a.ways] == [(w.name, w.loss) for w in b.ways]
    assert b.record.video_top1 == pytest.approx(1 - a.record.video_top1)


def test_untrained_filters_are_the_same_each_time():
    from vidcls.feature_store import weights_hash
    seed_everything(5)
    a = weights_hash(cheap()['untrained 3-D filters'].model)
    seed_everything(6)
    assert a == weights_hash(cheap()['untrained 3-D filters'].model)


def test_no_test_split(table):
    with pytest.raises(DataError, match='no test split'):
        choose_probe(table.select_split('train'), trunks=cheap())


def test_a_network_that_does_not_beat_its_controls_is_said_not_to(table, tmp_path):
    controls = judge_controls(measure_controls(table))
    assert set(controls) == {MOST_FREQUENT, *MEASURES}
    worst = with_controls(min(controls.values(), key=lambda r: r.video_top1), controls)
    assert 'not shown to be better than the best cheap control' in worst.against_controls
    assert worst.against_controls in repr(worst)
    again = load_record(save_record(worst, tmp_path/'record.json'))
    assert again.against_controls == worst.against_controls
    side = compare({'worst': worst, 'other': controls['hog']})
    assert side.over_control['other'] == '' and side.over_control['worst'].startswith(('not', 'cannot'))
    assert with_controls(worst, {}).against_controls == ''


def test_a_control_is_not_compared_with_itself(table):
    hog = judge_controls(measure_controls(table))['hog']
    assert with_controls(hog, {'hog': hog}).against_controls.startswith('this is itself a cheap control, hog')


def test_a_split_whose_clips_are_all_broken(table, tmp_path):
    few = {n: t for n,t in cheap().items() if n == 'motion_energy'}
    df = table.df.assign(path=[str(p) for p in table.paths])
    (tmp_path/'broken.mp4').write_bytes(b'no video')
    keep = {s: table.with_rows(df[(df.split != s) | ~df.duplicated('split')]) for s in ('valid', 'test')}
    def broken(split):
        t = keep[split]
        return t.with_rows(t.df.assign(path=t.df.path.where(t.df.split != split, str(tmp_path/'broken.mp4'))))
    assert choose_probe(broken('valid'), None, few, show=False, on_error='skip').record.n_evaluated
    with pytest.raises(DataError, match='no test clip could be read'):
        choose_probe(broken('test'), None, few, show=False, on_error='skip')


def test_a_control_that_had_more_right_is_named_as_such(table):
    controls = judge_controls(measure_controls(table))
    low, *_, high = sorted(controls.values(), key=lambda r: r.video_top1)
    worse, better = Candidate('hog', 'probe', low), Candidate('motion energy', 'control', high)
    assert 'the control motion energy' in Choice(worse, [worse, better]).reason
    assert 'did best by folds' in Choice(better, [worse, better]).reason


def test_a_network_that_beats_its_controls_is_said_to(table):
    controls = judge_controls(measure_controls(table))
    truth = controls['hog']
    right = np.eye(2)[[truth.labels.index(l) for l in truth.clips.label]]*.98 + .01
    clips = truth.clips.drop(columns=['predicted', *prob_columns(truth.labels)])
    same = ('dataset', 'split', 'spec', 'views', 'n_expected', 'failures', 'seed')
    perfect = record_of(clips, right, truth.labels, model='perfect', **{k: getattr(truth, k) for k in same})
    assert with_controls(perfect, controls).against_controls.startswith('better than the best cheap control')


def test_controls_of_a_large_set_learn_from_whole_groups(table):
    measured = next(iter(measure_controls(table, most=20).values())).table
    assert set(table.select_split('test').paths) <= set(measured.paths)
    learned = measured.filter((measured.df.split != 'test').to_numpy())
    sizes = table.df.groupby('group').size()
    assert 20 <= len(learned) <= 20 + sizes.max()
    assert all(sizes[g] == n for g,n in learned.df.groupby('group').size().items())


def test_the_choice_is_judged_by_folds_that_had_no_say(table, tmp_path):
    "Labels drawn by lot can't be known: a choice that had seen them would look better than chance."
    df = table.df.copy()
    lots = np.random.default_rng(0).choice(['left', 'right'], len(df))
    chosen = choose_probe(table.with_rows(df.assign(label=lots)), tmp_path/'f', cheap())
    rec = cross_validate_choice(chosen.features, 5)
    assert rec.interval[0] < .5 and rec.n_evaluated == len(df)
    sure = cross_validate_choice(choose_probe(table, tmp_path/'f', cheap()).features, 5)
    assert sure.video_top1 > .85


def test_a_network_that_knows_more_is_taken(table, tmp_path):
    "Pictures alone can't tell left from right; a network that learns motion can, and wins."
    few = {n: t for n,t in cheap().items() if n in ('middle_frame', 'hog')}
    learn = table.filter((table.df.split != 'test').to_numpy())
    plan = default_recipe(learn.with_rows(learn.df.assign(split='train')), steps=90)
    plan.fit |= dict(augment=None, lr=5e-3)
    plan.arguments['n_frames'] = 8
    choice = choose_way(table, tmp_path/'f', 6, few, {'a network': plan}, show=False)
    assert choice.best.how == 'scratch' and choice.best.plan is plan
    assert choice.table().index[0] == 'a network' and set(choice.table().verdict.dropna()) == {'worse'}
    assert choice.reason.startswith('a network (')


def test_where_nothing_is_found_the_reason_says_so(table, tmp_path):
    "A picture of the middle can't tell left from right."
    few = {n: t for n,t in cheap().items() if n in ('middle_frame', 'motion_energy')}
    choice = choose_way(table, tmp_path/'f', 2, few, {}, show=False)
    assert 'is not shown to be better than always naming the commonest class' in choice.reason


def test_the_budget_is_kept(table, tmp_path):
    few = {n: t for n,t in cheap().items() if n == 'motion_energy'}
    learn = table.with_rows(table.df.assign(split='train'))
    plan = default_recipe(learn, steps=3000)
    start = time.monotonic()
    choice = choose_way(table, tmp_path/'f', .5, few, {'a long training': plan}, show=False)
    assert time.monotonic() - start < 45
    assert choice.best.how == 'control' and 'a long training was left out: it needs about' in choice.reason


def test_a_training_past_its_deadline_is_stopped(table):
    net = create_model('i3d_tiny', n_classes=2, n_frames=8, size=32)
    with pytest.raises(OutOfTime):
        fit(net, loaders(table, net.spec), epochs=5, show=False, callbacks=[Deadline(time.monotonic())])


def vidcls(*args, cwd):
    run = [sys.executable, '-c', 'from vidcls.cli import main; main()', *map(str, args)]
    return subprocess.run(run, cwd=cwd, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_train_by_a_probe_at_the_command_line(clips, tmp_path):
    few = tmp_path/'few'
    for label in ('left', 'right'):
        (few/label).mkdir(parents=True)
        for clip in sorted((clips/label).glob('*.mp4'))[:40]:
            (few/label/clip.name).write_bytes(clip.read_bytes())
    got = vidcls('train', few, '--how', 'probe', '--out', 'run', cwd=tmp_path)
    assert got.returncode == 0, got.stderr
    assert 'did best by folds inside the training clips' in got.stdout
    rec = load_record(tmp_path/'run'/'record.json')
    assert f'{rec.video_top1:.3f}' in got.stdout
    clip = next(few.glob('left/*.mp4'))
    assert vidcls('predict', tmp_path/'run'/'classifier', clip, cwd=tmp_path).stdout.startswith(str(clip))
    wrong = vidcls('train', few, '--how', 'probe', '--steps', '5', '--out', 'other', cwd=tmp_path)
    assert wrong.returncode != 0 and '--steps 5 belongs to a training' in wrong.stderr
    assert '--how' in vidcls('train', few, '--how', 'magic', '--out', 'third', cwd=tmp_path).stderr
