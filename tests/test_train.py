"Several processes: two that share each batch of 16 train the same weights as one that has it alone."
import os, subprocess, sys

import pytest

from vidcls.data.synthetic import make_motion_clips

SCRIPT = """
import sys, torch
from vidcls.core import seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loaders
from vidcls.models.zoo import create_model
from vidcls.train import fit
from accelerate import PartialState
folder, bs, out = sys.argv[1:]
seed_everything(0)
model = create_model('videomae_tiny', n_classes=8)
hist = fit(model, loaders(from_folder(folder), model.spec, bs=int(bs)), epochs=2)
state = PartialState()
if state.is_main_process:
    weights = torch.cat([p.detach().cpu().flatten() for p in model.parameters()])
    torch.save({'processes': state.num_processes, 'weights': weights, 'valid': torch.tensor(hist['valid_loss'])}, out)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='gloo, tried on Linux')
def test_two_processes_equal_one(tmp_path):
    import torch
    clips = make_motion_clips(tmp_path/'clips', n_groups=11, n_frames=8, size=32)      # 64 clips to train on: no batch is padded
    (tmp_path/'train.py').write_text(SCRIPT)
    env = {**os.environ, 'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1'}
    def run(launcher, bs, out):
        subprocess.run([sys.executable, *launcher, tmp_path/'train.py', clips, str(bs), tmp_path/out], env=env, check=True, timeout=300)
        return torch.load(tmp_path/out, weights_only=True)
    one = run([], 16, 'one.pt')
    two = run(['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'], 8, 'two.pt')
    assert (one['processes'], two['processes']) == (1, 2)
    assert (one['weights'] - two['weights']).abs().max() < 1e-4          # AdamW enlarges the rounding of small gradients
    assert (one['valid'] - two['valid']).abs().max() < 1e-4
