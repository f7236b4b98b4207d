"""Video classification: a course and a toolkit.

`import vidcls` is light; its names are fetched when they are used.
"""
__version__ = "0.1.0"

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from types import ModuleType

HOMES = {  # the names that people use most, and the module of each
    'core': 'ClipSpec VidclsError seed_everything',
    'show': 'show_clip write_video',
    'data.synthetic': 'make_motion_clips',
    'data.decode': 'Video probe read_frames',
    'data.datasets': 'ClipTable find_videos from_csv from_df from_folder',
    'data.doctor': 'audit',
    'data.loaders': 'as_loader as_loaders loader loaders',
    'augment': 'augmentation',
    'models.zoo': 'create_model list_models register_model',
    'train': 'fit',
    'recipes': 'recipe',
    'evaluate': 'EvalRecord evaluate load_record save_record',
    'predict': 'Classifier',
}
_home = {name: home for home,names in HOMES.items() for name in names.split()}
__all__ = sorted(_home)

def __getattr__(name):
    "Fetch a name from its module."
    if name not in _home:
        raise AttributeError(f"module 'vidcls' has no attribute {name!r}; from vidcls.MODULE import it")
    module = importlib.import_module(f'vidcls.{_home[name]}')
    found = module if name == _home[name] else getattr(module, name)         # vidcls.evaluate stays the module
    globals()[name] = found
    return found

def __dir__():
    return sorted({*globals(), *__all__})


class _Callable(ModuleType):
    "A module that holds a function of its own name; calling the module calls that function."
    def __call__(self, *args, **kwargs):
        return getattr(self, self.__name__.rpartition('.')[2])(*args, **kwargs)

class _Documented(SourceFileLoader):
    "Loads a module, then writes the comments beside its parameters into the docstrings."
    def exec_module(self, module):
        super().exec_module(module)
        from vidcls.docs import document
        document(module)
        if module.__name__ == 'vidcls.evaluate':           # so that vidcls.evaluate(model, dl) works
            module.__class__ = _Callable

class _Finder(MetaPathFinder):
    "Finds the modules of vidcls."
    def find_spec(self, name, path=None, target=None):
        if not name.startswith('vidcls.'):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and type(spec.loader) is SourceFileLoader:
            spec.loader = _Documented(name, spec.loader.path)
        return spec

def _is_ours(finder):
    return (type(finder).__name__, type(finder).__module__) == ('_Finder', __name__)

if not any(map(_is_ours, sys.meta_path)):
    sys.meta_path.insert(0, _Finder())
