"""Run notebooks as a reader does, in a real kernel, and compare or store their outputs.

`python tools/notebooks.py` runs them all ("Run All", two at a time) and says which kept outputs a fresh run
does not give. `--store` stores the fresh outputs instead; then nothing is written for a notebook in which a
cell fails.
Cells marked slow are left out unless `--slow` asks for them.
A cell whose output depends on the machine (an optional decoder, a clock) says so by `#| varies`: it runs,
and its output is neither compared nor replaced where there is one.
"""
import argparse, asyncio, math, os, re, sys, tempfile, time
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

root = Path(__file__).resolve().parents[1]
ENV = dict(VIDCLS_PROGRESS='0', OMP_NUM_THREADS='1', PYTHONHASHSEED='0', HF_HUB_DISABLE_PROGRESS_BARS='1')
EXPORT = 'nbdev_export('  # the last cell of a page; here it must not write modules
WHERE = "import os as _os; assert _os.getcwd() == {!r}, 'the page leaves its folder by os.chdir'"
MIME = ('text/html', 'image/svg+xml', 'image/png', 'text/plain')          # the richest form comes first
# a float; integers are text
NUMBER = re.compile(r'(?<![\w.])-?\d+\.\d+(?:e[+-]?\d+)?|(?<![\w.])-?\d+e[+-]?\d+')


def all_pages()->list:
    "Return the paths of all pages, in the order of their numbers."
    found = (f for f in (root/'nbs').rglob('[!.]*.ipynb') if '.ipynb_checkpoints' not in f.parts)
    return sorted(found, key=lambda f: f.name)


def directive(
    cell, # A code cell
    word:str, # As in `#| slow`
)->bool:
    "Does a cell begin with this directive?"
    return re.search(rf'^#\|\s*{word}\b', cell.source, re.M) is not None


async def run(
    path:Path, # The notebook
    limit_s:float, # Seconds that one cell may take
    slow:bool, # Run the cells marked slow too?
): # nbformat's notebook with the outputs of this run
    "Run a notebook from top to bottom in its own folder, as `Run All` does."
    nb = nbformat.read(path, 4)
    for c in nb.cells:
        if c.cell_type != 'code':
            continue
        if EXPORT in c.source:
            c.source = WHERE.format(str(path.parent))
        elif directive(c, 'slow') and not slow:
            c.source = ''
    with tempfile.TemporaryDirectory() as sockets:  # two kernels that start at once could claim one TCP port
        where = {} if os.name == 'nt' else dict(transport='ipc', ip=str(Path(sockets)/'kernel'))
        kernel = AsyncKernelManager(kernel_name='python3', **where)
        client = NotebookClient(
            nb, km=kernel, timeout=limit_s, resources={'metadata': {'path': str(path.parent)}}
        )
        try:
            await client.async_execute()
        finally:  # a kernel that it was given, nbclient leaves running: 100 pages would fill the memory
            await kernel.shutdown_kernel(now=True)
    return nb


def shown(
    outputs:list, # Of one cell
)->str: # What a reader sees; each picture as the word <picture>
    "The visible text of a cell's outputs, without what went to stderr."
    said = []
    for o in outputs:
        data = o.get('data', {})
        kind = next((m for m in MIME if m in data), None)
        if o.output_type == 'stream' and o.name == 'stdout':
            said.append(o.text)
        elif kind in ('image/png', 'image/svg+xml'):
            said.append('<picture>\n')
        elif kind:
            said.append(re.sub(r'base64,[\w+/=\s]+', 'base64', data[kind]) + '\n')
    return ''.join(said)


def same(
    kept:str, # What the page shows
    fresh:str, # What this run shows
)->bool: # True where only the last digits of floats differ, which another processor may round differently
    "Compare two outputs: words and whole numbers exactly, floats to 2 % or 0.02."
    if NUMBER.sub('#', kept) != NUMBER.sub('#', fresh):
        return False
    pairs = zip(NUMBER.findall(kept), NUMBER.findall(fresh))
    return all(math.isclose(float(a), float(b), rel_tol=.02, abs_tol=.02) for a,b in pairs)


def code_pairs(
    old, # The notebook as it is kept
    new, # The same notebook after a run
): # Iterator of (kept cell, fresh cell), code only
    "The cells that ran, but for the export."
    for a,b in zip(old.cells, new.cells):
        if a.cell_type == 'code' and a.source == b.source:
            yield a, b


def first_difference(
    kept:str, # What the page shows
    fresh:str, # What this run shows
)->str: # The first line that differs, of both
    "A short account of a difference."
    pairs = zip((kept + '\n\0').splitlines(), (fresh + '\n\0').splitlines())
    a, b = next(((a, b) for a,b in pairs if not same(a, b)), ('', ''))
    return f"kept {a[:160]!r}, fresh {b[:160]!r}"


def compare(
    path:Path, # The notebook
    new, # The same notebook after a run
)->list: # One sentence for each output that differs
    "Say which kept outputs this run does not give."
    return [f"cell {a.id!r}: {first_difference(shown(a.outputs), shown(b.outputs))}"
            for a,b in code_pairs(nbformat.read(path, 4), new)
            if not directive(a, 'varies') and not same(shown(a.outputs), shown(b.outputs))]


def store(
    path:Path, # The notebook
    new, # The same notebook after a run
):
    "Keep the outputs of this run, cleaned. Warnings are printed for the author and not stored."
    from nbdev.clean import nbdev_clean
    nb = nbformat.read(path, 4)
    for a,b in code_pairs(nb, new):
        for o in b.outputs:
            if o.get('name') == 'stderr':
                print(f"{path.name}, cell {a.id!r} wrote to stderr:\n{o.text}", file=sys.stderr)
        if not (directive(a, 'varies') and a.outputs):
            a.outputs = [clean(o) for o in b.outputs if o.get('name') != 'stderr']
    nbformat.write(nb, path)
    nbdev_clean.__wrapped__(str(path))


def clean(output):
    "An output without what changes from run to run: its number, and the handle of a widget."
    if 'execution_count' in output:
        output.execution_count = None
    output.get('data', {}).pop('application/vnd.jupyter.widget-view+json', None)
    return output


def plain(error)->str:
    "The end of a kernel's traceback, without colours."
    return re.sub(r'\x1b\[[\d;]*m', '', str(error))[-2000:]


async def run_again(path, args): # As run
    "Run a notebook; if its kernel dies, which may be the machine's fault, once more, and say so."
    try:
        return await run(path, args.limit_s, args.slow)
    except DeadKernelError:
        print(f'{path.name}: its kernel died; it is run once more', flush=True)
        return await run(path, args.limit_s, args.slow)


async def one(path, args, gate)->list: # Sentences about what is wrong
    "Run one notebook, then compare or store."
    async with gate:
        start = time.perf_counter()
        try:
            new = await run_again(path, args)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as e:
            bad = [f"fails: {plain(e)}"]
        else:
            bad = store(path, new) or [] if args.store else compare(path, new)
        print(f"{path.name:32} {time.perf_counter()-start:6.1f} s{'' if not bad else '  WRONG'}", flush=True)
        return [f"{path.name}: {b}" for b in bad]


async def run_all(paths, args)->list:
    gate = asyncio.Semaphore(args.workers)
    return sum(await asyncio.gather(*(one(p, args, gate) for p in paths)), [])


def main():
    "Exit code 1, and a sentence for each thing that is wrong."
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('notebooks', nargs='*', type=Path, help='default: all of nbs/')
    p.add_argument('--store', action='store_true', help='keep the outputs of this run')
    p.add_argument('--slow', action='store_true', help='run the cells marked slow too')
    p.add_argument('--workers', type=int, default=2, help='notebooks at a time')
    p.add_argument('--limit-s', type=float, default=600, help='seconds that one cell may take')
    args = p.parse_args()
    os.environ.update(ENV)
    os.environ.pop('MPLBACKEND', None)  # the kernel's own, as a reader has it
    paths = [f.resolve() for f in args.notebooks] or all_pages()
    bad = asyncio.run(run_all(paths, args))
    for b in bad:
        print(b, file=sys.stderr)
    if bad:
        sys.exit(
            "Mend the page, or store what it shows now by `make refresh NB=nbs/…`, and read the difference."
        )
    print(
        f"{len(paths)} notebooks run from top to bottom"
        + ('.' if args.store else ', and show what they kept.')
    )


if __name__ == '__main__':
    main()
