"In a real Jupyter kernel: bars, a live plot while training, figures and players as outputs."
import pytest
import nbformat
from nbclient import NotebookClient

TRAIN = """
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import make_motion_clips, motion_clip
from vidcls.models.zoo import create_model
from vidcls.show import show_clip
from vidcls.train import ProgressBar, Callback, fit, plot_history
class See(Callback):
    def after_train(self, run):
        self.said = next(c.bar.comment for c in run.callbacks if isinstance(c, ProgressBar))
see = See()
table = from_folder(make_motion_clips('clips', n_groups=10, n_frames=8, size=32))
model = create_model('videomae_tiny', n_classes=8)
hist = fit(model, loaders(table, model.spec), epochs=2, callbacks=[see])
print(see.said)
"""

EXPLORE = """
from vidcls.explore import explore
explore(model, loaders(table, model.spec).test)
"""


@pytest.mark.slow
def test_fit_in_a_notebook(tmp_path, monkeypatch):
    for name in ('MPLBACKEND', 'VIDCLS_PROGRESS'):
        monkeypatch.delenv(name, raising=False)  # as a reader's kernel has it
    cells = [
        nbformat.v4.new_code_cell(c)
        for c in (TRAIN, 'plot_history(hist)', "show_clip(motion_clip('up'))", EXPLORE)
    ]
    nb = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(nb, timeout=180, resources={'metadata': {'path': str(tmp_path)}}).execute()
    train, plot, player, explorer = [[o['data'] for o in c.outputs if 'data' in o] for c in nb.cells]
    beside_the_bar = ''.join(o.get('text', '') for o in nb.cells[0].outputs)
    for word in ('loss 2.', 'best accuracy 0.', 'lr ', 'clips/s', '% waiting', 's left in all'):
        assert word in beside_the_bar, beside_the_bar
    html = ''.join(d.get('text/html', '') for d in train)
    assert 'writing clips' in html and all(
        f'<th>{name}</th>' in html for name in ('epoch', 'train_loss', 'accuracy')
    )
    assert any('image/png' in d for d in train)                      # the live plot
    assert len(plot) == 1 and 'image/png' in plot[0]                 # a figure is shown, and only once
    assert 'data:video/mp4;base64,' in player[0]['text/html']
    assert 'application/vnd.jupyter.widget-view+json' in explorer[0]  # controls, because there is a kernel
    assert '<video' in explorer[0]['text/html']                      # and what a page without one shows
