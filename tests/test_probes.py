"Perturbed time: nothing that is no answer may become a report, and a report says what it rests on."
import numpy as np
import pandas as pd
import pytest
import torch

from vidcls.core import ArgumentError, DataError, LabelError, SpecMismatchError, seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import make_motion_clips
from vidcls.models.logits import predict_logits
from vidcls.models.zoo import create_model
from vidcls.probes import PERTURBATIONS, ask_perturbed, probe_time, report_of, sweep_time
from vidcls.views import check_loader_for

tiny = dict(dim=24, depth=1, heads=2)

@pytest.fixture
def asked(tmp_path):
    "(model, loaders) of 12 clips that nobody has learned from."
    seed_everything(0)
    table = from_folder(make_motion_clips(tmp_path / 'clips', n_groups=20, n_frames=8, size=32))
    table = table.select_classes(['left', 'right'])
    model = create_model('videomae_tiny', n_classes=2, **tiny)
    return model, loaders(table, model.spec, bs=4, on_error='skip')

@pytest.mark.parametrize('ask', [probe_time, sweep_time])
def test_what_is_no_answer_gets_no_report(asked, ask):
    model, dls = asked
    with pytest.raises(DataError, match='table.splits'):
        ask(model, None)
    with pytest.raises(LabelError, match='the data have 2 classes, the model has 3'):
        ask(create_model('videomae_tiny', n_classes=3, **tiny), dls.test)
    with pytest.raises(SpecMismatchError, match='n_frames'):
        ask(create_model('videomae_tiny', n_classes=2, n_frames=4, **tiny), dls.test)
    for broken in (float('nan'), float('inf')):
        with torch.no_grad():
            model.head.bias[0] = broken
        with pytest.raises(DataError, match='not finite'):
            ask(model, dls.test)

def test_one_frame_has_no_time(tmp_path):
    model = create_model('i3d_tiny', n_classes=8, n_frames=1)
    table = from_folder(make_motion_clips(tmp_path, n_groups=10, n_frames=8, size=32))
    with pytest.raises(ArgumentError, match='n_frames=1'):
        probe_time(model, loaders(table, model.spec, bs=4).test)

@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_model_is_asked_in_its_own_precision(asked, dtype):
    model, dls = asked
    want = ask_perturbed(model, dls.test, PERTURBATIONS)
    got = ask_perturbed(model.to(dtype), dls.test, PERTURBATIONS)
    assert got.path.tolist() == want.path.tolist()
    if dtype == torch.float64:
        assert got.equals(want)

def test_a_clip_that_cannot_be_read_is_named(asked):
    model, dls = asked
    table = dls.test.dataset.table
    whole = probe_time(model, dls.test)
    (table.root/table.df.path[0]).write_bytes(b'no video')
    dls = loaders(from_folder(table.root).select_classes(['left','right']), model.spec, bs=4, on_error='skip')
    answers = ask_perturbed(model, dls.test, PERTURBATIONS)
    assert len(answers) == len(table) and (answers.loc[answers.failed != '', list(PERTURBATIONS)] == -1).all(
        axis=None
    )
    report = probe_time(model, dls.test)
    assert (
        report.n == whole.n - 1
        and list(report.failures) == [table.df.path[0]]
        and '(1 more could not be read)' in repr(report)
    )
    two_classes = from_folder(table.root).select_classes(['left', 'right'])
    assert (
        report.failures
        == probe_time(
            model,
            loaders(two_classes, model.spec, bs=1, on_error='skip').test,
        ).failures
    )
    sweep = sweep_time(model, dls.test)
    assert (
        (sweep.n == report.n).all()
        and (sweep.n_expected == whole.n).all()
        and sweep.attrs['failures'] == report.failures
    )
    for p in table.df.path:
        (table.root/p).write_bytes(b'no video')
    dls = loaders(
        from_folder(table.root).select_classes(['left', 'right']),
        model.spec,
        bs=4,
        on_error='skip',
        ram_gb=0,
        max_bad=1.0,
    )
    for ask in (probe_time, sweep_time):
        with pytest.raises(
            DataError, match=f'none of the {len(table)} clips could be read; nothing to probe'
        ):
            ask(model, dls.test)

def test_answers_survive_a_file(asked, tmp_path):
    "Kept as CSV and read again, they say the same; so do those of before, which had no column of failures."
    model, dls = asked
    answers = ask_perturbed(model, dls.test, PERTURBATIONS)
    answers.to_csv(tmp_path/'a.csv', index=False)
    report, again = report_of(answers, 'm', 2), report_of(pd.read_csv(tmp_path/'a.csv'), 'm', 2)
    assert report.table.equals(again.table) and report.failures == again.failures == {}
    assert report_of(answers.drop(columns='failed'), 'm', 2).table.equals(report.table)
    answers.loc[0, ['failed', *PERTURBATIONS]] = ['no video', *[-1]*len(PERTURBATIONS)]
    answers.to_csv(tmp_path/'a.csv', index=False)
    assert report_of(pd.read_csv(tmp_path/'a.csv'), 'm', 2).failures == {answers.path[0]: 'no video'}

def told(target, **said):
    "The verdict on answers (N,) under each perturbation, a clip a group."
    said = {k.replace('_', ' '): v for k,v in said.items()}
    return report_of(
        pd.DataFrame(dict(path='x', group=range(len(target)), target=target) | said), 'm', 2
    ).verdict

def test_a_verdict_says_what_it_rests_on():
    y = np.arange(200) % 2
    no = 1-y
    assert (
        told(y, as_it_is=y, reversed=no, shuffled=y, frozen=y)
        == told(y, as_it_is=y, reversed=no)
        == 'uses the order of frames'
    )
    assert (
        told(y, as_it_is=y, reversed=y, shuffled=no, frozen=no)
        == 'uses how frames follow each other, but not in which direction'
    )
    assert (
        told(y, as_it_is=y, shuffled=no) == 'uses how frames follow each other (not asked: reversed, frozen)'
    )
    assert (
        told(y, as_it_is=y, reversed=y, shuffled=y, frozen=no) == 'uses several frames, but not their order'
    )
    assert told(y, as_it_is=y, shuffled=y, frozen=no) == 'uses several frames (not asked: reversed)'
    assert (
        told(y, as_it_is=y, reversed=y, shuffled=y, frozen=y)
        == 'one frame is enough, as far as 200 clips can tell'
    )
    assert told(y, as_it_is=y, frozen=y).endswith('(not asked: reversed, shuffled)')
    assert told(y, as_it_is=y, reversed=y) == 'what was asked does no harm (not asked: shuffled, frozen)'

def test_always_the_most_frequent_class_is_no_knowledge():
    """Nine clips of ten of one class: to say that class is right nine times of ten, on any clip,
    perturbed or not."""
    y = (np.arange(200) % 10 == 0).astype(int)
    assert (
        told(y, as_it_is=0 * y, frozen=0 * y)
        == 'knows nothing of these clips: not above its most frequent class'
    )
    assert (
        told(y, as_it_is=y, reversed=y, shuffled=y, frozen=0 * y)
        == 'uses several frames, but not their order'
    )
    one = report_of(pd.DataFrame(dict(path='x', group=range(50), target=0, **{'as it is': 0})), 'm', 2)
    # one class only: right, and nothing known
    assert one.majority == 1 and one.verdict.startswith('knows nothing')

def answers(**columns):
    "Four clips, answered under no perturbation; and what else is given, in place of it."
    return pd.DataFrame(
        dict(path=list('abcd'), group=range(4), target=[0, 1, 0, 1], failed='')
        | {'as it is': [0, 1, 1, 1]}
        | columns
    )

@pytest.mark.parametrize('odd', [-1, np.nan, 2, .5, 'left'])
@pytest.mark.parametrize('column', ['as it is', 'frozen', 'target'])
@pytest.mark.parametrize('failed', [True, False])
def test_what_is_no_class_is_not_counted_as_wrong(odd, column, failed):
    t = answers(**{column: [0,odd,1,1]}).drop(columns=[] if failed else 'failed')
    with pytest.raises(
        LabelError, match=rf"answers says {odd}.* under '{column}' \(row 1\); accepted: classes, 0 to 1"
    ):
        report_of(t, 'm', 2)

def test_answers_below_each_other_are_told_apart_by_their_place():
    "Of several models, with the row numbers of each."
    twice = pd.concat(
        [
            answers(),
            answers(path=list('efgh'), failed=['no video', '', '', ''], **{'as it is': [-1, 1, 1, 1]}),
        ]
    )
    report = report_of(twice, 'm', 2)
    assert report.n == 7 and report.failures == {'e': 'no video'} and report.table.accuracy['as it is'] == 5/7
    with pytest.raises(LabelError, match='row 4'):
        report_of(twice.drop(columns='failed'), 'm', 2)

@pytest.mark.parametrize('column', ['path', 'group', 'target', 'as it is'])
def test_a_column_that_is_missing_is_named(column):
    with pytest.raises(DataError, match=f"no column '{column}'"):
        report_of(answers().drop(columns=column), 'm', 2)

def test_answers_of_no_clip_are_no_report():
    for t, n in ((answers(failed='no video', **{'as it is': -1}), 4), (answers()[:0], 0)):
        with pytest.raises(DataError, match=f'none of the {n} clips could be read'):
            report_of(t, 'm', 2)
    with pytest.raises(ArgumentError, match='n_classes=0'):
        report_of(answers(), 'm', 0)

def test_perturbations_that_are_none_are_named(asked):
    model, dls = asked
    for none in ({}, None):
        with pytest.raises(ArgumentError, match='perturbations=.*; give at least one'):
            ask_perturbed(model, dls.test, none)
    for frames in (
        np.arange(1, 9),
        np.arange(8) - 1,
        np.arange(4),
        np.arange(8) / 2,
        np.zeros((8, 1), int),
        np.ones(8, bool),
    ):
        with pytest.raises(
            ArgumentError, match="perturbations: 'own' gives the frames .*; accepted: 8 whole numbers, 0 to 7"
        ):
            ask_perturbed(model, dls.test, {'own': lambda T, rng: frames})
    own = ask_perturbed(
        model,
        dls.test,
        {'own': lambda T, rng: torch.arange(T).flip(0), 'reversed': PERTURBATIONS['reversed']},
    )
    assert own.own.equals(own.reversed.rename('own'))

@pytest.mark.parametrize('name', PERTURBATIONS)
@pytest.mark.parametrize('T', [2, 3, 8, 16])
def test_a_perturbation_chooses_frames_of_the_clip(name, T):
    idxs = PERTURBATIONS[name](T, np.random.default_rng(0))
    assert len(idxs) == T and 0 <= min(idxs) and max(idxs) < T
    if name == 'shuffled':
        assert sorted(idxs) == list(range(T)) and (idxs != np.arange(T)).any()

def test_the_clips_as_they_are_lose_nothing(asked):
    model, dls = asked
    t = probe_time(model, dls.test).table
    assert t.difference['as it is'] == 0 and t.changed['as it is'] == 0

def test_scores_are_float32_whatever_the_weights(asked):
    model, dls = asked
    clip = torch.randint(0, 256, (1,8,32,32,3), dtype=torch.uint8)
    assert predict_logits(model, clip).shape == (1,2)
    assert predict_logits(model.double(), clip).dtype == torch.float32
    with torch.no_grad():
        model.head.bias.fill_(float('nan'))
    with pytest.raises(DataError, match='not finite'):
        predict_logits(model, clip)
    with pytest.raises(DataError, match='table.splits'):
        check_loader_for(model, None)

def test_verdicts_without_a_decision():
    "A model that always says one class; clips of one group; clips that could not be read."
    def report(target, group=None, **more):
        n = len(target)
        known = dict(path=[f'{i}.mp4' for i in range(n)], group=range(n) if group is None else group)
        return report_of(pd.DataFrame(known | dict(target=target) | more), 'by hand', 2)
    half, lazy, able = np.arange(100) % 2, np.zeros(100, int), (np.arange(100) < 10).astype(int)
    assert report(able, **{'as it is': lazy, 'frozen': lazy}).verdict == (
        'knows nothing of these clips: not above its most frequent class')
    one = report(half, group=['one']*100, **{'as it is': half, 'frozen': lazy})
    assert one.verdict == 'cannot be told: these clips are of too few groups'
    some = report(half, failed=['no video']*10 + ['']*90, **{'as it is': half, 'frozen': half})
    assert (some.n, len(some.failures)) == (90, 10) and '(10 more could not be read)' in repr(some)
