"""What the lessons weigh: `python tests/lessons.py` prints a table.

tests/test_lessons.py holds its limits.
"""
import json
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
# The limits: minutes, exported lines of a page and of a cell, cells with test_fail
MINUTES, EXPORTED, CELL, FAILING = 25, 150, 25, 3
WORDS_A_MINUTE, LINES_A_MINUTE = 150, 25                     # of prose, and of code
# '### 03.1 Play it backwards (easy, 4 minutes)'
EXERCISE = r'^### (\d\d[a-z]?\.\d+) .+ \((easy|medium|hard), (\d+) minutes?\)$'


def lessons(
    top:Path=root, # The checkout
)->dict: # Name -> file
    "Return the lessons in the order of the course."
    return {f.stem: f for f in sorted((top/'nbs').glob('[0-9]*.ipynb'))}


def code_lines(
    source:str, # A code cell
)->list:
    "Return its lines without empty ones and directives."
    return [l for l in source.splitlines() if l.strip() and not l.startswith('#|')]


def is_import(
    source:str, # A code cell
)->bool:
    "Does the cell only import, or list imported names?"
    lines = code_lines(source)
    return bool(lines) and all(re.match(r'(from |import |_all_ = |[\s\])])', l) for l in lines)


def has_picture(
    cell:dict, # Of a notebook
)->bool:
    "Does the cell show a figure, a film or a drawn diagram?"
    if cell['cell_type'] == 'markdown':
        return any(s in ''.join(cell['source']) for s in ('![', '<svg', '```mermaid', '```{mermaid'))
    kinds = [k for o in cell.get('outputs', []) for k in o.get('data', {})]
    html = ''.join(''.join(o.get('data', {}).get('text/html', '')) for o in cell.get('outputs', []))
    return any(k.startswith('image/') for k in kinds) or '<svg' in html or '<img' in html or '<video' in html


def weights(
    file:Path, # A lesson
)->dict:
    "Return what one lesson weighs."
    cells = json.loads(file.read_text(encoding='utf-8'))['cells']
    keys = ('exported', 'longest', 'shown', 'failing', 'figures', 'exercises', 'words', 'minutes')
    found, asking = dict.fromkeys(keys, 0), False
    for c in cells:
        source = ''.join(c['source'])
        found['figures'] += has_picture(c)
        if c['cell_type'] == 'markdown':
            found['exercises'] += len(re.findall(EXERCISE, source, re.M))
        if source.startswith('## Exercises'):
            asking = True
        if asking:                            # exercises have minutes of their own
            continue
        if c['cell_type'] == 'markdown':
            found['words'] += len(source.split())
            continue
        n = len(code_lines(source))
        found['failing'] += source.count('test_fail(')
        if re.search(r'^#\|\s*exports?\b', source, re.M):
            if not is_import(source):
                found['exported'] += n
                found['longest'] = max(found['longest'], n)
        elif not re.search(r'^#\|\s*(hide|default_exp)', source, re.M):
            found['shown'] += n
    lines = found['exported'] + found['shown']
    found['minutes'] = round(found['words']/WORDS_A_MINUTE + lines/LINES_A_MINUTE)
    return found


def sentences(
    file:Path, # A notebook
)->list:
    "Return the sentences of its prose, without headings, tables, code and links."
    cells = json.loads(file.read_text(encoding='utf-8'))['cells']
    prose = '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    prose = re.sub(r'```.*?```|\$\$.*?\$\$|<[^>]+>|^\*About.*?\*$', ' ', prose, flags=re.S | re.M)
    prose = re.sub(r'\]\([^)]*\)', ']', prose)
    blocks = [b for b in re.split(r'\n\s*\n|\n(?=[-|#>]|\d+\.)', prose) if not re.match(r'\s*[|#]', b)]
    found = [s for b in blocks for s in re.split(r'(?<=[.!?:;])[*_")]*\s+(?=[A-Z`*\[(])', b)]
    return [s for s in found if len(s.split()) > 2]


def readability(
    file:Path, # A notebook
)->dict: # mean: words of a sentence; long: per cent of sentences over 30 words
    "Return how long its sentences are."
    n = [len(s.split()) for s in sentences(file)]
    return {'mean': round(sum(n)/len(n), 1), 'long': round(100*sum(k > 30 for k in n)/len(n), 1)}


def table(
    top:Path=root, # The checkout
)->str:
    "Return the table, one line a lesson."
    rows = {name: weights(f) | readability(f) for name,f in lessons(top).items()}
    keys = list(next(iter(rows.values())))
    said = [f"{'lesson':26}" + ''.join(f'{k:>10}' for k in keys)]
    rows['whole'] = {k: sum(r[k] for r in rows.values()) for k in keys}
    rows['whole'] |= {k: round(rows['whole'][k]/(len(rows)-1), 1) for k in ('mean', 'long')}
    return '\n'.join(said + [f'{name:26}' + ''.join(f'{r[k]:10}' for k in keys) for name,r in rows.items()])


if __name__ == '__main__':
    print(table(Path(sys.argv[1]) if sys.argv[1:] else root))
