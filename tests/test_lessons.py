"What a page of the course may hold; `python tests/lessons.py` prints the figures."
import base64
import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import lessons

every_lesson = pytest.mark.parametrize('name', lessons.lessons())
# lesson -> why one of its cells may be longer than lessons.CELL lines
LONG_CELL = {
    '46_train': 'the flat keywords of fit, each with its line of help',
}


@every_lesson
def test_a_lesson_is_light(name):
    w = lessons.weights(lessons.lessons()[name])
    assert w['minutes'] <= lessons.MINUTES
    assert w['exported'] <= lessons.EXPORTED
    assert w['longest'] <= lessons.CELL or name in LONG_CELL
    assert w['shown'] >= w['exported']/2, "a lesson shows what it builds"
    assert w['failing'] <= lessons.FAILING, "edge cases live in tests/"


@every_lesson
def test_its_head_says_the_minutes(name):
    text = lessons.lessons()[name].read_text(encoding='utf-8')
    said = int(re.search(r'\*About (\d+) minutes to read', text)[1])
    assert abs(said - lessons.weights(lessons.lessons()[name])['minutes']) <= 1


@every_lesson
def test_a_lesson_shows_a_picture_and_asks(name):
    w = lessons.weights(lessons.lessons()[name])
    assert w['figures'], "a figure or a drawn diagram"
    assert w['exercises'], "exercises"


def test_every_exception_is_needed():
    there = lessons.lessons()
    assert all(lessons.weights(there[name])['longest'] > lessons.CELL for name in LONG_CELL)


def widths(page):
    "Yield (number of the cell, width in pixels) of each kept picture."
    for i, cell in enumerate(json.loads(page.read_text(encoding='utf-8'))['cells']):
        for output in cell.get('outputs', []):
            if picture := output.get('data', {}).get('image/png'):
                yield i, Image.open(io.BytesIO(base64.b64decode(''.join(picture)))).width


def test_pictures_are_wide_enough_to_read():
    pages = lessons.root.glob('nbs/**/[0-9i]*.ipynb')
    found = [(page.name, i, width) for page in pages for i, width in widths(page)]
    assert len(found) > 100
    # 590: a strip of eight frames, and a figure of 600 pixels whose margin is cut off
    assert [f for f in found if f[2] < 590] == []
