"""The figures of the house, over all modules: `python tests/house.py` prints a table.

tests/test_house.py holds its limits.
"""
import ast
import statistics
import sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
WIDTH, FUNCTION, MODULE, PARAMETERS = 110, 60, 450, 10      # the limits


def modules(
    top:Path=root, # The checkout
)->dict: # Dotted name -> file, without what nbdev writes for itself
    "Return the modules of the library."
    files = sorted(f for f in (top/'vidcls').rglob('*.py') if f.name not in ('_modidx.py', '__init__.py'))
    return {'.'.join(f.relative_to(top/'vidcls').with_suffix('').parts): f for f in files}


def own_lines(
    text:str, # A module
)->list:
    "Return its lines without the list of names that nbdev writes."
    lines = text.splitlines()
    start = next((i for i,l in enumerate(lines) if l.startswith('__all__')), None)
    if start is None:
        return lines
    end = next(i for i in range(start, len(lines)) if lines[i].endswith(']'))
    return lines[:start] + lines[end+1:]


def functions(
    tree:ast.AST, # A module
): # Yields (name, lines, parameters, is it private?)
    "Go through all functions and methods, those inside others too."
    for n in ast.walk(tree):
        if not isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        a = n.args
        given = [*a.posonlyargs, *a.args, *a.kwonlyargs]
        n_given = sum(p.arg not in ('self', 'cls') for p in given)
        yield n.name, n.end_lineno-n.lineno+1, n_given, n.name.startswith('_') and not n.name.startswith('__')


def figures(
    file:Path, # A module
)->dict:
    "Return the figures of one module."
    text = file.read_text(encoding='utf-8')
    lines = own_lines(text)
    code = [l for l in lines if l.strip()]
    found = list(functions(ast.parse(text)))
    widths = sorted(len(l) for l in code)
    return dict(
        lines=len(lines),
        mean_width=statistics.mean(widths) if widths else 0,
        p90_width=widths[int(.9*(len(widths)-1))] if widths else 0,
        over=sum(len(l) > WIDTH for l in lines),
        functions=len(found),
        private=sum(p for *_,p in found),
        longest=max(((n, name) for name,n,_,_ in found), default=(0, '')),
        most=max(((n, name) for name,_,n,_ in found), default=(0, '')),
    )


def table(
    top:Path=root, # The checkout
)->str:
    "Return the table, one line a module, and the whole below."
    rows = {name: figures(f) for name,f in modules(top).items()}
    said = [f"{'module':24} lines width p90 >110 functions private  longest function, most parameters"]
    for name,r in sorted(rows.items(), key=lambda kv: -kv[1]['lines']):
        share = r['private']/r['functions'] if r['functions'] else 0
        longest, most = (' '.join(map(str, reversed(r[k]))) for k in ('longest', 'most'))
        said.append(f"{name:24} {r['lines']:5} {r['mean_width']:5.0f} {r['p90_width']:3} {r['over']:4} "
                    f"{r['functions']:9} {share:7.0%}  {longest}, {most}")
    n = sum(r['functions'] for r in rows.values())
    private = sum(r['private'] for r in rows.values())
    texts = [f.read_text(encoding='utf-8') for f in modules(top).values()]
    widths = sorted(len(l) for text in texts for l in own_lines(text) if l.strip())
    said.append(f"whole: {len(rows)} modules, {sum(r['lines'] for r in rows.values())} lines, mean width "
                f"{statistics.mean(widths):.0f}, p90 {widths[int(.9*(len(widths)-1))]}, over 110 "
                f"{sum(r['over'] for r in rows.values())}, {n} functions, {private/n:.0%} private")
    return '\n'.join(said)


if __name__ == '__main__':
    print(table(Path(sys.argv[1]) if sys.argv[1:] else root))
