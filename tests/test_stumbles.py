"Small things at which people stumble: each is said, with the way out."
import importlib, inspect, pkgutil

import pytest

import vidcls
from vidcls.predict import Classifier

MODULES = [m.name for m in pkgutil.walk_packages(vidcls.__path__, 'vidcls.') if not m.ispkg and not m.name.endswith('_modidx')]


def made_with(f):
    "The parameters of a function or a class; none where it takes whatever an exception takes."
    try: return [p for p in inspect.signature(f).parameters if p not in ('self', 'cls')]
    except ValueError: return []


@pytest.mark.parametrize('name', MODULES)
def test_help_of_every_public_name_shows_its_parameters(name):
    module = importlib.import_module(name)
    commands = {c.callback for t in (module.app, module.bench) for c in t.registered_commands} if name == 'vidcls.cli' else ()
    own = [f for n in module.__all__ if (inspect.isroutine(f := getattr(module, n)) or inspect.isclass(f)) and f.__module__ == name]
    lacking = [f.__qualname__ for f in own if f not in commands and made_with(f) and 'Parameters\n---' not in f.__doc__]
    assert not lacking
    for f in own:
        if inspect.isclass(f): assert f.__doc__.count('Parameters\n---') <= 1, f


def test_help_of_what_is_inherited_or_named():
    from vidcls.augment import Flip
    from vidcls.data.loaders import Batch
    from vidcls.data.shards import ShardLoaders
    assert 'p : float, default 0.5\n    Probability' in Flip.__doc__
    assert 'labels : torch.Tensor\n    int64 (B,)' in Batch.__doc__
    assert 'table : ClipTable\n    The clips' in ShardLoaders.__doc__                    # its base is in another module
    assert all('device : str | None, default None\n    ' in f.__doc__ for f in (Classifier.load, Classifier.from_pretrained))
