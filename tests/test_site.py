"The built site in a real Chromium: `make docs` builds it, `make test` does so before this."
import re
import sys
import threading
import xml.etree.ElementTree as xml
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'tools'))
import finish

from browser import chromium, needs_chromium, serious_findings

DOCS = root/'_docs'
SITE = 'https://vidcls.github.io/vidcls'
BASE = '/vidcls'
needs_site = pytest.mark.skipif(not (DOCS/'index.html').is_file(), reason='no site is built: run `make docs`')
WIDTHS = {'phone': 390, 'desk': 1280}
# axe-core looks at each page once in each scheme, in the dark at contrast only: the rest has no colours.
# What stands on every page (the list of all pages) it looks at on the home page.
AXE = {('light', 'desk'): {}, ('dark', 'phone'): {'runOnly': ['color-contrast']}}
# Words of code have the colours of a dozen kinds: five of each kind are enough, and three times as fast.
FEW_WORDS = '''() => {
    const n = {};
    for (const word of document.querySelectorAll('code > span')) {
        const kind = word.className + !!word.closest('details');
        n[kind] = (n[kind] || 0) + 1;
        if (n[kind] > 5) word.replaceWith(...word.childNodes);
    }
}'''
QUICK = dict(resultTypes=['violations'], preload=False)               # of axe-core
OTHERS = ['inside/core.html', 'inside/recipes.html', 'inside/pretraining.pictures.html',
          'studies/studies.models.html', '404.html']


def lessons():
    "Return the pages of the course, the home page first."
    names = (f.name.replace('.ipynb', '.html') for f in sorted((root/'nbs').glob('*.ipynb')))
    return ['index.html', *(re.sub(r'^\d\w+?_', '', n) for n in names if n != 'index.html')]


class Handler(SimpleHTTPRequestHandler):
    "Serve the site below the path that it has when published; an address that leads nowhere gets 404.html."
    def translate_path(self, path):
        return super().translate_path(path.removeprefix(BASE))

    def send_error(self, code, *args, **kwargs):
        body = (DOCS/'404.html').read_bytes()
        self.send_response(code)
        self.send_header('Content-Type', 'text/html')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def url():
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(DOCS)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}{BASE}'
    server.shutdown()
    server.server_close()


@pytest.fixture(scope='module')
def browser():
    pytest.importorskip('playwright.sync_api')
    with chromium('--disable-gpu') as browser:
        yield browser


@pytest.fixture(scope='module')
def page(browser):
    "One page for all tests; it notes what it asks foreign hosts for, and gets nothing from them."
    context = browser.new_context(color_scheme='light', reduced_motion='reduce')
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.foreign, page.errors = [], []
    def note(route):
        page.foreign.append(route.request.url)
        route.abort()
    page.route(re.compile(r'^https?://(?!127\.0\.0\.1)'), note)
    page.on('pageerror', lambda e: page.errors.append(str(e)))
    yield page
    context.close()


def dress(page, scheme, width):
    "Give the page a scheme of colours and a width."
    page.set_viewport_size(dict(width=WIDTHS[width], height=800))
    page.emulate_media(color_scheme=scheme)
    dark = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(c => c < 128)"
    page.wait_for_function(f'({dark}) === {str(scheme == "dark").lower()}')
    page.wait_for_function(f'!!document.querySelector(".quarto-dark") === {str(scheme == "dark").lower()}')


# ---- in the browser

@needs_site
@needs_chromium
@pytest.mark.parametrize('name', [*lessons(), *OTHERS])
def test_page(page, url, name):
    "No foreign request, no error, no sideways scroll, nothing serious for axe-core."
    page.foreign.clear()
    page.errors.clear()
    page.goto(f'{url}/{name}')
    page.evaluate('document.querySelectorAll("details").forEach(d => d.open = true)')
    page.evaluate(FEW_WORDS)
    for scheme in ('light', 'dark'):
        for width in WIDTHS:
            dress(page, scheme, width)
            assert page.evaluate('document.documentElement.scrollWidth') <= WIDTHS[width], width
            if (scheme, width) in AXE:
                where = 'html' if name == 'index.html' else {'exclude': [['#quarto-sidebar']]}
                found = serious_findings(page, where, **QUICK, **AXE[scheme, width])
                assert not found, scheme
    page.evaluate('scrollTo(0, document.body.scrollHeight)')  # what is fetched only when it is seen
    assert not page.foreign and not page.errors


@needs_site
@needs_chromium
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_search(page, url, scheme):
    page.goto(f'{url}/losses.html')
    dress(page, scheme, 'desk')
    box = page.locator('.smalldocs-search input')
    if not box.count():
        pytest.skip('Quarto has a search box of its own')
    box.fill('smoothing')
    results = page.locator('.search-result')
    results.first.wait_for()
    assert not serious_findings(page, '#quarto-search', **QUICK)
    page.locator('.search-result', has_text='Losses').first.click()
    page.wait_for_url('**/losses.html*')


@needs_site
@needs_chromium
def test_a_lost_reader_finds_the_way(page, url):
    "The page for addresses that lead nowhere works at any depth."
    page.errors.clear()
    page.goto(f'{url}/inside/there/is.html')
    assert 'does not exist' in page.title()
    page.locator('main a', has_text='home page').click()
    assert page.url == f'{url}/index.html' and not page.errors


QUARTO_PAGE = '''<body class="quarto-dark"><main class="content" id="quarto-document-content">
<header id="title-block-header" class="quarto-title-block default">
<h1 class="title">A_long_name_without_any_space_in_it</h1>
<div class="description">What <code>fit</code> does</div></header>
<table class="caption-top table"><tr><td><code>an_option_of_a_command</code></td><td>does</td><td>more</td>
<td><code>another_option_of_a_command</code></td></tr></table>
<p>See <code>vidcls.a_very_long_module_name.another_very_long_name(some, arguments, of, it)</code>.</p>
<div class="cell-output cell-output-display"><video width="512" height="512"></video></div>
<div class="sourceCode"><pre class="sourceCode"><code>%s</code></pre></div>
<a role="button" id="quarto-back-to-top" style="display: none">Back to top</a></main></body>''' % ('x' * 200)

@needs_chromium
def test_styles_hold_for_what_quarto_writes(browser):
    "A page in Quarto's markup, without its theme, fits a telephone."
    page = browser.new_page(viewport=dict(width=390, height=800))
    page.set_content(QUARTO_PAGE)
    page.add_style_tag(path=root/'nbs'/'styles.css')
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    style = lambda what, name: page.evaluate(f'getComputedStyle(document.querySelector("{what}")).{name}')
    assert style('.description code', 'backgroundColor') == 'rgba(0, 0, 0, 0)'
    assert style('.description code', 'color') == style('.description', 'color')
    assert float(style('#title-block-header', 'marginBottom').removesuffix('px')) >= 16
    assert style('#quarto-back-to-top', 'position') == 'static'
    page.close()


# ---- in the files

@needs_site
def test_files_are_sound():
    bad = []
    for path in DOCS.rglob('*.html'):
        html = path.read_text(encoding='utf-8')
        faults = [*finish.foreign(html), *finish.silent(html), *finish.repeated(html)]
        faults += ['a formula as LaTeX'] if re.search(r'class="math \w+">\\', html) else []
        faults += ['too heavy'] if path.stat().st_size > 1_500_000 else []
        bad += [f'{path.relative_to(DOCS)}: {f}' for f in faults]
    assert not bad, '\n'.join(bad)
    assert not [f for f in DOCS.rglob('*.css') if re.search(r'@import[^;]*//', f.read_text(encoding='utf-8'))]
    assert not list(DOCS.rglob('*.md'))


@needs_site
def test_files_for_machines():
    home = (DOCS/'index.html').read_text(encoding='utf-8')
    assert 'rel="icon"' in home and (DOCS/'images'/'icon.svg').is_file()
    for page in ('index.html', 'inside/core.html'):
        html = (DOCS/page).read_text(encoding='utf-8')
        card = re.search(r'property="og:image" content="([^"]+)"', html)[1]
        assert (DOCS/card.removeprefix(f'{SITE}/')).is_file() and 'name="twitter:card"' in html
    listed = [e.text for e in xml.parse(DOCS/'sitemap.xml').iter() if e.tag.endswith('loc')]
    index = (DOCS/'llms.txt').read_text(encoding='utf-8')
    missing = [n for n in lessons()[1:] if f'({SITE}/{n}): ' not in index or f'{SITE}/{n}' not in listed]
    assert not missing and '](' + SITE + '/inside/core.html): ' in index
