"The studies: each can be run, keeps what it has run, and reads it again."
import io, os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

pytestmark = pytest.mark.slow

from vidcls.data.datasets import from_folder
from vidcls.data.synthetic import make_motion_clips
from vidcls.data.table import ClipTable
from vidcls.evaluate import cross_validate
from vidcls.models.zoo import create_model
from vidcls.records import clip_names
from vidcls.studies import curriculum, fit as study, ways
from vidcls.studies.curriculum import ORDERS, compare_curriculum, compare_stages
from vidcls.studies.distill import TEACHING, compare_distillation
from vidcls.studies.imbalance import compare_noise
from vidcls.ways import trunks_for

TINY = dict(dim=24, depth=1, heads=2)


# --- fit beside other loops

def test_fit_is_measured_with_its_bars(monkeypatch):
    shown = []
    class Terminal(io.StringIO):
        def isatty(self): return True
        def __exit__(self, *a):
            shown.append(self.getvalue())
            return super().__exit__(*a)
    monkeypatch.setattr(study, 'Terminal', Terminal)
    monkeypatch.setenv('VIDCLS_PROGRESS', '0')
    loops = ['bare PyTorch', 'vidcls fit', 'vidcls fit, no bars']
    found = study.benchmark_fit(n_groups=10, bs=16, rounds=1, show=False, loops=loops, **TINY)
    # two warm, one counts; nothing of the others
    assert len(shown) == 3 and all(s.count('epoch   1/1  train') == 1 for s in shown)
    assert os.environ['VIDCLS_PROGRESS'] == '0' and found.df.way.nunique() == 3


@pytest.mark.skipif('RATIO' not in os.environ,
                    reason='a measurement; run `vidcls benchmark fit`, or set RATIO=1')
def test_overhead():
    assert study.benchmark_fit(rounds=5).df.set_index('way').ratio['vidcls fit'] > .97


def test_every_technique_can_be_measured(tmp_path, monkeypatch):
    "Each trains, in the way that it says; those that compile are left to the benchmark itself."
    small = dict(videomae=('videomae_tiny', 1e-3, dict(n_frames=16, size=32, **TINY)),
                 i3d=('i3d_tiny', 1e-3, dict(n_frames=16, size=64)))
    monkeypatch.setitem(study.NETS, 'cpu', small)
    make_motion_clips(tmp_path, n_groups=10)
    for name, how in study.TECHNIQUES.items():
        if how.get('fit', {}).get('compile'):
            continue
        row = study.measure_technique(name, tmp_path, 1, 'cpu')
        assert row['way'] == name and row['ms_step'] > 0 and 0 <= row['accuracy'] <= 1, row


def test_channels_first_is_what_it_says():
    seen, model = [], create_model('i3d_tiny', n_classes=2, n_frames=16, size=64).eval()
    x = torch.randn(2, 3, 16, 64, 64)
    for unit in (model.Conv3d_1a_7x7.bn, model.Mixed_3b.into.bn, model.Mixed_4f.into.bn):
        unit.register_forward_pre_hook(lambda m, args: seen.append(
            (args[0].is_contiguous(), args[0].is_contiguous(memory_format=torch.channels_last_3d))))
    last = model(x)
    study.put_channels_first(model)
    torch.testing.assert_close(model(x), last)
    # what convolutions give; with one thread some of torch's forget the order
    assert seen[0] == (False, True) and seen[3:] == 3*[(True, False)]


# --- comparisons

def test_comparisons_run_and_are_read_the_second_time(tmp_path, monkeypatch):
    "The pages only read what was kept; here all arms are trained, for an epoch."
    short = {'full size': [dict(epochs=1)], 'small first': [dict(size=16, epochs=1), dict(epochs=1)]}
    monkeypatch.setattr(curriculum, 'STAGES', short)
    once = dict(seeds=(0,), epochs=1, show=False)
    ways = dict(
        distill=(TEACHING, lambda out: compare_distillation(out, n_groups=12, **once)),
        curriculum=(ORDERS, lambda out: compare_curriculum(out, n_groups=12, **once)),
        stages=(short, lambda out: compare_stages(out, seeds=(0,), n_groups=12, show=False)),
        noise=(['nothing'], lambda out: compare_noise(out, groups=64, arms=('nothing',), **once)),
    )
    for name,(arms,run) in ways.items():
        found, files = run(tmp_path/name), sorted((tmp_path/name).iterdir())
        assert list(found) == [(a,0) for a in arms] and len(files) == len(arms), name
        for (arm,_), r in found.items():
            assert 0 <= r['accuracy'] <= 1 and r['arm'] == arm and r['n'] > 0, name
        times = [f.stat().st_mtime_ns for f in files]
        assert run(tmp_path/name) == found and [f.stat().st_mtime_ns for f in files] == times, name
        if name == 'distill':
            assert all(np.mean(r['right']) == r['accuracy'] for r in found.values())


def test_two_clips_of_a_file_are_two_clips_in_a_cross_validation(tmp_path):
    made = make_motion_clips(tmp_path, n_groups=6, n_frames=8, size=32)
    toy = from_folder(made).select_classes(['left', 'right'])
    halves = pd.concat([toy.df.assign(start=s, end=e) for s,e in ((0.,.4), (.4,.8))], ignore_index=True)
    table = ClipTable(halves, toy.root, toy.labels, 'halves')
    rec = cross_validate(table, 'videomae_tiny', k=2, arguments=TINY, epochs=1, bs=8, show=False)
    assert (rec.n_evaluated, len(set(clip_names(rec.clips))), rec.failures) == (24, 24, {})


# --- all ways on one set

def test_every_frozen_way_is_judged_kept_and_compared(tmp_path, monkeypatch):
    "On clips that run forwards or backwards: what gathers frames fails, what sees an order does not."
    made = make_motion_clips(tmp_path/'made', n_groups=20, size=64)
    left = from_folder(made).select_classes(['left'])
    table = ways.play_backwards(left, tmp_path/'both', 'weizmann colour')
    monkeypatch.setattr(ways, 'ways_set', lambda data, name, folder: table)
    monkeypatch.setattr(ways, 'trunks_for', lambda: trunks_for(16, 64))
    monkeypatch.setattr(ways, 'motion_trained', lambda *args: create_model('videomae_tiny', n_classes=2))
    few = [w for w,(trunk, _, _) in ways.FROZEN_WAYS.items() if trunk != 'ImageNet frames']
    given = dict(sets=['weizmann colour'], ways=[*few, 'ImageNet mean, nearest', ways.AUTO], show=False)
    found = ways.benchmark_ways(None, tmp_path/'out', tmp_path, **given)
    assert {w for _, w in found} == set(given['ways'])
    counted = {(r.n_evaluated, r.n_groups, r.split) for r in found.values()}
    assert counted == {(40, 20, 'all, 5 folds by group')}
    shown = ways.ways_table(tmp_path/'out', 'weizmann colour')
    assert shown.top1[[ways.AUTO, 'untrained 3-D filters, logistic']].min() > .8
    assert (shown.seconds > 0).all()
    # the two clips of a pair have the same frames, so what gathers frames does not tell them apart
    assert max(shown.top1[w] for w in (*ways.CONTROL_WAYS, 'ImageNet mean, nearest')) < .7
    assert ways.best_way(shown).startswith(shown.top1.idxmax())
    monkeypatch.setattr(ways, 'judge_way', None)                 # what is kept is not run again
    assert ways.benchmark_ways(None, tmp_path/'out', tmp_path, **given).keys() == found.keys()


def test_networks_of_the_table_are_plans_that_train(tmp_path, monkeypatch):
    def shorter(plan):
        assert plan.fit['epochs'] > 1
        return replace(plan, fit=plan.fit | dict(epochs=1))
    made = make_motion_clips(tmp_path/'made', n_groups=6, size=64)
    table = from_folder(made).select_classes(['left', 'right'])
    shortened = {name: lambda t, plan=plan: shorter(plan(t)) for name, plan in ways.TRAINED_WAYS.items()}
    monkeypatch.setattr(ways, 'TRAINED_WAYS', shortened)
    for name in shortened:
        rec, seconds = ways.judge_way(name, ways.WayFeatures(table, tmp_path, {}), k=2)
        assert (rec.n_evaluated, rec.split) == (len(table), 'all, 2 folds by group') and seconds > 0
