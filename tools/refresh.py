"""Run notebooks and store their outputs: `python tools/refresh.py [--flags "slow cuda"] [nbs/NN_name.ipynb ...]`.

Cells marked slow, cuda or `eval: false` are left alone and keep the outputs they have, unless `--flags` names them.
Nothing is written when a cell fails. Warnings are shown here and not stored. Running it twice gives the same bytes.
"""
import argparse, os, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
ENV = dict(VIDCLS_PROGRESS='0', MPLBACKEND='module://matplotlib_inline.backend_inline', IN_TEST='1',
           OMP_NUM_THREADS='1', PYTHONHASHSEED='0', HF_HUB_DISABLE_PROGRESS_BARS='1')


def skipped(
    cell, # A cell read by nbdev's NBProcessor
    flags:set, # Directives that switch a cell off
)->bool: # True when the cell is not to be run
    "The rule of `nbdev_test`."
    d = getattr(cell, 'directives_', {}) or {}
    off = d.get('eval:', [''])[0].lower() == 'false' or 'nbdev_export(' in cell.source
    return cell.cell_type != 'code' or off or bool(flags & d.keys())


def run(
    path:Path, # The notebook
    flags:set, # Directives that switch a cell off
)->dict: # Cell id -> outputs, for the cells that ran
    "Run a notebook from top to bottom in its own folder; a failing cell ends the process."
    from execnb.shell import CaptureShell
    from nbdev.process import NBProcessor
    nb, shell, ran = NBProcessor(path).nb, CaptureShell(path, mpl_format='png'), []
    def skip(cell):
        if skipped(cell, flags): return True
        cell.outputs = []
        ran.append(cell)
    os.chdir(path.parent)
    try: shell.run_all(nb, exc_stop=True, preproc=skip)
    except BaseException:
        print(shell.prettytb(fname=path), file=sys.stderr)
        sys.exit(f"{path.name}: cell {ran[-1].id!r} failed; the notebook is as it was.")
    return {c.id: c.outputs for c in ran}


def quiet(
    outputs:list, # Outputs of one cell
    where:str, # The cell, for the complaint
)->list: # Without what went to stderr
    "Nobody wants to read a warning on a page, and its author should."
    for o in outputs:
        if o.get('name') == 'stderr': print(f"{where} wrote to stderr:\n{''.join(o.text)}", file=sys.stderr)
    return [o for o in outputs if o.get('name') != 'stderr']


def refresh(
    path:Path, # The notebook
    flags:set, # Directives that switch a cell off
):
    "Run, store, clean. The sources are read afresh: NBProcessor takes the directives out of its own."
    from execnb.nbio import read_nb, write_nb
    from nbdev.clean import nbdev_clean
    new, nb = run(path, flags), read_nb(path)
    for c in nb.cells:
        if c.id in new: c.outputs = quiet(new[c.id], f'{path.name}, cell {c.id!r}')
    write_nb(nb, path)
    nbdev_clean.__wrapped__(str(path))


def main():
    "One process per notebook, so that none sees what another left behind."
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('notebooks', nargs='*', type=Path, help='default: all of nbs/')
    p.add_argument('--flags', default='', help='directives to run that are skipped otherwise: "slow cuda"')
    args = p.parse_args()
    if os.environ.get('VIDCLS_REFRESH') == '1':
        from nbdev.config import get_config
        return refresh(args.notebooks[0], set(get_config().tst_flags.split()) - set(args.flags.split()))
    for nb in args.notebooks or sorted((root/'nbs').glob('[!.]*.ipynb')):
        print(f'Running {nb.name}', flush=True)
        cmd = [sys.executable, __file__, str(nb.resolve()), '--flags', args.flags]
        rc = subprocess.run(cmd, cwd=root, env={**os.environ, **ENV, 'VIDCLS_REFRESH': '1'}).returncode
        if rc: sys.exit(rc)


if __name__ == '__main__': main()
