"""Build the site into _docs/, then follow every link in it. No network, no change to tracked files.

nbdev turns the notebooks of nbs/ into pages in _proc/. Quarto renders them where it is on the PATH, else
smalldocs.
Exit code 1 lists each link, anchor or name that leads nowhere.
"""
import json, os, pkgutil, posixpath, re, shutil, subprocess, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

root = Path(__file__).resolve().parents[1]


def stage(
    proc:Path, # The folder that nbdev's proc_nbs filled
    site:str, # The address of the published site
):
    "Give pages the names that nbdev's links use (00_core -> core), and the sidebar its numbers."
    pages = {}
    for nb in sorted(proc.rglob('*.ipynb')):
        cells = json.loads(nb.read_text(encoding='utf-8'))['cells']
        raw = ''.join(cells[0]['source']) if cells and cells[0]['cell_type'] == 'raw' else '{}'
        front = next(yaml.safe_load_all(raw))
        name = nb.relative_to(proc).as_posix()
        if 'title' not in front:
            sys.exit(f"nbs/{name} has no title: its first cell must start with '# '.")
        new = posixpath.join(posixpath.dirname(name), front['output-file'].replace('.html', '.ipynb'))
        pages[name] = new, front['title']
    for old,(new,_) in pages.items():
        text = (proc/old).read_text(encoding='utf-8')
        (proc/old).unlink()
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
    text = re.sub(rf'(\(|\\"){re.escape(site)}/', lambda m: m[1] + ('' if up == '.' else up + '/'), text)
    def named(m):
        to = posixpath.normpath(posixpath.join(here, m[2]))
        return m[1] + (posixpath.relpath(pages[to][0], here or '.') if to in pages else m[2])
    return re.sub(r'(\]\(|href=\\")([\w./-]+\.ipynb)(?=[#)\\])', named, text)


def build()->tuple: # (the folder of the site, its published address)
    "Notebooks to pages."
    from nbdev.config import get_config
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    cfg = get_config()
    link, site = cfg.nbs_path/'_quarto.yml', cfg.doc_host + cfg.doc_baseurl
    if not link.exists():
        link.symlink_to('../_quarto.yml')
    refresh_quarto_yml()
    os.environ['VIDCLS_PLAIN_DOCS'] = '1'  # pages have tables of parameters; see nbs/inside/88_docs.ipynb
    try:
        proc = proc_nbs(n_workers=2, force=True)
    except Exception as e:
        sys.exit(f"{e}\n\n{e.__cause__ or ''}\n"
                 "Pages run only the cells that export or import: keep imports in cells of their own.")
    stage(proc, site)
    if shutil.which('quarto'):
        subprocess.run(['quarto', 'render', '--no-execute'], cwd=proc, check=True)
    else:
        import smalldocs.site
        smalldocs.site.build(proc, quiet=True)
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(proc/cfg.doc_path.name, cfg.doc_path)
    return cfg.doc_path, site


class Page(HTMLParser):
    "What a page offers (ids), what it points to (links), and what its text leaves open (loose)."
    def __init__(self,
        path:Path, # An html file
    ):
        super().__init__()
        self.ids, self.links, self.loose, self.stack = set(), [], [], []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ('id', 'name') if attrs.get(k)}
        self.links += [attrs[k] for k in ('href', 'src') if attrs.get(k)]
        if tag in ('pre', 'code', 'script', 'style'):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if self.stack and self.stack[-1] == tag:
            self.stack.pop()

    def handle_data(self, text):
        if not self.stack:
            self.loose += re.findall(r'\?@[\w-]+|\?\?', text)
        if (
            self.stack == ['code']
            and (m := re.fullmatch(r'(vidcls(?:\.\w+)+)(?:\(\))?', text))
            and not known(m[1])
        ):
            self.loose.append(f'`{m[1]}`')


def known(
    name:str, # A dotted name
)->bool: # Does it lead to something?
    "Is there such a name in the library?"
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


def check(
    docs:Path, # The folder of the site
    site:str, # Its published address: links there are followed in the folder
)->list: # One sentence per problem
    "Follow every link that stays within the site."
    pages = {p.resolve(): Page(p) for p in docs.rglob('*.html')}
    bad = []
    for path,page in pages.items():
        name = path.relative_to(docs.resolve())
        bad += [f'{name}: unresolved {t}' for t in page.loose]
        for link in sorted(set(page.links)):
            base, url = path.parent, link
            if link.startswith(site):
                base, url = docs.resolve(), link[len(site):].lstrip('/')
            elif link.startswith('/'):
                base, url = docs.resolve(), link.lstrip('/')
            u = urlsplit(url)
            if u.scheme or u.netloc:
                continue
            to = (base/unquote(u.path)).resolve() if u.path else path if url is link else base
            if to.is_dir():
                to /= 'index.html'
            if not to.is_file():
                bad.append(f'{name}: {link} leads to no file')
            elif u.fragment and to in pages and unquote(u.fragment) not in pages[to].ids:
                bad.append(f'{name}: {link} leads to no such place on the page')
    return bad


def main():
    "Build, check, say where it lies."
    os.chdir(root)
    docs, site = build()
    bad = check(docs, site)
    for b in bad:
        print(b, file=sys.stderr)
    if bad:
        sys.exit(f"{len(bad)} problems in the site; it lies in {docs.name}/ as it is.")
    n = len(list(docs.rglob('*.html')))
    print(f"The site is in {docs.name}/: open {docs.name}/index.html ({n} pages, every link followed).")


if __name__ == '__main__':
    main()
