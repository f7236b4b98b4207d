"The steps that get pages ready and finish them, on small pieces as nbdev, smalldocs and Quarto write them."
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root/'tools'))
import finish
import stage

SITE = 'https://vidcls.github.io/vidcls'
SOURCE = '#| code-fold: show\n#| code-summary: "Exported source"\n'


# ---- nothing from foreign hosts

@pytest.mark.parametrize('rule', [
    '@import"https://fonts.googleapis.com/css2?family=Source+Sans+Pro:wght@300;700&display=swap";',  # Quarto
    '@import url(https://fonts.googleapis.com/css2?family=Lato:ital,wght@0,400;0,700;1,400&display=swap);',
    "@import url('//fonts.example.org/a;b.css') screen;",
])
def test_fonts_are_not_imported(rule):
    css = f'@charset "UTF-8";{rule}:root{{--bs-blue:#2780e3}}'
    assert finish.own_fonts(css) == '@charset "UTF-8";:root{--bs-blue:#2780e3}'
    assert finish.own_fonts('@import "own.css";') == '@import "own.css";'


QUARTO_WIDGETS = '''<script src="site_libs/quarto-html/quarto.js" type="module"></script>
<script src="https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js" integrity="sha512-c=" \
crossorigin="anonymous"></script>
<script src="https://cdnjs.cloudflare.com/ajax/libs/jquery/3.5.1/jquery.min.js" integrity="sha512-b=" \
crossorigin="anonymous" data-relocate-top="true"></script>
<script type="application/javascript">define('jquery', [],function() {return window.jQuery;})</script>
<script src="https://cdnjs.cloudflare.com/polyfill/v3/polyfill.min.js?features=es6"></script>
<script src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-chtml-full.js" type="text/javascript"></script>
<link href="https://cdn.jsdelivr.net/npm/katex@0.16.11/dist/katex.min.css" rel="stylesheet">
<link rel="canonical" href="https://vidcls.github.io/vidcls/losses.html">
<a href="https://github.com/vidcls/vidcls">GitHub</a>'''

def test_scripts_of_foreign_hosts_go_and_links_stay():
    assert len(finish.foreign(QUARTO_WIDGETS)) == 5
    html = finish.offline(QUARTO_WIDGETS)
    assert not finish.foreign(html)
    assert html.split('\n') == [line for line in QUARTO_WIDGETS.split('\n')
                                if 'quarto.js' in line or 'canonical' in line or 'GitHub' in line]
    assert finish.offline(html) == html


def test_foreign_looks_into_styles_and_players():
    assert finish.foreign('<video poster="//example.org/a" src="a.mp4"></video>') == ['//example.org/a']
    assert finish.foreign('<style>@import url("https://example.org/a.css");</style>')
    assert finish.foreign("<script type='module'>import m from 'https://example.org/m.mjs';</script>")
    assert not finish.foreign('<script>import("./own.js"); const a = "https://example.org"</script>')
    assert not finish.foreign('<img alt="" src="data:image/png;base64,//8A"><a href="https://example.org">x</a>')


# ---- formulas

def test_formulas_become_mathml():
    html = finish.mathml(r'for <span class="math inline">\(p_t &lt; \frac{1}{2}\)</span> only')
    assert 'class="math inline"><math' in html and '<mfrac>' in html and '&#x0003C;' in html
    assert '\\(' not in html and finish.mathml(html) == html
    block = finish.mathml('<span class="math display">\\[\\sum_k q_k\n\\log p_k\\]</span>')
    assert 'display="block"' in block


def test_formulas_that_quarto_drew_stay():
    drawn = '<span class="math inline"><math xmlns="http://www.w3.org/1998/Math/MathML"><mi>p</mi></math></span>'
    assert finish.mathml(drawn) == drawn


def test_names_in_formulas_have_room_and_commas_stay_beside_them():
    html = finish.mathml(r'<span class="math inline">\(q \log p\)</span>, so')
    room = '<mspace width="0.167em" />'
    assert f'<mi>q</mi>{room}<mi>log</mi>{room}<mi>p</mi>' in html
    assert html.startswith('<span style="white-space: nowrap"><span class="math')
    assert html.endswith('</span>,</span> so')


# ---- where lines may not break

def test_options_and_per_cent_signs_stay_whole():
    html = '<p>95 % of <code>vidcls serve --workers 2</code></p><a title="5 % x"></a><script>5 % b</script>'
    html += '<pre class="sourceCode bash"><code>run --bs <span>8</span></code></pre>'
    got = finish.whole_words(html)
    assert '95\u00a0% of' in got and 'title="5 % x"' in got and '>5 % b<' in got
    whole = '<span style="white-space: nowrap">%s</span>'
    assert f'vidcls serve {whole % "--workers"} 2' in got and f'run {whole % "--bs"} <span>' in got
    assert finish.whole_words(got) == got


def test_sentences_flow_and_tables_do_not():
    box = '<div class="cell-output cell-output-stdout">\n<pre><code>{}</code></pre></div>'
    sentence, table = box.format('not yet. Try again.'), box.format('way   top-1')
    matrix = box.format('tensor([[0, 1],\n        [1, 0]])')
    assert '<pre class="flowing">' in finish.flowing(sentence)
    assert finish.flowing(table) == table and finish.flowing(matrix) == matrix
    assert finish.flowing(finish.flowing(sentence)) == finish.flowing(sentence)


# ---- ids

def test_ids_are_left_where_links_should_lead():
    html = '''<div id="vidclserror" class="cell"><pre>…</pre></div>
<section id="vidclserror" class="level3"><h3 data-anchor-id="vidclserror">VidclsError</h3></section>
<span id="fit"></span><h3 id="fit">fit</h3><div id="fit"></div>'''
    assert finish.repeated(html) == ['fit', 'vidclserror']
    html = finish.unique_ids(html)
    assert not finish.repeated(html)
    assert '<div class="cell">' in html and '<section id="vidclserror"' in html and '<h3 id="fit">' in html
    assert '<span></span>' in html and '<div></div>' in html and 'data-anchor-id="vidclserror"' in html


# ---- the rest of a page

def test_button_card_and_lost_page():
    button = '<a onclick="scrollTo(0, 0); return false;" role="button" id="quarto-back-to-top">To top</a>'
    assert finish.reachable(button).startswith('<a href="#" onclick=')
    assert finish.reachable(finish.reachable(button)) == finish.reachable(button)
    card = f'<meta property="og:image" content="{SITE}/inside/images/card.png">'
    assert f'content="{SITE}/images/card.png"' in finish.finished(card, SITE)
    assert '<head><base href="/vidcls/">' in finish.anywhere('<html><head><title>…</title></head>', '/vidcls')


def test_the_lost_page_is_not_on_the_site_map():
    urls = [f'<url>\n<loc>{SITE}/{p}.html</loc>\n<lastmod>2026</lastmod>\n</url>' for p in ('404', 'train')]
    assert finish.without_lost_page(f'<urlset>{"".join(urls)}</urlset>') == f'<urlset>{urls[1]}</urlset>'


def test_a_page_is_described_in_either_quotes():
    assert finish.described_by('<meta name="description" content="It&#39;s one">') == "It's one"
    assert finish.described_by("""<meta name="description" content='"90 % sure"'>""") == '"90 % sure"'
    assert finish.described_by('<p>') == ''


def test_pictures_and_players_need_a_text():
    assert finish.silent('<img src="a"><video src="b"></video>') == ['<img src="a">', '<video src="b">']
    assert not finish.silent('<img alt="A curve." src="a.png"><video aria-label="A clip." src="a"></video>')


# ---- what both renderers read

def entry(name, link='L1', text='*What it does.*'):
    "Make the cell that nbdev writes for a name."
    head = f'---\n\n[source](https://github.com/x#{link}){{target="_blank"}}\n\n### {name}\n\n'
    shown = f'{head}```python\ndef {name}(\n):\n```\n\n{text}'
    cell = code(f'#| echo: false\n#| output: asis\nshow_doc({name})', f'e-{name}')
    return cell | dict(outputs=[dict(output_type='execute_result', data={'text/markdown': shown})])


def code(source, id='c', **data):
    outputs = [dict(output_type='display_data', data=data)] if data else []
    lines = source.splitlines(keepends=True)
    return dict(cell_type='code', id=id, metadata={}, source=lines, outputs=outputs)


def words(source):
    return dict(cell_type='markdown', id='m', metadata={}, source=source.splitlines(keepends=True))


def sources(cells):
    return [''.join(c['source']) for c in cells]


def test_an_exported_cell_has_one_heading_above_it():
    "nbdev puts the last name before the cell, and the others after it."
    both = code(SOURCE + 'class Early(Exception): pass\nclass Late(Early): pass')
    cells = [entry('Late'), both, entry('Early'), words('Then.')]
    got = sources(stage.one_entry_each(cells))
    assert len(got) == 3 and got[1].startswith(SOURCE) and got[2] == 'Then.'
    assert '### Early, Late {#early}' in got[0] and '<span id="late"></span>' in got[0]
    assert '```' not in got[0] and 'What it does' not in got[0]


def test_an_entry_that_comes_after_later_cells_is_found():
    both = code(SOURCE + 'def first(): pass\ndef second(): pass')
    private = code(SOURCE + 'def _helper(): pass')
    got = sources(stage.one_entry_each([entry('second'), private, entry('first'), both]))
    assert len(got) == 3 and '_helper' in got[0] and '### first, second {#first}' in got[1]


def test_a_special_method_is_no_bold_word():
    cells = [entry('Mix.__call__'), code(SOURCE + '@patch\ndef __call__(self:Mix): pass')]
    assert r'### Mix.\_\_call\_\_ {#mix.__call__}' in sources(stage.one_entry_each(cells))[0]


def test_what_is_printed_in_pieces_is_one_output():
    pieces = [dict(output_type='stream', name='stdout', text=t) for t in (['a\n'], 'b\n')]
    picture = dict(output_type='display_data', data={})
    got = stage.joined([*pieces, picture, pieces[0]])
    assert [''.join(o.get('text', '')) for o in got] == ['a\nb\n', '', 'a\n']
    assert pieces[0]['text'] == ['a\n']


def test_a_word_links_to_a_function_only_where_it_is_one():
    text = '[`train`](inside/commands.train.html#train), [`fit`](train.html#fit)'
    split = code('table.train')
    got = stage.prepared([words(text), split], 'Data sets', lesson=True)
    assert sources(got)[0] == '`train`, [`fit`](train.html#fit)'
    called = code('from vidcls.commands.train import train')
    assert sources(stage.prepared([words(text), called], 'Commands', lesson=True))[0] == text


def test_sentences_in_tables_have_room():
    long = 'A label that the model does not know.'
    got = stage.with_room(f'<td>{long}</td><td>vidcls.a.very.long.name.of.a.module</td><td>1.0</td>')
    assert got.startswith(f'<td class="long">{long}') and got.count('class') == 1


def test_drawings_in_markdown_scroll():
    got, = stage.prepared([words('Text.\n\n<svg role="img">\n<g></g></svg>\n')], 'Batches', lesson=True)
    assert '<div class="cell-output-display"><svg role="img">' in ''.join(got['source'])


def test_entries_without_their_source_stay():
    area = code(SOURCE + '@patch\ndef area(self:Box): return 1')
    cells = [entry('Box.area'), area, words('…'), entry('elsewhere')]
    got = sources(stage.one_entry_each(cells))
    assert '### Box.area {#box.area}' in got[0]
    assert 'show_doc(elsewhere)' in got[-1]


def test_many_names_are_counted():
    names = ['a', 'b', 'c', 'd', 'e']
    cells = [code(SOURCE + '\n'.join(f'def {n}(): pass' for n in names)), *map(entry, names)]
    head = sources(stage.one_entry_each(cells))[0]
    assert '### a and 4 more {#a}' in head and all(f'<span id="{n}">' in head for n in names[1:])


def test_a_section_does_not_take_the_id_of_an_entry():
    cells = [words('## fit\n\nText.'), entry('fit'), code(SOURCE + 'def fit(): pass')]
    got = sources(stage.one_entry_each(cells))
    assert got[0].startswith('## fit {#about-fit}') and '### fit {#fit}' in got[1]


def test_ids_of_cells_are_not_those_of_headings():
    cells = stage.prepared([words('# fit'), code('fit()', id='fit')], 'Train', lesson=True)
    assert [c['id'] for c in cells] == ['cell-m', 'cell-fit']


def test_texts_of_pictures():
    "nbdev takes the quotes away; with a colon in it, the text is no YAML any more."
    cell = code('#| fig-alt: Two curves: one falls.\nplot()', **{'image/png': 'iVBO'})
    got, = stage.prepared([cell], 'Losses', lesson=True)
    assert got['source'] == ['#| fig-alt: "Two curves: one falls."\n', 'plot()']
    shown = '<video aria-label="spin" src="a"></video><svg></svg>'
    player = code('#| fig-alt: "A clip."\nshow()', **{'text/html': shown})
    got, = stage.prepared([player], 'Clips', lesson=True)
    html = ''.join(got['outputs'][0]['data']['text/html'])
    assert html == '<video aria-label="A clip." src="a"></video><svg role="img" aria-label="A clip."></svg>'


def test_pictures_without_a_text():
    "On a lesson that is a fault, which the check reports; elsewhere the section says where it stands."
    cells = [words('## How `fit` ends'), code('plot()', **{'image/png': 'iVBO'})]
    assert 'fig-alt' not in sources(stage.prepared(cells, 'Train', lesson=True))[1]
    assert '“How fit ends”' in sources(stage.prepared(cells, 'Train', lesson=False))[1]


def test_links_to_private_names_are_none():
    text = f'[`_place`]({SITE}/inside/data.packets.html#_place) [`fit`]({SITE}/train.html#fit)'
    assert stage.relinked(text, '22_mix.ipynb', {}, SITE) == '`_place` [`fit`](train.html#fit)'
