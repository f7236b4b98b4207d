"""Exercises and questions of the course: what each lesson holds.

Each page proves, when it runs, that its solutions are accepted and wrong answers are not (`prove`).
"""
import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lessons

from vidcls.course.checking import EXERCISES, verdict_of
from vidcls.course.quiz import questions_of, quiz
from vidcls.exercises import MODULES, load_checks, solutions_of

every_lesson = pytest.mark.parametrize('name', lessons.lessons())


def sources(name):
    "The cells of a lesson: kind, source, and what they print."
    cells = json.loads(lessons.lessons()[name].read_text(encoding='utf-8'))['cells']
    return [(c['cell_type'], ''.join(c['source']),
             ''.join(''.join(o.get('text', '')) for o in c.get('outputs', []))) for c in cells]


@every_lesson
def test_three_to_five_exercises_with_checks_solutions_and_proofs(name):
    number = name.partition('_')[0]
    load_checks(number)
    cells = sources(name)
    text = '\n'.join(s for kind,s,_ in cells if kind == 'markdown')
    names = re.findall(r'^### (\d\d[a-z]?\.\d+) ', text, re.M)
    assert 3 <= len(names) <= 5
    assert len(re.findall(lessons.EXERCISE, text, re.M)) == len(names), "each heading says level and minutes"
    assert names == [f'{number}.{i+1}' for i in range(len(names))]
    assert {n for n in EXERCISES if n.partition('.')[0] == number} == set(names) == set(solutions_of(number))
    assert sum(s.startswith('#| hide') and f"prove('{number}'" in s for _,s,_ in cells) == 1


@every_lesson
def test_untouched_exercises_say_not_yet(name):
    number = name.partition('_')[0]
    shown = [(s, out) for _,s,out in sources(name) if f"check('{number}." in s]
    assert len(shown) >= 3
    for source, said in shown:
        assert said.startswith(f'{number}.') and ': not yet. ' in said, source
    load_checks(number)
    assert all(verdict_of(e, None).state == 'not yet' for e in solutions_of(number))


@every_lesson
def test_five_questions_with_every_answer_explained(name):
    number = name.partition('_')[0]
    asked = questions_of(number)
    assert len(asked) == 5
    for q in asked:
        assert len(q.wrong) >= 2
        answers = [a for a,*_ in q.answers()]
        assert len(set(answers)) == len(answers)
        assert all(why and why[-1] in '.!?' for _,why,_ in q.answers()), q.text
    assert quiz(number)._repr_html_().count('<strong>Right.') == 5
    assert [s for _,s,_ in sources(name) if s == f"#| echo: false\nquiz('{number}')"]


def test_checks_belong_to_lessons():
    assert set(MODULES) == {n.partition('_')[0] for n in lessons.lessons()}
