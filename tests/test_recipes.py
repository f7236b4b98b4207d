"The three recipes of CONTRIBUTING, run as they stand there, then trained, saved and loaded together."
import re
from pathlib import Path

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
