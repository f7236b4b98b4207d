"""Notebooks and modules in step: `nbdev_clean` and `nbdev_export` must find nothing to do.

What they change stays changed (that is the repair), so a second run passes: look at the diff, then commit it.
Exit code 1 and one line for each file that was out of step.
"""
import json, os, re, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
WATCHED = ('nbs/**/*.ipynb', 'vidcls/**/*.py', 'pyproject.toml')


def snapshot(
    folder=root, # The project's folder
)->dict: # Path -> bytes of every notebook and every exported file
    "What nbdev could change."
    files = {f.relative_to(folder) for g in WATCHED for f in folder.glob(g)}
    return {
        str(f): (folder / f).read_bytes()
        for f in sorted(files)
        if not any(p.startswith('.') for p in f.parts)
    }


def unreadable(
    files:dict, # As `snapshot` gives it
)->list: # One sentence per broken notebook
    "`nbdev_clean` only warns about these."
    bad = []
    for name,data in files.items():
        if not name.endswith('.ipynb'):
            continue
        try:
            json.loads(data)
        except ValueError as e:
            bad.append(f"{name} is not a notebook: {e}")
    return bad


def exports(
    data:bytes, # A notebook file
)->tuple: # (names after `default_exp`, does any cell export?)
    "What a notebook says about its module."
    src = '\n'.join(''.join(c['source']) for c in json.loads(data)['cells'] if c['cell_type'] == 'code')
    return re.findall(r'^#\|\s*default_exp\s+(\S+)', src, re.M), bool(
        re.search(r'^#\|\s*export[is]?\b', src, re.M)
    )


def strays(
    files:dict, # As `snapshot` gives it
)->list: # One sentence per notebook or module that lacks its partner
    "Every module has one notebook, and every notebook that exports has one module."
    bad, want = [], {}
    for name,data in files.items():
        if not name.endswith('.ipynb'):
            continue
        mods, has_export = exports(data)
        if has_export and len(mods) != 1:
            bad.append(f"{name} exports and has {len(mods)} default_exp lines, not 1")
        for m in mods:
            py = f"vidcls/{m.replace('.', '/')}.py"
            if py in want:
                bad.append(f"{name} and {want[py]} both export {py}")
            want[py] = name
    have = {n for n in files if n.endswith('.py') and Path(n).name not in ('__init__.py', '_modidx.py')}
    bad += [f"{py} has no notebook: delete it, or restore the notebook" for py in sorted(have - set(want))]
    return bad + [f"{want[py]} exports no {py}" for py in sorted(set(want) - have)]


def main():
    "Clean, export, compare."
    before = snapshot()
    bad = unreadable(before)
    if not bad:
        # nbdev_export does nothing where IN_TEST is set
        env = {k:v for k,v in os.environ.items() if k != 'IN_TEST'}
        code = ('from nbdev.clean import nbdev_clean; from nbdev.doclinks import nbdev_export; '
                'nbdev_clean.__wrapped__(); nbdev_export.__wrapped__()')
        subprocess.run([sys.executable, '-c', code], cwd=root, env=env, check=True)
        after = snapshot()
        bad = [f"{n} was out of step and is mended now: look at the diff and commit it"
               for n in sorted(before.keys() | after.keys()) if before.get(n) != after.get(n)] + strays(after)
    for b in bad:
        print(b, file=sys.stderr)
    if not bad:
        print(f"{sum(n.endswith('.ipynb') for n in before)} notebooks and their modules are in step.")
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
