"What notebooks can't show of losses, optimisers, estimates and recipes: devices that are not here, all models, interruptions."
from types import SimpleNamespace

import pytest
import torch

from vidcls.optimizations import _Stopwatch


def test_memory_is_that_of_the_device(monkeypatch):
    "On a GPU the memory is what PyTorch allocated there, above what it had when training began."
    put_back = []
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda *a: None)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', put_back.append)
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda d: 3*10**9)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda d: 7*10**9)
    run = SimpleNamespace(acc=SimpleNamespace(device=torch.device('cuda:1')), timer=SimpleNamespace(share=0.), stop=lambda why: None)
    watch = _Stopwatch(10); watch.before_fit(run); watch.after_batch(run)
    assert (watch.start_gb, watch.gb) == (3., 7.) and put_back == [torch.device('cuda:1')]
