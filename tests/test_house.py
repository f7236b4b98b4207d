"The limits of the house: width, lengths, parameters. `python tests/house.py` prints the figures."
import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import house

every_module = pytest.mark.parametrize('name', house.modules())

# module -> why it may be longer than house.MODULE lines
LONG = {
}
# function -> why it may take more than house.PARAMETERS parameters
FLAT = {
    'train.fit': 'flat keywords are what its users type; dataclasses check them inside',
    'data.datasets.from_folder': 'flat keywords are what its users type',
    'data.datasets.from_csv': 'flat keywords are what its users type',
    'data.datasets.from_df': 'flat keywords are what its users type',
    'commands.train.cli_train': 'options are the command line',
    'commands.pretrain.cli_pretrain': 'options are the command line',
    'commands.judge.cli_evaluate': 'options are the command line',
    'commands.embed.cli_embed': 'options are the command line',
}


def text(name):
    return house.modules()[name].read_text(encoding='utf-8')


@every_module
def test_modules_are_of_one_idea(name):
    n = len(house.own_lines(text(name)))
    assert n <= house.MODULE or name in LONG, f"{name} has {n} lines: divide it, or give the reason in LONG"


@every_module
def test_lines_fit(name):
    assert not [l for l in house.own_lines(text(name)) if len(l) > house.WIDTH]


@every_module
def test_functions_are_short_and_take_few_parameters(name):
    for f, n_lines, n_parameters, _ in house.functions(ast.parse(text(name))):
        known = f'{name}.{f}' in FLAT
        assert n_lines <= house.FUNCTION or known, f"{name}.{f} has {n_lines} lines"
        assert n_parameters <= house.PARAMETERS or known, f"{name}.{f} takes {n_parameters} parameters"


def test_every_exception_is_needed():
    sizes = {name: len(house.own_lines(text(name))) for name in house.modules()}
    assert not [name for name in LONG if sizes.get(name, 0) <= house.MODULE]
    found = [(name, *f) for name in house.modules() for f in house.functions(ast.parse(text(name)))]
    needed = {f'{name}.{f}' for name, f, n_lines, n_parameters, _ in found
              if n_lines > house.FUNCTION or n_parameters > house.PARAMETERS}
    assert not set(FLAT) - needed


# marks on foreign objects, patched methods, and special cases for one model in generic code
MARKS = ('getrefcount', '.forward =', 'locals()', 'dls.trial', 'object.__setattr__(model')

@every_module
def test_no_marks(name):
    assert not [mark for mark in MARKS if mark in text(name)]


def test_one_way_of_asking_a_model():
    "Clips become model input in `predict_logits` and in training, nowhere else."
    sites = [name for name in house.modules() if '.to_model(' in text(name)]
    # the benchmark of loaders writes into a buffer of its own, as a training loop may
    assert set(sites) <= {'core', 'models.logits', 'training.loop', 'benchmark.loader'}, sites
