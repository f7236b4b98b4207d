"A real Chromium for tests, and what axe-core finds in a page."
import shutil
from contextlib import contextmanager
from pathlib import Path

import axe_core_python
import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason='there is no Chromium on this machine')


@contextmanager
def chromium(*args):
    "Start the browser, with further arguments of its command line."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', *args])
        yield browser
        browser.close()


def serious_findings(page, where='html', **options):
    "Return the serious findings of axe-core, each with its first place; `where` is a context of axe."
    if not page.evaluate('!!window.axe'):
        page.add_script_tag(path=Path(axe_core_python.__file__).parent/'axe.min.js')
    return page.evaluate('''([context, options]) => axe.run(context, options).then(r => r.violations
        .filter(v => ['serious', 'critical'].includes(v.impact))
        .map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 120), v.nodes[0].failureSummary].join(' ')))
        ''', [where, options])
