"The three recipes of CONTRIBUTING, run as they stand there, then trained, saved and loaded together."
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from vidcls.augment import Augment
from vidcls.core import ArgumentError
from vidcls.models.layers import VideoModel
from vidcls.models.zoo import MODELS, create_model, register_model
from vidcls.training.checks import Functions

root = Path(__file__).resolve().parents[1]


def test_the_recipes_run_as_they_stand(tmp_path, capsys):
    from vidcls import Classifier, fit, from_folder, loaders, make_motion_clips
    text = (root/'CONTRIBUTING.md').read_text(encoding='utf-8')
    here = {}
    blocks = re.findall(r'```python\n(.*?)```', text, re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, 'CONTRIBUTING.md', 'exec'), here)
    table = from_folder(make_motion_clips(tmp_path/'motion', n_groups=6, n_frames=8, size=32))
    model = here['create_model']('mean_colour', n_classes=table.n_classes, n_frames=8, size=32)
    made = here['PrintGradient']()
    own = dict(callbacks=[made], augment=here['augment'])
    hist = fit(model, loaders(table, model.spec), epochs=2, show=False, **own)
    assert len(hist) == 2 and capsys.readouterr().out.count('largest gradient norm') == 2
    Classifier(model, table.labels).save(tmp_path/'classifier')
    found = Classifier.load(tmp_path/'classifier').predict(table.paths[0])
    assert found[0]['label'] in table.labels


def test_links_of_contributing_lead_to_pages():
    text = (root/'CONTRIBUTING.md').read_text(encoding='utf-8')
    links = re.findall(r'\]\(((?!http)[^)#]+)\)', text)
    assert links and not [link for link in links if not (root/link).exists()]


@pytest.mark.parametrize('gave, words', [
    (lambda x, y: x, 'gave a Tensor; end it with return xb, yb'), (lambda x, y: None, 'gave a NoneType'),
    (lambda x, y: (x.float(), y), r'gave clips as torch.float32 \(2, 4, 8, 8, 3\); expected torch.uint8'),
    (lambda x, y: (x[:, :2], y), r'gave clips as torch.uint8 \(2, 2, 8, 8, 3\)')])
@pytest.mark.parametrize('p', [1., .99])
def test_an_augmentation_that_gives_something_else_is_named(gave, words, p):
    class Own(Augment):
        def change(self, xb, yb, u): return gave(xb, yb)
    xb, yb = torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ArgumentError, match=f'Own.change {words}'):
        Own(p)(xb, yb, torch.Generator().manual_seed(0))


def test_an_augmentation_without_a_change_is_named():
    xb, yb = torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(NotImplementedError, match='Augment has no method change'):
        Augment()(xb, yb, torch.Generator())


@pytest.mark.parametrize('given, words', [
    (dict(callbacks=['ema']), 'callbacks holds a str without a method named like an event'),
    (dict(callbacks=[type('Theirs', (), {'on_epoch_end': print})()]), 'callbacks holds a Theirs without'),
    (dict(augment=Augment), r'augment is the class Augment; give an object: Augment\(…\)')])
def test_what_is_no_callback_or_function_is_named(given, words):
    with pytest.raises(ArgumentError, match=words):
        Functions(**given)


def test_a_model_without_a_head_is_named(monkeypatch):
    class NoHead(VideoModel):
        def __init__(self, spec, n_classes):
            super().__init__(spec)
            self.last = nn.Linear(3, n_classes)
    monkeypatch.setattr('vidcls.models.registry.MODELS', dict(MODELS))
    register_model('no_head', NoHead)
    with pytest.raises(ArgumentError, match='without .n_classes; .* which is called head'):
        create_model('no_head', n_classes=3)
