"""Build the site into _docs/, then look at every page of it. No network, no change to tracked files.

nbdev turns the notebooks of nbs/ into pages in _proc/; stage.py gets them ready. Quarto renders them where it
is on the PATH, else smalldocs. finish.py does to the rendered pages what neither of them does.
Exit code 1 lists each link, anchor or name that leads nowhere, each file that a browser would fetch from a
foreign host, each picture without a text, each id that stands twice, and each page that is too heavy.
"""
import gc, os, pkgutil, re, shutil, subprocess, sys, warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finish import finish, foreign, repeated, silent
from stage import stage

root = Path(__file__).resolve().parents[1]
HEAVY = 1_500_000  # bytes; no page may have more

# some cells do import and do something else: they run while pages are built, and may. Workers read this too.
warnings.filterwarnings('ignore', 'Found cells containing imports and other code', UserWarning)

# a worker of proc_nbs: at its end, each shell that ran a page would collect garbage
if __name__ == '__mp_main__':
    gc.collect = lambda generation=2: 0


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
    finish(cfg.doc_path, site)
    return cfg.doc_path, site


class Page(HTMLParser):
    "What a page offers (ids), points to (links), leaves open (loose), and must not have (faults)."
    def __init__(self,
        path:Path, # An html file
    ):
        super().__init__()
        self.ids, self.links, self.loose, self.stack = set(), [], [], []
        html = path.read_text(encoding='utf-8')
        self.feed(html)
        self.faults = [f'fetches {u} from a foreign host' for u in foreign(html)]
        self.faults += [f'{t} … has no text that says what it shows' for t in silent(html)]
        self.faults += [f'the id {i} stands on several elements' for i in repeated(html)]
        if (size := path.stat().st_size) > HEAVY:
            self.faults.append(f'the page has {size:,} bytes; at most {HEAVY:,} are allowed')

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
    "Follow every link that stays within the site, and look for the other faults of a page."
    prefix = urlsplit(site).path + '/'
    pages = {p.resolve(): Page(p) for p in docs.rglob('*.html')}
    bad = []
    for path,page in pages.items():
        name = path.relative_to(docs.resolve())
        bad += [f'{name}: unresolved {t}' for t in page.loose]
        bad += [f'{name}: {f}' for f in page.faults]
        for link in sorted(set(page.links)):
            base, url = path.parent, link
            if link.startswith(site):
                base, url = docs.resolve(), link[len(site):].lstrip('/')
            elif link.startswith('/'):
                base, url = docs.resolve(), link.removeprefix(prefix).lstrip('/')
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
    print(f"The site is in {docs.name}/: open {docs.name}/index.html "
          f"({n} pages, every link followed, nothing from foreign hosts).")


if __name__ == '__main__':
    main()
