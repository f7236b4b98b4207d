"A choice among frozen features: by folds inside the training clips, judged once, kept as a classifier."
import subprocess
import sys

import numpy as np
import pytest

from vidcls.controls import against_controls, judge_controls, measure_controls
from vidcls.core import ArgumentError, DataError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.synthetic import make_motion_clips
from vidcls.models.handcrafted import MEASURES
from vidcls.predict import Classifier
from vidcls.records import load_record
from vidcls.ways import choose_probe, trunks_for


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
    losses = chosen.table().loss
    assert list(losses) == sorted(losses)
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


def test_a_network_that_does_not_beat_its_controls_is_said_not_to(table):
    controls = judge_controls(measure_controls(table))
    worst = min(controls.values(), key=lambda r: r.video_top1)
    assert 'not shown to be better' in against_controls(worst, controls)
    with pytest.raises(ArgumentError, match='empty'):
        against_controls(worst, {})


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
