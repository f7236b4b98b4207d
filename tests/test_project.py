"The rules of the house that no single notebook can hold: order, names, docs, outputs, start-up."
import ast, builtins, configparser, importlib, inspect, json, re, subprocess, sys, time
from pathlib import Path

import pytest
import yaml
from fastcore.docments import docments
from packaging.requirements import Requirement

root = Path(__file__).resolve().parents[1]
notebooks = sorted(
    (f for f in (root / 'nbs').rglob('[!.]*.ipynb') if '.ipynb_checkpoints' not in f.parts),
    key=lambda f: f.name,
)
modules = {
    '.'.join(f.relative_to(root).with_suffix('').parts): f
    for f in sorted((root / 'vidcls').rglob('[!_]*.py'))
}
every_notebook = pytest.mark.parametrize('nb', notebooks, ids=lambda f: f.stem)
every_module = pytest.mark.parametrize('mod', modules)


def settings():
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf-8')
    return ini['DEFAULT']

def python(*args):
    return subprocess.run([sys.executable, *args], cwd=root, text=True, capture_output=True, timeout=300)


# Modules

def number(mod):
    "The number of a module's notebook, from the header that nbdev writes."
    return re.search(r'File to edit: \S*nbs/(?:\w+/)?(\d+[a-z]?)', modules[mod].read_text())[1]

def imported(mod):
    "The modules of the library that a module imports, inside functions too."
    pkg = mod.split('.')[:-1]
    for node in ast.walk(ast.parse(modules[mod].read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in modules)
        if isinstance(node, ast.ImportFrom):
            base = (
                '.'.join(pkg[: len(pkg) + 1 - node.level] + [node.module or '']).strip('.')
                if node.level
                else node.module
            )
            yield from {n for n in (base, *(f'{base}.{a.name}' for a in node.names)) if n in modules}

@every_module
def test_imports_only_from_lower_numbers(mod):
    late = {m: number(m) for m in imported(mod) if m != mod and number(m) >= number(mod)}
    assert not late, f"{mod} ({number(mod)}) imports {late}"

def test_modules_import_without_a_notebook():
    "One fresh process, in course order; none of the notebook tools may come with them."
    names = sorted(modules, key=number)
    got = python('-c', f"import importlib, sys\nfor m in {names}: importlib.import_module(m)\n"
                       "print({'nbdev', 'fastcore', 'execnb', 'pytest'} & set(sys.modules) or 'none')")
    assert got.stdout.strip() == 'none', got.stdout + got.stderr

def test_one_name_one_thing():
    "A name that several modules offer, because it has moved, is the same thing in all of them."
    home = {}
    for mod in modules:
        found = importlib.import_module(mod)
        for name in found.__all__:
            thing = getattr(found, name)
            assert thing is home.setdefault(name, thing), f'{name}: another thing in {mod}'


# Documentation

def public(mod):
    "Public functions, classes and methods of a module, but for overriding methods and events of callbacks."
    from vidcls.train import EVENTS, Callback
    for name in mod.__all__:
        o = getattr(mod, name)
        if not (inspect.isfunction(o) or inspect.isclass(o)) or o.__module__ != mod.__name__:
            continue
        yield name, o
        if not inspect.isclass(o):
            continue
        for n,m in vars(o).items():
            if issubclass(o, Callback) and n in EVENTS:
                continue
            m = getattr(m, '__func__', m)
            if n.startswith('_') or not inspect.isfunction(m) or any(hasattr(b, n) for b in o.__mro__[1:]):
                continue
            yield f'{name}.{n}', m

def undocumented(o):
    "Parameters with no comment beside them; a command line option has its help instead."
    if inspect.isclass(o):
        o = vars(o).get('__init__')
    if not inspect.isfunction(o) or o.__code__.co_filename.startswith('<'):
        return []   # a dataclass writes its own
    docs, src = docments(o), inspect.getsource(o)
    def said(p):
        if p.name in ('self', 'cls') or docs.get(p.name):
            return True
        if any(getattr(h, 'help', None) for h in (p.default, *getattr(p.annotation, '__metadata__', ()))):
            return True
        return re.search(rf'\*{p.name}\b.*#', src)   # docments leaves *args and **kwargs out
    return [n for n,p in inspect.signature(o).parameters.items() if not said(p)]

@every_module
def test_public_names_are_documented(mod):
    bad = []
    for name,o in public(importlib.import_module(mod)):
        if not (vars(o).get('__doc__') if inspect.isclass(o) else o.__doc__):
            bad.append(f'{name} has no docstring')
        bad += [f'{name}: nothing is said of {p}' for p in undocumented(o)]
    assert not bad, '\n'.join(bad)

def test_readme_is_the_home_page():
    got = python('tools/readme.py', '--check')
    assert got.returncode == 0, got.stderr

def test_sidebar_has_every_page_once_in_order():
    "One group for each folder, each in the order of the numbers."
    home, *groups = yaml.safe_load((root/'_quarto.yml').read_text())['website']['sidebar']['contents']
    assert home == 'index.ipynb'
    folders = {'The course': 'nbs', 'Walkthroughs': 'walkthroughs', 'Reference': 'reference',
               'Inside': 'inside', 'Studies': 'studies'}
    assert [g['section'] for g in groups] == list(folders)
    for g in groups:
        there = [f for f in notebooks if f.parent.name == folders[g['section']] and f.name != 'index.ipynb']
        assert g['contents'] == [str(f.relative_to(root/'nbs')) for f in there]

def test_numbers_are_the_order_of_all_pages():
    "Where no number is free, a letter follows: 31a stands between 31 and 32."
    numbers = [f.name.split('_')[0] for f in notebooks if f.name != 'index.ipynb']
    twice = sorted({n for n in numbers if numbers.count(n) > 1})
    assert not twice, f"numbers used twice: {twice}; where none is free, add a letter: 31a_"
    assert all(re.fullmatch(r'\d\d[a-z]?', n) for n in numbers)


# Notebooks

def cells(nb):
    "Code cells, each with its source as one string."
    return [
        (c, ''.join(c['source'])) for c in json.loads(nb.read_text())['cells'] if c['cell_type'] == 'code'
    ]

def names(src):
    "(names that a cell binds, names that it uses); magics are left out."
    tree = ast.walk(
        ast.parse('\n'.join(l for l in src.splitlines() if not l.lstrip().startswith(('%', '!'))))
    )
    binds, uses = set(), set()
    for n in tree:
        if isinstance(n, ast.Name):
            (uses if isinstance(n.ctx, ast.Load) else binds).add(n.id)
        elif isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            binds.add(n.name)
        elif isinstance(n, ast.alias):
            binds.add((n.asname or n.name).split('.')[0])
        elif isinstance(n, ast.arg):
            binds.add(n.arg)
        elif isinstance(n, ast.ExceptHandler) and n.name:
            binds.add(n.name)
    return binds, uses

def leaks(sources, flags):
    "Names that only cells with a flag define and that a cell without one uses."
    skipped = re.compile(rf"^#\|\s*(?:{'|'.join(flags)}|eval:\s*false)\s*$", re.M)
    python = [s for s in sources if not s.lstrip().startswith('%%')]
    off, on = ([names(s) for s in python if bool(skipped.search(s)) == flagged] for flagged in (True, False))
    bound = set().union(*(b for b,_ in on), dir(builtins))
    return set().union(*(b for b,_ in off)) & set().union(*(u for _,u in on)) - bound

def test_leaks_are_found():
    assert leaks(['#| slow\nx = 1', 'y = x'], ['slow']) == {'x'}
    assert not leaks(['#| slow\nx = 1', 'x = 2\ny = x'], ['slow'])

@every_notebook
def test_cells_do_without_the_skipped_ones(nb):
    assert not leaks([s for _,s in cells(nb)], settings()['tst_flags'].split())

def run_by_site(src):
    "Whether a cell that exports nothing is run when the site is built: it imports, and does more than that."
    tree = ast.parse(src)
    imports = (ast.Import, ast.ImportFrom)
    harmless = (*imports, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Try)
    if not any(isinstance(n, imports) for n in ast.walk(tree)):
        return False
    return not all(isinstance(n, harmless) for n in tree.body)

def test_what_the_site_runs():
    assert run_by_site('import av\nav.open("a.mp4")')
    assert not run_by_site('import av')
    assert not run_by_site('def f():\n    import av')
    assert not run_by_site('x = 1')

@every_notebook
def test_imports_have_cells_of_their_own(nb):
    "To document a page nbdev runs each cell with an import: work in it would be done once more."
    sources = [s for _,s in cells(nb)]
    if any('#| default_exp' in s for s in sources):
        plain = [s for s in sources if not re.search(r'^#\|\s*export|^%%|nbdev_export\(\)', s, re.M)]
        assert not [s for s in plain if run_by_site(s)]

# paths and addresses
MACHINE = re.compile(r'(?:/(?:work|root|home|tmp|Users)/|[A-Z]:\\)\S*| at 0x[0-9a-f]{6,}')

@every_notebook
def test_a_name_in_backticks_is_no_link_of_its_own(nb):
    "nbdev makes a link of each exported name; a link around it would be a link in a link, and show as text."
    for cell in json.loads(nb.read_text(encoding='utf-8'))['cells']:
        text = ''.join(cell['source'])
        assert cell['cell_type'] != 'markdown' or not re.search(r'\[`[^`\]]+`\]\([^)]*\.ipynb', text), text


@every_notebook
def test_outputs_are_fit_to_print(nb):
    "Small, no errors, no warnings, nothing that only one machine knows."
    assert nb.stat().st_size < 400_000
    bad = []
    for c,_ in cells(nb):
        for o in c['outputs']:
            if o['output_type'] == 'error' or o.get('name') == 'stderr':
                bad.append(f"{c['id']}: an error or a warning")
            texts = [o.get('text', ''), *(v for k,v in o.get('data', {}).items() if k.startswith('text/'))]
            text = re.sub(r'base64,[\w+/=\s]+', '', ''.join(map(''.join, texts)))
            bad += [f"{c['id']}: {found}" for found in MACHINE.findall(text)]
    assert not bad, '\n'.join(bad)


# The package

def test_constraints_pin_what_settings_ask_for():
    pins = dict(
        l.split('==')
        for l in (root / 'constraints.txt').read_text().split('\n')
        if l and not l.startswith('#')
    )
    pins = {k.lower(): v for k,v in pins.items()}
    asked = [Requirement(r) for k,v in settings().items() if k.endswith('requirements') for r in v.split()]
    bad = [
        str(r)
        for r in asked
        if pins.get(r.name.lower()) is None or not r.specifier.contains(pins[r.name.lower()])
    ]
    assert not bad, f"no fitting pin for {bad}"

START = {
    'import': "import vidcls",
    'help': "from vidcls.cli import main\ntry: main()\nexcept SystemExit as e: assert not e.code, e.code",
}

@pytest.mark.parametrize('what', START)
def test_starts_fast_and_light(what):
    "Nobody waits for torch to read a help text. The best of five, because a machine has other things to do."
    code = (f"import sys; sys.argv = ['vidcls', '--help']\n{START[what]}\n"
            "print({'torch', 'transformers', 'pandas', 'matplotlib', 'av'} & set(sys.modules) or 'light')")
    took = []
    for _ in range(5):
        t0 = time.perf_counter()
        got = python('-c', code)
        took.append(time.perf_counter() - t0)
        assert got.returncode == 0 and got.stdout.splitlines()[-1] == 'light', got.stdout + got.stderr
        if took[-1] < .5:
            return
    pytest.fail(f"{min(took):.2f} s; expected under 0.5 s")
