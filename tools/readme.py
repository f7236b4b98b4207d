"""README.md from what is visible in nbs/index.ipynb.

With `--check` only compare, and exit 1 when they differ.
"""
import json, posixpath, re, sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
NOTE = '<!-- Made from nbs/index.ipynb: edit that, then run `make refresh NB=nbs/index.ipynb`. -->'
HIDDEN = {'hide', 'export', 'exporti', 'default_exp'}   # nbdev leaves these cells out of the page


def directives(
    src:str, # A code cell
)->tuple: # ({name: value}, the code below the directives)
    "Take the leading `#|` lines off a cell."
    lines, found = src.splitlines(), {}
    while lines and (m := re.match(r'#\|\s*([\w-]+):?\s*(.*)', lines[0])):
        found[m[1]] = m[2].strip().lower()
        lines.pop(0)
    return found, '\n'.join(lines).strip()


def relink(
    md:str, # Markdown written in nbs/
)->str: # The same, readable from the top of the repository
    "Links and pictures that are relative to nbs/ become relative to README.md."
    def sub(m):
        to = m[2]
        if re.match(r'[a-z]+:|#|//', to):
            return m[0]
        return m[1] + posixpath.normpath(posixpath.join('nbs', to)) + m[3]
    return re.sub(r'(\]\()([^)\s]+)([)\s])', sub, md)


def fenced(
    text:str, # What goes between
    lang:str='', # The language, for colours
)->str: # A fenced block that the text cannot close
    "A code block."
    fence = max(re.findall(r'^`{3,}', text, re.M), default='``') + '`'
    return f'{fence}{lang}\n{text.rstrip()}\n{fence}'


def shown(
    out:dict, # One stored output
    where:str, # The cell, for the message
)->str: # Markdown
    "An output as Markdown; a figure has no place in README.md, so it is an error."
    if out['output_type'] == 'stream':
        return fenced(''.join(out['text']))
    data = {k: ''.join(v) for k,v in out['data'].items()}
    if any(k.startswith('image/') for k in data):
        sys.exit(f"index.ipynb, {where}: README.md cannot hold a figure. Link to a page that shows it.")
    return relink(data['text/markdown']) if 'text/markdown' in data else fenced(data.get('text/plain', ''))


def readme(
    nb:dict, # index.ipynb
)->str: # README.md
    "What a reader of the page sees, as Markdown."
    parts = [NOTE]
    for c in nb['cells']:
        src, where = ''.join(c['source']), f"cell {c['id']!r}"
        if c['cell_type'] == 'markdown':
            if not re.match(r'#+\s.*\s-\s*$', src.strip()):
                parts.append(relink(src.strip()))   # nbdev's `## Heading -`
        if c['cell_type'] != 'code':
            continue
        d, code = directives(src)
        if d.keys() & HIDDEN or d.get('include') == 'false':
            continue
        if code and d.get('echo') != 'false':
            parts.append(fenced(code, 'python'))
        if d.get('output') != 'false':
            parts += [shown(o, where) for o in c['outputs']]
    return '\n\n'.join(p for p in parts if p) + '\n'


def main():
    "Write README.md, or check it."
    new = readme(json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8')))
    path = root/'README.md'
    if '--check' not in sys.argv:
        path.write_text(new, encoding='utf-8')
    elif not path.exists() or path.read_text(encoding='utf-8') != new:
        sys.exit("README.md is not what nbs/index.ipynb gives: run `python tools/readme.py` and commit both.")


if __name__ == '__main__':
    main()
