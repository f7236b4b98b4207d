"""Finish what Quarto or smalldocs rendered: nothing from foreign hosts, MathML, unique ids, llms.txt.

Every step changes text, works on what either renderer writes, and changes nothing when it is done twice.
"""
import re
from collections import Counter
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

from latex2mathml.converter import convert

FOREIGN = r'(?:https?:)?//'
# elements whose `src` or `href` a browser fetches by itself
FETCHED = re.compile(r'<(?:script|link|img|video|audio|source|track|iframe|embed|object|input)\b[^>]*>')


def finish(
    docs:Path, # The folder of the site
    site:str, # Its published address
):
    "Finish each page, each style sheet and the site map, and add llms.txt."
    for css in docs.rglob('*.css'):
        text = css.read_text(encoding='utf-8')
        if (new := own_fonts(text)) != text:
            css.write_text(new, encoding='utf-8')
    for page in docs.rglob('*.html'):
        text = page.read_text(encoding='utf-8')
        new = finished(text, site)
        if page == docs/'404.html':
            new = anywhere(new, urlsplit(site).path)
        if new != text:
            page.write_text(new, encoding='utf-8')
    sitemap = docs/'sitemap.xml'
    if sitemap.is_file():
        text = sitemap.read_text(encoding='utf-8')
        sitemap.write_text(without_lost_page(text), encoding='utf-8')
    (docs/'llms.txt').write_text(index_for_machines(docs, site), encoding='utf-8')


def finished(
    html:str, # A page
    site:str, # The published address of the site
)->str:
    "Return a page as it is published."
    for step in (offline, mathml, whole_words, flowing, unique_ids, reachable):
        html = step(html)
    # smalldocs looks for the picture of the card beside the page
    return re.sub(rf'(content="{re.escape(site)}/)[\w-]+/(images/)', r'\1\2', html)


# ---- nothing from foreign hosts

def own_fonts(
    css:str, # A style sheet
)->str:
    "Drop imports from foreign hosts; the theme names fonts of the system next."
    address = rf'"{FOREIGN}[^"]*"|\'{FOREIGN}[^\']*\'|{FOREIGN}[^)"\']*'  # addresses of fonts have semicolons
    return re.sub(rf'@import\s*(?:url\(\s*(?:{address})\s*\)|{address})[^;]*;', '', css)


def offline(
    html:str, # A page
)->str:
    "Drop scripts and style sheets of foreign hosts, and the line that needs one of them."
    html = re.sub(rf'<script\b[^>]*\bsrc="{FOREIGN}[^>]*>\s*</script>\s*', '', html)
    html = re.sub(r"<script\b[^>]*>\s*define\('jquery'[^<]*</script>\s*", '', html)
    fetches = r'\brel="(?:stylesheet|preconnect|dns-prefetch|preload|modulepreload|icon)"'
    return re.sub(rf'<link\b(?=[^>]*\bhref="{FOREIGN})(?=[^>]*{fetches})[^>]*>\s*', '', html)


# ---- mathematics without a script

def mathml(
    html:str, # A page
)->str:
    "Turn LaTeX into MathML, which browsers draw themselves."
    def drawn(m):
        display = m[1] == 'display'
        latex = re.sub(r'^\\[(\[]|\\[)\]]$', '', unescape(m[2]).strip()).strip()
        math = spaced(convert(latex, display='block' if display else 'inline'))
        shown = f'<span class="math {m[1]}">{math}</span>'
        if display or not m[3]:
            return shown + m[3]
        # else a line could end between the formula and its comma
        return f'<span style="white-space: nowrap">{shown}{m[3]}</span>'
    formula = r'<span class="math (inline|display)">(\s*\\[(\[].*?)</span>([.,;:!?)]*)'
    return re.sub(formula, drawn, html, flags=re.S)


def spaced(
    math:str, # MathML
)->str:
    "Put the space of LaTeX around names such as sin, which the converter leaves out."
    space, name = '<mspace width="0.167em" />', r'<mi>[a-z]{2,}</mi>'
    math = re.sub(rf'(</m(?:i|n|su[bp]|subsup|frac|sqrt)>)(?={name})', rf'\1{space}', math)
    return re.sub(rf'({name})(?=<m(?:i|n|su[bp]|subsup|frac|sqrt)\b)', rf'\1{space}', math)


# ---- where lines may not break

def whole_words(
    html:str, # A page
)->str:
    "Keep options such as --bs whole within a line, and numbers with their per cent signs."
    whole = r'<span style="white-space: nowrap">\1</span>'
    def in_code(m):
        return f'<code>{re.sub(r"(?<![^ [(])(--?[a-z][a-z_-]*)", whole, m[1])}</code>'
    def in_shell(m):
        return re.sub(r'(?<=\s)(--[a-z][\w-]*)(?![^<>]*>)', whole, m[0])
    html = re.sub(r'<pre class="sourceCode (?:sh|bash)\b.*?</pre>', in_shell, html, flags=re.S)
    parts = re.split(r'(<(pre|script|style)\b.*?</\2>)', html, flags=re.S)
    for i in range(0, len(parts), 3):  # the parts between are the matches, and the names of their tags
        parts[i] = re.sub(r'<code>([^<]*)</code>', in_code, parts[i])
        parts[i] = re.sub(r'(\d) %(?=[^<>]*<)', '\\1\u00a0%', parts[i])
    return ''.join(p for i,p in enumerate(parts) if i % 3 != 2)


def flowing(
    html:str, # A page
)->str:
    "Mark outputs that are sentences and no tables: a phone wraps their lines."
    def marked(m):
        aligned = re.search(r'\S {2,}\S|^ {3,}\S', re.sub('<[^>]*>', '', m[2]), flags=re.M)
        return m[0] if aligned else f'{m[1]} class="flowing"{m[2]}'
    return re.sub(r'(<div class="cell-output[^"]*">\s*<pre)(><code>.*?</code>)', marked, html, flags=re.S)


# ---- ids

class Ids(HTMLParser):
    "Where each id stands: on which kind of element, and where its tag begins and ends."
    def __init__(self,
        html:str, # A page
    ):
        super().__init__()
        self.found, self.starts = [], [0]
        for line in html.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get('id'):
            line, column = self.getpos()
            start = self.starts[line - 1] + column
            self.found.append((attrs['id'], tag, start, start + len(self.get_starttag_text())))


def unique_ids(
    html:str, # A page
)->str:
    "Leave each id on one element: a heading or section before a span, a span before the box of a cell."
    weight = dict(section=0, h1=0, h2=0, h3=0, h4=0, span=1)
    by_id = {}
    for found in Ids(html).found:
        by_id.setdefault(found[0], []).append(found)
    spare = []
    for same in by_id.values():
        spare += sorted(same, key=lambda f: (weight.get(f[1], 2), f[2]))[1:]
    for name,_,start,end in sorted(spare, key=lambda f: -f[2]):
        tag = re.sub(rf'\s+id=(["\']){re.escape(escape(name))}\1', '', html[start:end], count=1)
        html = html[:start] + tag + html[end:]
    return html


# ---- what both renderers leave open

def reachable(
    html:str, # A page
)->str:
    "Make the button that leads to the top a thing that a keyboard reaches."
    return re.sub(r'<a (?=[^>]*id="quarto-back-to-top")(?![^>]*\bhref=)', '<a href="#" ', html)


def anywhere(
    html:str, # The page for addresses that lead nowhere
    base:str, # The path of the site on its host
)->str:
    "Let the page's links work below any address."
    return html if '<base ' in html else html.replace('<head>', f'<head><base href="{base}/">', 1)


def without_lost_page(
    sitemap:str, # XML
)->str:
    "Drop the page for addresses that lead nowhere: nobody should find it by a search."
    return re.sub(r'\s*<url>\s*<loc>[^<]*/404\.html</loc>(?:(?!</url>).)*</url>', '', sitemap, flags=re.S)


def index_for_machines(
    docs:Path, # The folder of the site
    site:str, # Its published address
)->str: # Markdown, as llmstxt.org describes it
    "List title, address and one sentence of each page, in the order of the sidebar."
    home = (docs/'index.html').read_text(encoding='utf-8')
    about = described_by(home)
    lines = ['# vidcls', '', f'> {about}' if about else '']
    order = re.findall(r'href="(?:\./)?([\w./-]+\.html)"[^>]*class="[^"]*sidebar-link', home)
    group = None
    for name in dict.fromkeys(order):
        page = docs/name
        folder = name.rpartition('/')[0]
        if not page.is_file() or name == 'index.html':
            continue
        if folder != group:
            group = folder
            lines += ['', f"## {folder.capitalize() or 'The course'}", '']
        text = page.read_text(encoding='utf-8')
        title = re.search(r'<title>(.*?)</title>', text, flags=re.S)
        title = unescape(title[1]).rpartition(' – ')[0] or unescape(title[1])
        about = described_by(text)
        lines.append(f'- [{title}]({site}/{name})' + (f': {about}' if about else ''))
    return '\n'.join(lines) + '\n'


def described_by(
    html:str, # A page
)->str:
    "Return the sentence that describes a page; empty where there is none."
    found = re.search(r'<meta name="description" content=("[^"]*"|\'[^\']*\')', html)
    return unescape(found[1][1:-1]) if found else ''


# ---- what is looked at afterwards

def foreign(
    html:str, # A page
)->list: # Addresses
    "Return what a browser would fetch from foreign hosts when it shows the page."
    links = r'\brel="(?:canonical|next|prev|alternate|license)"'
    tags = [t for t in FETCHED.findall(html) if not re.search(links, t)]
    found = [m for t in tags for m in re.findall(rf'\s(?:src|href|poster|data)="({FOREIGN}[^"]+)"', t)]
    for script in re.findall(r'<script\b[^>]*>(.*?)</script>', html, flags=re.S):
        found += re.findall(rf'\bimport\b[^;]*?["\']({FOREIGN}[^"\']+)["\']', script)
    for style in re.findall(r'<style\b[^>]*>(.*?)</style>', html, flags=re.S):
        found += re.findall(rf'(?:@import|url\()\s*(?:url\()?["\']?({FOREIGN}[^"\')]+)', style)
    return found


def silent(
    html:str, # A page
)->list: # The beginnings of tags
    "Return pictures and players without a text that says what they show."
    bad = [t[:80] for t in re.findall(r'<img\b[^>]*>', html) if not re.search(r'\salt=', t)]
    bad += [t[:80] for t in re.findall(r'<video\b[^>]*>', html) if not re.search(r'\saria-label="[^"]', t)]
    return bad


def repeated(
    html:str, # A page
)->list: # Ids
    "Return ids that stand on more than one element."
    counts = Counter(name for name,*_ in Ids(html).found)
    return sorted(name for name,n in counts.items() if n > 1)
