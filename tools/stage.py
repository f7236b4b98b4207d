"""Get the pages that nbdev made ready for Quarto or smalldocs: names, links, ids, entries, texts of pictures.

What is done here holds for both renderers, because both read the same notebooks.
"""
import ast, json, posixpath, re, sys
from html import escape
from pathlib import Path

import yaml

FOLD = '#| code-summary: "Exported source"'
PICTURES = ('image/png', 'image/jpeg', 'image/svg+xml')
# names of the library that pages also use for something else: a split, a column, a field
OTHER_SENSE = {
    'callbacks', 'judge', 'launch', 'nearest', 'note', 'patch', 'peak_mb', 'probe', 'release',
    'sampling', 'say', 'train',
}


def stage(
    proc:Path, # The folder that nbdev's proc_nbs filled
    site:str, # The address of the published site
):
    "Give pages the names that nbdev's links use (00_core -> core), and the sidebar its numbers."
    pages = {}
    for path in sorted(proc.rglob('*.ipynb')):
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        raw = ''.join(cells[0]['source']) if cells and cells[0]['cell_type'] == 'raw' else '{}'
        front = next(yaml.safe_load_all(raw))
        name = path.relative_to(proc).as_posix()
        if 'title' not in front:
            sys.exit(f"nbs/{name} has no title: its first cell must start with '# '.")
        new = posixpath.join(posixpath.dirname(name), front['output-file'].replace('.html', '.ipynb'))
        pages[name] = new, front['title']
    for old,(new,title) in pages.items():
        nb = json.loads((proc/old).read_text(encoding='utf-8'))
        lesson = posixpath.dirname(old) not in ('inside', 'studies')
        nb['cells'] = prepared(nb['cells'], title, lesson)
        (proc/old).unlink()
        text = json.dumps(nb, ensure_ascii=False, indent=1)
        (proc/new).write_text(relinked(text, old, pages, site), encoding='utf-8')
    yml = (proc/'_quarto.yml').read_text(encoding='utf-8')
    for old,(new,title) in pages.items():
        number = posixpath.basename(old).split('_')[0]
        shown = f"{number} {title}" if re.fullmatch(r'\d\d[a-z]?', number) else title
        text = json.dumps(shown, ensure_ascii=False)
        yml = re.sub(
            rf'^(\s*- ){re.escape(old)}$', lambda m: f'{m[1]}{{href: {new}, text: {text}}}', yml, flags=re.M
        )
    (proc/'_quarto.yml').write_text(yml, encoding='utf-8')


def relinked(
    text:str, # A notebook as nbdev made it
    old:str, # Its path below the folder of pages
    pages:dict, # Path of each page -> (its new path, its title)
    site:str, # The address of the published site
)->str:
    "Return the notebook with links to other pages by their new names, relative to this one."
    here = posixpath.dirname(old)
    up = posixpath.relpath('.', here or '.')
    # nbdev links private names too, which have no entry anywhere
    text = re.sub(rf'\[(`_\w+`)\]\({re.escape(site)}/[^)]*\)', r'\1', text)
    text = re.sub(rf'(\(|\\"){re.escape(site)}/', lambda m: m[1] + ('' if up == '.' else up + '/'), text)
    def named(m):
        to = posixpath.normpath(posixpath.join(here, m[2]))
        return m[1] + (posixpath.relpath(pages[to][0], here or '.') if to in pages else m[2])
    return re.sub(r'(\]\(|href=\\")([\w./-]+\.ipynb)(?=[#)\\])', named, text)


def prepared(
    cells:list, # The cells of a page, as nbdev made them
    title:str, # The title of the page
    lesson:bool, # Is it written for learners? Its pictures then need a text of their own
)->list: # The cells as the renderers get them
    "Return the cells with one heading for each exported cell, ids of their own, and texts for pictures."
    own = own_names(cells)
    cells = [dict(cell) for cell in one_entry_each(cells)]
    heading = title
    for cell in cells:
        if 'id' in cell:  # Quarto turns it into an id of the page, where headings have theirs
            cell['id'] = f"cell-{cell['id']}"[:64]
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            heading = (re.findall(r'^#+ (.+?)(?: \{.*\})?$', source, flags=re.M) or [heading])[-1]
            source = without_chance_links(source, own)
            # a drawing scrolls on a phone, as those do that code makes
            box = r'<div class="cell-output-display">\g<0></div>'
            source = re.sub(r'^<svg\b.*?</svg>', box, source, flags=re.M | re.S)
            cell['source'] = source.splitlines(keepends=True)
        elif cell['cell_type'] == 'code' and not is_entry(cell):
            cell['outputs'] = joined(cell.get('outputs', []))
            fallback = f'Output of the code above, in the section “{plain(heading)}”.'
            described(cell, None if lesson else fallback)
    return cells


def own_names(
    cells:list, # The cells of a page
)->set: # Names
    "Return the names that the code of a page exports, or imports from the library."
    names = set()
    for cell in cells:
        source = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or is_entry(cell):
            continue
        if '#| export' in source or FOLD in source:
            names |= set(defined(source))
        for m in re.finditer(r'^\s*from vidcls[\w.]* +import +(\([^)]*\)|.*)', source, flags=re.M):
            names |= set(re.findall(r'\w+', m[1]))
    return names


def without_chance_links(
    text:str, # Markdown, in which nbdev linked every name of the library
    own:set, # Names that the page exports or imports
)->str:
    "Drop the links of words that mean something else here: `train` may be a split, and not a function."
    def kept(m):
        return m[1] if m[2] in OTHER_SENSE - own else m[0]
    return re.sub(r'\[(`(\w+)`)\]\([^)\s]*#\w+\)', kept, text)


def joined(
    outputs:list, # The outputs of a cell
)->list: # The same, where what was printed in pieces is one output
    "Join what a slow loop printed: a kernel sends it in pieces, and each would get a box of its own."
    out = []
    for o in outputs:
        o = dict(o)
        if out and o['output_type'] == out[-1]['output_type'] == 'stream' and o['name'] == out[-1]['name']:
            text = ''.join(out[-1]['text']) + ''.join(o['text'])
            out[-1]['text'] = text.splitlines(keepends=True)
        else:
            out.append(o)
    return out


def plain(
    text:str, # Markdown of one line
)->str:
    "Return the text without marks of code and links."
    return re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', text).replace('`', '').replace('*', '')


# ---- one entry for each exported cell

def is_entry(
    cell:dict, # A cell as nbdev made it
)->bool:
    "Is the cell an entry of the reference that nbdev added?"
    source = ''.join(cell['source'])
    return cell['cell_type'] == 'code' and 'show_doc(' in source and '#| output: asis' in source


def entry_name(
    cell:dict, # An entry
)->str: # 'fit' or 'ClipSpec.with_'
    "Return the name that an entry documents."
    return re.search(r'show_doc\(([\w.]+)', ''.join(cell['source']))[1]


def defined(
    source:str, # The code of an exported cell
)->list: # Names, in the order of the code; a patched method is 'Class.method'
    "Return the names of functions and classes that a cell defines."
    names = []
    for node in ast.parse(re.sub(r'^[%!].*$', '', source, flags=re.M)).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            decorators = {ast.unparse(d).split('(')[0] for d in node.decorator_list}
            first = node.args.args[0].annotation if 'patch' in decorators and node.args.args else None
            names.append(f'{ast.unparse(first)}.{node.name}' if first else node.name)
    return names


def one_entry_each(
    cells:list, # The cells of a page, as nbdev made them
)->list: # The same, where entries whose source is shown are one heading above that source
    """Put one heading above each exported cell in place of its entries.

    nbdev writes an entry with signature and docstring for each name, though the source that stands beside it
    begins with both; of a cell that defines several names, all entries but one come after it, some of them
    after later cells only.
    """
    entries = {i: entry_name(cell) for i,cell in enumerate(cells) if is_entry(cell)}
    taken, above = set(), {}
    for i,cell in enumerate(cells):
        if FOLD not in ''.join(cell['source']):
            continue
        mine = []
        for name in defined(''.join(cell['source'])):
            same = [j for j,n in entries.items() if n == name and j not in taken]
            mine += sorted(same, key=lambda j: abs(j - i))[:1]
        if mine:
            above[i] = one_entry([cells[j] for j in mine])
            taken |= set(mine)
    ids = {entry_name(cells[j]).lower() for j in taken}
    out = []
    for i,cell in enumerate(cells):
        if i in above:
            out.append(above[i])
        if i not in taken:
            out.append(apart(cell, ids))
    return out


def one_entry(
    entries:list, # Entries of the names that one cell defines, in the order of the code
)->dict: # A Markdown cell
    "Return one heading for the entries; each name keeps the place that links lead to."
    names = [entry_name(e) for e in entries]
    shown = ', '.join(names) if len(names) < 4 else f'{names[0]} and {len(names) - 1} more'
    shown = shown.replace('__', r'\_\_')  # else __call__ would be a bold call
    text = ''.join(entries[0]['outputs'][0]['data']['text/markdown'])
    link = re.search(r'^\[source\].*$', text, flags=re.M)
    places = ''.join(f'<span id="{escape(n.lower())}"></span>' for n in names[1:])
    parts = [link[0] if link else '', f'### {shown} {{#{names[0].lower()}}}', places]
    source = '\n\n'.join(filter(None, parts)).splitlines(keepends=True)
    return dict(cell_type='markdown', id=entries[0].get('id', names[0]), metadata={}, source=source)


def apart(
    cell:dict, # A cell
    ids:set, # Ids of the reference on this page
)->dict: # The cell, or one with other headings
    "Give a heading another id where an entry of the reference has the same name."
    if cell['cell_type'] != 'markdown':
        return cell
    def other(m):
        slug = re.sub(r'[^\w.-]', '', plain(m[2]).lower().replace(' ', '-'))
        return f'{m[0]} {{#about-{slug}}}' if slug in ids and '{' not in m[2] else m[0]
    source = re.sub(r'^(#{2,4}) (.+)$', other, ''.join(cell['source']), flags=re.M)
    return cell | dict(source=source.splitlines(keepends=True))


# ---- pictures and players say what they show

def described(
    cell:dict, # A code cell; changed in place
    fallback:str|None, # What to say where the cell says nothing
):
    "Give each picture and player among the outputs the text that the cell gives in `#| fig-alt`."
    source = ''.join(cell['source'])
    found = re.search(r'^#\| fig-alt: (.+)\n?', source, flags=re.M)
    text = unquoted(found[1].strip()) if found else fallback
    shown = False
    for output in cell.get('outputs', []):
        data = output.get('data') or {}
        shown = shown or any(kind in data for kind in PICTURES)
        if 'text/html' in data:
            data['text/html'] = with_room(''.join(data['text/html'])).splitlines(keepends=True)
        for kind in ('text/html', 'image/svg+xml'):
            if kind in data and text:
                data[kind] = labelled(''.join(data[kind]), text, bool(found)).splitlines(keepends=True)
    if shown and text:  # nbdev takes the quotes away, and a text with a colon is no YAML without them
        line = f'#| fig-alt: {json.dumps(text, ensure_ascii=False)}\n'
        source = source.replace(found[0], '', 1) if found else source
        cell['source'] = (line + source).splitlines(keepends=True)


def with_room(
    html:str, # HTML
)->str:
    "Mark the cells of a table that hold sentences: else one word of them would stand on each line."
    return re.sub(r'<td>(?=[^<]{30,}</td>)(?=[^<]* [^<]* [^<]* )', '<td class="long">', html)


def unquoted(
    text:str, # The value of a directive
)->str:
    "Return the value without the quotes around it."
    return str(yaml.safe_load(text)) if text[0] in '"\'' else text


def labelled(
    html:str, # HTML or SVG
    text:str, # What it shows
    own:bool, # Was the text written for it? Then it replaces a label that is there
)->str:
    "Write the text into pictures, players and drawings."
    said = escape(text)
    def label(m):
        tag, rest = m[1], m[2]
        name = 'alt' if tag == 'img' else 'aria-label'
        there = re.search(rf'\s{name}="[^"]+"', rest)
        if there and (not own or tag == 'img'):
            return m[0]
        rest = re.sub(rf'\s{name}="[^"]*"', '', rest)
        role = ' role="img"' if tag == 'svg' and ' role=' not in rest else ''
        return f'<{tag}{role} {name}="{said}"{rest}>'
    return re.sub(r'<(img|video|svg)\b([^>]*)>', label, html)
