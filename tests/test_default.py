"The training that `vidcls train` takes by default: it learns, from few clips, in a budget of steps."
from pathlib import Path

import pytest

from vidcls.augment import Flip
from vidcls.core import ArgumentError, DataError, seed_everything
from vidcls.data.datasets import ClipTable, from_folder
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import make_motion_clips
from vidcls.evaluate import evaluate
from vidcls.models.zoo import create_model
from vidcls.plans import DEFAULT, default_recipe, epochs_for
from vidcls.studies.real import CANDIDATES, CONTROLS, compare_defaults, defaults_table, load_defaults
from vidcls.train import fit

RECORDS = Path(__file__).parents[1]/'benchmarks'/'defaults'

@pytest.fixture(scope='module')
def motion(tmp_path_factory):
    made = make_motion_clips(tmp_path_factory.mktemp('motion'), n_groups=30, size=64)
    return from_folder(made).select_classes(['left', 'right', 'up', 'down'])

def _default():
    "The default, in the form of a candidate."
    return DEFAULT['model'], DEFAULT['arguments'], DEFAULT['steps'], DEFAULT['fit']['lr'], DEFAULT['augment']

def _judged(table, steps):
    "The record of the default on the test part, after this number of steps."
    plan = default_recipe(table, steps)
    seed_everything(0)
    net = create_model(plan.model, n_classes=table.n_classes, **plan.arguments)
    dls = loaders(table, net.spec, bs=plan.bs)
    fit(net, dls, show=False, **plan.fit)
    return evaluate(net, dls.test)

def test_the_default_learns_motion_in_the_steps_that_it_takes(motion):
    rec = _judged(motion, DEFAULT['steps'])
    assert rec.interval[0] > rec.chance, rec

def test_steps_become_epochs_for_any_number_of_clips():
    for n_clips in (1, 15, 16, 17, 62, 999, 10_000):
        for bs in (1, 8, 16):
            batches = -(-n_clips//bs)
            epochs = epochs_for(500, n_clips, bs)
            assert (epochs-1)*batches < 500 <= epochs*batches
    assert epochs_for(500, 1_000_000, 16, least=10) == 10
    for wrong in (0, -1, 2.5, '3'):
        with pytest.raises(ArgumentError, match='steps'):
            epochs_for(wrong, 10)

def test_the_plan_is_what_fit_does(motion):
    plan = default_recipe(motion, steps=7)
    n = len(motion.select_split('train'))
    net = create_model(plan.model, n_classes=4, n_frames=4, size=32)
    hist = fit(net, loaders(motion, net.spec, bs=plan.bs), show=False, **plan.fit)
    assert len(hist) == plan.fit['epochs'] == epochs_for(7, n, plan.bs)
    assert plan.steps == len(hist)*-(-n//plan.bs)

def test_folds_only_for_few_clips_and_only_where_every_class_stays_in_each(motion):
    assert default_recipe(motion).folds == DEFAULT['folds']
    scene = motion.df.group.iloc[0]
    lonely = motion.filter(((motion.df.label != 'left') | (motion.df.group == scene)).to_numpy())
    assert default_recipe(lonely).folds == 0  # without its one scene, nobody could learn 'left'
    many = ClipTable(
        motion.df.loc[motion.df.index.repeat(10)].assign(path=[f'{i}.mp4' for i in range(10 * len(motion))]),
        motion.root,
        motion.labels,
        'many',
    )
    assert len(many) >= DEFAULT['few_clips'] and default_recipe(many).folds == 0
    with pytest.raises(DataError, match='no train split'):
        default_recipe(motion.select_split('test'))

def test_a_mirror_swaps_left_and_right(motion):
    flip = next(s for s in default_recipe(motion).fit['augment'].steps if isinstance(s, Flip))
    left, right, up = (motion.labels.index(l) for l in ('left', 'right', 'up'))
    assert [int(flip.classes[i]) for i in (left, right, up)] == [right, left, up]

def test_the_default_is_one_of_the_candidates_that_were_compared():
    assert _default() in CANDIDATES.values()

def test_the_record_says_that_the_default_is_above_chance():
    table = defaults_table(RECORDS)
    arm = next(n for n,candidate in CANDIDATES.items() if candidate == _default())
    found = table[table.arm == arm].set_index('set')
    for s in ('weizmann silhouettes', 'fights', 'motion'):
        assert found.low[s] > found.majority[s], found

def test_what_was_run_is_not_run_again(real_data, tmp_path):
    arms = list(CONTROLS)[1:]
    first = compare_defaults(real_data, tmp_path, ['weizmann colour'], arms, show=False)
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    again = compare_defaults(real_data, tmp_path, ['weizmann colour'], arms, show=False)
    assert kept == {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert {k: r.video_top1 for k,r in first.items()} == {k: r.video_top1 for k,r in again.items()}
    assert first['weizmann colour', arms[0]].interval[0] > .25
    with pytest.raises(ArgumentError, match='arms'):
        compare_defaults(real_data, tmp_path, ['weizmann colour'], ['resnet'], show=False)
    assert load_defaults(tmp_path/'nowhere') == {}
