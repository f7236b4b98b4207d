"Class names are compared by name and order wherever a model meets a table: mapped and said, or refused."

import json, warnings

import numpy as np
import pytest
import torch

from vidcls.calibrate import calibrate
from vidcls.core import LabelError, match_labels
from vidcls.data.datasets import from_csv
from vidcls.data.loaders import loader, loaders
from vidcls.show import encode_h264
from vidcls.distill import Distill
from vidcls.evaluate import Views, combine, compare, evaluate, predict_probs
from vidcls.explore import Explorer
from vidcls.models.weights import save_transformers
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.probes import ask_perturbed
from vidcls.train import fit
from vidcls.tune import lr_find

NUMBERS = [str(i) for i in range(12)]  # sorted as text: 0, 1, 10, 11, 2, …
COLOURS = torch.tensor([(20 * i, 255 - 20 * i, 70 * i % 255) for i in range(12)]).float()


class Knows(torch.nn.Module):
    "Tells the colour of a clip, and so its class, without a mistake; a head of its own stands behind."

    def __init__(self, labels=None, spec=None):
        super().__init__()
        self.spec = spec or create_model('videomae_tiny', n_classes=12).spec
        self.head = torch.nn.Linear(12, 12, bias=False)
        torch.nn.init.eye_(self.head.weight)
        self.n_classes, self.labels, self.name = 12, labels, 'knows'

    def forward(self, x):
        mean, std = (torch.tensor(v)[:, None, None, None] for v in (self.spec.mean, self.spec.std))
        seen = ((x * std + mean) * 255).mean((2, 3, 4))
        return self.head(-torch.cdist(seen, COLOURS))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    d = tmp_path_factory.mktemp('colours')
    for i, c in enumerate(COLOURS.numpy().astype(np.uint8)):
        encode_h264(d / f"{i}.mp4", np.broadcast_to(c, (8, 32, 32, 3)), 25, {"qp": "4"})
        (d / f"{i}b.mp4").write_bytes((d / f"{i}.mp4").read_bytes())
    return d


def table_of(files, names, splits=('test',), labels=None):
    "A table of the twelve clips; clip i is called names[i]."
    rows = [f'{i}{"b" * k}.mp4,{names[i]},{s}\n' for k, s in enumerate(splits) for i in range(len(names))]
    (files / 'clips.csv').write_text('path,label,split\n' + ''.join(rows))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return from_csv(files / 'clips.csv', labels=labels)


OTHER = [f'{"lkjihgfedcba"[i]}_action' for i in range(12)]


@pytest.mark.parametrize('names', [NUMBERS, OTHER], ids=['numbers', 'names'])
@pytest.mark.parametrize('views', [None, Views(clips=2)], ids=['one view', 'two views'])
def test_evaluate_matches_by_name(files, names, views):
    t, model = table_of(files, names), Knows(names)
    assert t.labels != names  # the order differs, or nothing is tested
    with pytest.warns(UserWarning, match='matched by name'):
        rec = evaluate(model, loader(t, model.spec), show=False, views=views)
    assert rec.video_top1 == 1 and rec.labels == t.labels and (rec.clips.predicted == rec.clips.label).all()
    first = rec.clips.iloc[0]
    assert first[f'p_{first.label}'] > 0.9  # each probability stands under its own name


def test_without_names_nothing_is_moved(files):
    "A model without names is taken at its word, as ever: 12 scores for 12 classes."
    t, model = table_of(files, NUMBERS), Knows(None)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert evaluate(model, loader(t, model.spec), show=False).video_top1 < 0.5
        assert evaluate(Knows(NUMBERS[:2] and t.labels), loader(t, model.spec), show=False).labels == t.labels


@pytest.mark.parametrize(
    'change, says',
    [
        (lambda l: [*l[:-1], 'stranger'], "'11', which the model does not know"),
        (lambda l: [f'{x} ' for x in l], 'only in blanks'),
        (lambda l: [f'a {x}' for x in l], "'0', which the model does not know"),
        (lambda l: [*l[:-1], l[0]], 'which the model does not know'),
    ],
    ids=['one other', 'blanks', 'all others', 'twice'],
)
def test_other_names_are_refused(files, change, says):
    t, model = table_of(files, NUMBERS), Knows(change(NUMBERS))
    dl = loader(t, model.spec)
    for ask in (
        lambda: evaluate(model, dl, show=False),
        lambda: calibrate(model, dl, show=False),
        lambda: ask_perturbed(model, dl, {'as it is': lambda T, rng: np.arange(T)}, show=False),
        lambda: Explorer(model, dl),
    ):
        with pytest.raises(LabelError, match=says):
            ask()


def test_clips_of_foreign_classes_may_be_asked_about(files):
    "A model may be asked about clips of none of its classes; the scores keep its order."
    t, model = table_of(files, OTHER), Knows(NUMBERS)
    probs, rows, _ = predict_probs(model, loader(t, model.spec), show=False)
    assert [t.df.path[r] for r in rows] == [f'{k}.mp4' for k in probs.argmax(1)]


def test_a_table_of_some_of_the_classes(files):
    "Three classes of twelve: the number alone says it; read with the model's names, the table fits."
    few, model = table_of(files, NUMBERS[:3]), Knows(NUMBERS)
    with pytest.raises(LabelError, match="lacks 9 of the model's classes, such as '3'.*labels=model.labels"):
        evaluate(model, loader(few, model.spec), show=False)
    whole = table_of(files, NUMBERS[:3], labels=NUMBERS)
    assert evaluate(model, loader(whole, model.spec), show=False).video_top1 == 1


def test_probes_explorer_and_calibration_count_by_name(files):
    t, model = table_of(files, NUMBERS), Knows(NUMBERS)
    dl = loader(t, model.spec)
    with pytest.warns(UserWarning, match='matched by name'):
        said = ask_perturbed(model, dl, {'as it is': lambda T, rng: np.arange(T)}, show=False)
    assert (said['as it is'] == said.target).all()
    with pytest.warns(UserWarning, match='matched by name'):
        page = Explorer(model, dl).view('10.mp4')
    assert 'is: <b>10</b>' in page and page.index('10') >= 0
    with pytest.warns(UserWarning, match='all 12 clips are right'):
        calibrate(model, dl, show=False)


def test_fit_sorts_a_trained_head_and_keeps_the_names(files):
    "A model that knows all goes on knowing all: its head is sorted as the table is, before the first step."
    t, model = table_of(files, NUMBERS, ('train', 'valid')), Knows(list(NUMBERS))
    dls = loaders(t, model.spec, bs=6)
    with pytest.warns(UserWarning, match='matched by name'):
        hist = fit(model, dls, epochs=1, lr=1e-9, show=False)
    assert hist.rows[-1]['accuracy'] == 1 and model.labels == t.labels
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert evaluate(model, dls.valid, show=False).video_top1 == 1


def test_fit_of_other_names(files):
    t, spec = table_of(files, NUMBERS, ('train', 'valid')), create_model('videomae_tiny').spec
    dls = loaders(t, spec, bs=6)
    model = create_model('videomae_tiny', n_classes=12)
    model.labels = [f'class {i}' for i in range(12)]
    with pytest.raises(LabelError, match='reset_classifier.12. makes a fresh head'):
        fit(model, dls, epochs=1, show=False)
    assert model.labels[0] == 'class 0'  # a refused training changes nothing
    model.reset_classifier(12)
    fit(model, dls, epochs=1, show=False)
    assert model.labels == t.labels
    headless = Knows(list(NUMBERS))
    headless.last, headless.head = headless.head, None
    with pytest.raises(LabelError, match='no layer `head` that could be sorted'):
        fit(headless, dls, epochs=1, show=False)


def test_a_trial_leaves_no_names(files):
    t, model = table_of(files, NUMBERS, ('train', 'valid')), Knows(list(NUMBERS))
    kept = model.head.weight.clone()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        lr_find(model, loaders(t, model.spec, bs=6), n=10, show=False)
    assert model.labels == NUMBERS and torch.equal(model.head.weight, kept)


def test_a_teacher_of_another_order(files):
    "What the student hears is the teacher's answer to the table's classes."
    t = table_of(files, NUMBERS, ('train', 'valid'))
    student, teacher = Knows(None), Knows(NUMBERS)
    dls, heard = loaders(t, student.spec, bs=12), []

    class Listens(Distill):
        def after_loss(self, run):
            heard.append(
                (
                    self._ask(run)[:, self.order].argmax(1)
                    == torch.tensor(run.dls.train.dataset.targets)[run.batch.rows]
                )
                .all()
                .item()
            )
            super().after_loss(run)

    with pytest.warns(UserWarning, match='matched by name'):
        fit(student, dls, epochs=1, callbacks=[Listens(teacher)], show=False)
    assert heard == [True]
    with pytest.raises(LabelError):
        fit(Knows(None), dls, epochs=1, callbacks=[Distill(Knows(OTHER))], show=False)


def test_records_are_compared_by_name(files):
    "Two records of the same clips, one with its classes in another order."
    t = table_of(files, NUMBERS)
    with pytest.warns(UserWarning, match='matched by name'):
        a = evaluate(Knows(NUMBERS), loader(t, Knows().spec), show=False)
    other = table_of(files, NUMBERS, labels=NUMBERS)
    b = evaluate(Knows(NUMBERS), loader(other, Knows().spec), show=False)
    b.dataset = a.dataset
    assert a.labels != b.labels
    assert compare({'a': a, 'b': b}).top1.tolist() == [1, 1] and combine([a, b]).video_top1 == 1


def test_what_is_saved_has_the_order_of_the_scores(files, tmp_path):
    model = create_model('videomae_tiny', n_classes=12)
    model.labels = list(NUMBERS)
    with pytest.warns(UserWarning, match='matched by name'):
        save_transformers(model, tmp_path / 'hub', labels=sorted(NUMBERS))
    written = json.loads((tmp_path / 'hub' / 'config.json').read_text())['id2label']
    assert [written[str(i)] for i in range(12)] == NUMBERS
    with pytest.raises(LabelError):
        save_transformers(model, tmp_path / 'x', labels=OTHER)
    with pytest.warns(UserWarning, match='matched by name'):
        clf = Classifier(model, sorted(NUMBERS))
    assert clf.labels == NUMBERS
    with pytest.raises(LabelError):
        Classifier(model, OTHER)


def test_a_classifier_of_a_training_knows_its_order(files, tmp_path):
    "Saved, loaded in numeric order or not, judged on a table that sorts otherwise."
    t = table_of(files, NUMBERS, ('train', 'valid'))
    model = create_model('videomae_tiny', n_classes=12)
    dls = loaders(t, model.spec, bs=6)
    fit(model, dls, epochs=1, show=False)
    clf = Classifier(model, dls.labels)
    clf.save(tmp_path / 'c')
    again = Classifier.load(tmp_path / 'c')
    assert again.labels == again.model.labels == t.labels
    numeric = table_of(files, NUMBERS, ('train', 'valid'), labels=NUMBERS)
    a = evaluate(again.model, loader(t.select_split('valid'), model.spec), show=False)
    with pytest.warns(UserWarning, match='matched by name'):
        b = evaluate(again.model, loader(numeric.select_split('valid'), model.spec), show=False)
    assert b.video_top1 == a.video_top1 and b.nll == pytest.approx(a.nll)


def test_match_labels_says_where():
    assert (
        match_labels(None, ['a']) is None
        and match_labels([], ['a']) is None
        and match_labels(['a', 'b'], ['a', 'b']) is None
    )
    assert match_labels(['b', 'a'], ['a', 'b'], warn=False).tolist() == [1, 0]
    with pytest.raises(LabelError, match="my list lacks 1 of the model's classes, such as 'c'"):
        match_labels(['a', 'b', 'c'], ['a', 'b'], 'my list')
    with pytest.raises(
        LabelError, match="'Run', which .* it differs from the model's 'run' only in blanks or in upper"
    ):
        match_labels(['run', 'b'], ['Run', 'b'])
