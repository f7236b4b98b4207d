"The page of the service, in a real Chromium."
import base64
import re
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from browser import chromium, needs_chromium, serious_findings
from services import KEY, serving
from vidcls.core import seed_everything
from vidcls.data.datasets import from_folder
from vidcls.data.decode import write_video
from vidcls.data.loaders import loaders
from vidcls.data.synthetic import make_motion_clips, motion_clip, motion_mask, roll_clips
from vidcls.deploy.export import export
from vidcls.map_verdict import judge_saved_maps
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.show import encode_h264
from vidcls.train import fit

pytestmark = needs_chromium
EVIL = '<img src=x onerror=document.title="owned">'


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('page')


@pytest.fixture(scope='module')
def model(home):
    "A trained classifier as a file; one of its labels is an attack."
    table = from_folder(make_motion_clips(home/'clips', 60)).select_classes(['left', 'right', 'up'])
    seed_everything(0)
    net = create_model('i3d_tiny', n_classes=3)
    fit(net, loaders(table, net.spec), epochs=25, lr=2e-3, show=False)
    net.labels = None
    clf = Classifier(net, ['left', 'right', EVIL])
    record = dict(dataset='motion', video_top1=.9, n_evaluated=20, interval=[.7, .97])
    export(clf, home/'motion.onnx', record=record)
    return home/'motion.onnx'


def video(path, *labels, size=128, fps=8):
    "Write a clip, or several one after the other, of 16 frames each."
    frames = np.concatenate([motion_clip(l, 3, n_frames=16, size=size) for l in labels])
    encode_h264(path, frames, fps, {'crf': '18'})
    return path


def long_video(path):
    "Write two motions of eight seconds each; a window of four seconds is one clip."
    return video(path, 'left', 'left', 'right', 'right', fps=4)


def until(page, condition, seconds=20):
    "Wait until a line of JavaScript is true; the page's own rules let nobody else evaluate one."
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


@pytest.fixture(scope='module')
def service(model):
    with serving(model, key='') as (url, _):
        yield url


@contextmanager
def opened(url, **context):
    with chromium() as browser:
        page = browser.new_context(**context).new_page()
        page.errors = []
        page.on('pageerror', lambda e: page.errors.append(str(e)))
        page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
        page.goto(url)
        until(page, "document.querySelectorAll('#facts dd').length || "
                    "!document.getElementById('key-form').hidden")
        yield page


def give(page, path):
    page.set_input_files('#file', str(path))


def said(page):
    until(page, "document.getElementById('said').textContent || !document.getElementById('error').hidden")
    return page.inner_text('#said'), page.inner_text('#error')


def test_a_clip_is_chosen_plays_and_is_answered(service, home):
    with opened(service) as page:
        give(page, video(home/'right.mp4', 'right'))
        answer, error = said(page)
        assert answer.splitlines()[0] == 'right' and not error
        until(page, "document.getElementById('video').currentTime > .3")
        assert page.locator('#bars li').count() == 3
        page.locator('#seen summary').click()
        assert page.locator('#frames img').count() == 8
        assert page.evaluate("document.querySelector('#frames img').naturalWidth") == 32
        assert page.errors == []


def test_labels_and_names_of_files_are_text(service, home):
    odd = video(home/'<img src=x onerror=alert(1)>.mp4', 'up')
    with opened(service) as page:
        give(page, odd)
        answer, _ = said(page)
        assert answer.splitlines()[0] == EVIL
        assert page.inner_text('#file-name') == odd.name
        assert page.locator('#result img[src=x]').count() == 0 and 'owned' not in page.title()


def test_a_clip_is_dropped(service, home):
    content = video(home/'left.mp4', 'left').read_bytes()
    with opened(service) as page:
        transfer = page.evaluate_handle("""bytes => {
            const t = new DataTransfer();
            t.items.add(new File([new Uint8Array(bytes)], 'left.mp4', {type: 'video/mp4'}));
            return t;
        }""", list(content))
        page.dispatch_event('#drop', 'drop', {'dataTransfer': transfer})
        assert said(page)[0].splitlines()[0] == 'left'


def test_a_long_clip_has_a_timeline(service, home):
    "A click goes to where the second motion begins."
    with opened(service) as page:
        give(page, long_video(home/'long.mp4'))
        page.wait_for_selector('#segments:not([hidden])', timeout=20_000)
        rows = page.locator('#segments tbody tr')
        named = [rows.nth(i).locator('td').nth(1).inner_text() for i in range(rows.count())]
        assert named[0] == 'left' and named[-1] == 'right'
        page.locator('#track button').last.click()
        assert page.evaluate("document.getElementById('video').currentTime") > 4
        until(page, "document.getElementById('said').textContent.startsWith('right')")


def test_a_broken_clip_says_so(service, home):
    (home/'broken.mp4').write_bytes((home/'right.mp4').read_bytes()[:900])
    with opened(service) as page:
        give(page, home/'broken.mp4')
        answer, error = said(page)
        assert not answer and 'truncated' in error and re.search(r'Request [0-9a-f]{16}', error)
        assert 'salvage' not in error
        until(page, "document.getElementById('player').hidden")      # nothing to play, so no empty player
        give(page, home/'right.mp4')
        assert said(page)[0].startswith('right') and page.is_visible('#player')


def test_the_key_is_asked_for(model, home):
    with serving(model) as (url, _), opened(url) as page:
        assert page.is_visible('#key-form')
        page.fill('#key', KEY)
        page.click('#key-form button')
        until(page, "document.querySelectorAll('#facts dd').length > 0")
        give(page, video(home/'right.mp4', 'right'))
        assert said(page)[0].startswith('right')


def test_examples_language_and_record(service):
    with opened(service, locale='de-DE') as page:
        assert page.inner_text('h1') == 'Was geschieht in diesem Clip?'
        page.select_option('#language', 'en')
        assert page.inner_text('h1') == 'What happens in this clip?'
        page.locator('#about summary').click()
        assert '18 of 20 test clips of motion right (90%)' in page.inner_text('#facts')
        page.locator('#examples button').first.click()
        assert said(page)[0].splitlines()[0] == 'right'


def test_addresses_for_programs(service):
    with opened(service) as page:
        page.click('footer a')
        page.wait_for_selector('#addresses h2')
        assert 'POST /predict' in page.inner_text('#addresses') and page.errors == []


def check_access(page, width):
    "axe-core finds nothing serious, and nothing is wider than the window."
    assert serious_findings(page) == []
    assert page.evaluate('document.documentElement.scrollWidth') <= width


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1280, 390])
def test_everybody_can_use_it(service, home, scheme, width):
    "axe-core finds nothing serious, nothing is wider than a phone; and pictures to look at."
    how = dict(color_scheme=scheme, viewport=dict(width=width, height=900), bypass_csp=True)
    with opened(service, **how) as page:
        for state in ('empty', 'answered'):
            if state == 'answered':
                give(page, long_video(home/'long.mp4'))
                page.wait_for_selector('#segments:not([hidden])', timeout=20_000)
                page.locator('#about summary').click()
            page.screenshot(path=home/f'{state}_{width}_{scheme}.png', full_page=True)
            check_access(page, width)


def test_by_keyboard_alone(service):
    with opened(service) as page:
        seen = []
        for _ in range(12):
            page.keyboard.press('Tab')
            seen.append(page.evaluate('(e => e.id || e.textContent.trim())(document.activeElement)'))
        assert {'language', 'file', 'right'} <= set(seen), seen


@pytest.fixture(scope='module')
def judged(home):
    "A trained classifier in a folder, whose maps were judged."
    clips = make_motion_clips(home/'sides', 120, n_frames=8, size=32)
    table = from_folder(clips).select_classes(['left', 'right'])
    seed_everything(0)
    net = create_model('videomae_tiny', n_classes=2, patch=4)
    dls = loaders(table, net.spec, bs=16)
    fit(net, dls, epochs=16, lr=2e-3, augment=roll_clips, show=False)
    folder = Classifier(net).save(home/'judged')
    judge_saved_maps(folder, dls.valid, show=False)
    return folder


def test_what_counted_is_shown(judged, home):
    "The map lies on the shape: more of what turned yellow is on it than elsewhere."
    clip = motion_clip('right', 1001, n_frames=8, size=32)
    path = write_video(home/'clip.mp4', clip, fps=8)
    how = dict(viewport=dict(width=390, height=900), bypass_csp=True)
    with serving(judged, key='') as (url, _), opened(url, **how) as page:
        page.locator('#about summary').click()
        assert 'passed its checks' in page.inner_text('#facts')
        give(page, path)
        said(page)
        page.locator('#seen summary').click()
        plain = page.get_attribute('#frames img', 'src')
        page.check('#map')
        until(page, "document.getElementById('map-said').textContent")
        shown = [e.get_attribute('src') for e in page.locator('#frames img').all()]
        assert 'yellow most' in page.inner_text('#map-said') and shown[0] != plain and len(shown) == 8
        yellow = np.stack([_yellow(source) for source in shown])
        on = motion_mask('right', 1001, n_frames=8, size=32)
        assert yellow[on].mean() > 2*yellow[~on].mean()
        page.screenshot(path=home/'map_390.png', full_page=True)
        check_access(page, 390)
        page.uncheck('#map')
        assert page.get_attribute('#frames img', 'src') == plain and not page.inner_text('#map-said')
        assert page.errors == []


def _yellow(source):
    "How yellow the pixels of a picture are: red and green over blue."
    code = np.frombuffer(base64.b64decode(source.split(',')[1]), np.uint8)
    blue, green, red = cv2.imdecode(code, cv2.IMREAD_COLOR).astype(float).transpose(2, 0, 1)
    return (np.minimum(red, green) - blue).clip(0)


def test_without_a_judged_map_there_is_no_switch(service, home):
    with opened(service) as page:
        give(page, video(home/'right.mp4', 'right'))
        said(page)
        page.locator('#seen summary').click()
        assert not page.is_visible('#map')
        page.locator('#about summary').click()
        assert 'a file gives probabilities only' in page.inner_text('#facts')
