"Reads that never return: nobody waits for them for ever, and the process can still end."
import os
import subprocess
import sys
import time

import pytest

ALONE = {**os.environ, 'OMP_NUM_THREADS': '1', 'VIDCLS_PROGRESS': '0'}


def run_alone(script, *args, limit_s=60):
    "Run a script in a process of its own, which must end by itself; give what it printed and how long it took."
    start = time.monotonic()
    done = subprocess.run([sys.executable, '-c', script, *map(str, args)], capture_output=True, text=True, env=ALONE,
                          timeout=limit_s)
    assert done.returncode == 0, done.stderr
    return done.stdout, time.monotonic()-start


STUCK = '''
import threading, time
from vidcls.core import DecodeTimeoutError, ThreadPool, WorkerError, call_within, map_ahead
never, start = threading.Event(), time.monotonic()
'''


@pytest.mark.parametrize('what', [
    "call_within(never.wait, .2, DecodeTimeoutError('a.mp4', 'late'))",
    "list(map_ahead(lambda i: never.wait(), range(5), threads=2, limit_s=.2))",
    "list(map_ahead(lambda i: i or never.wait(), range(5), threads=2, ahead=2, limit_s=.2))"])
def test_python_ends_although_a_thread_does_not(what):
    said, seconds = run_alone(STUCK + f'''
try: {what}
except (DecodeTimeoutError, WorkerError) as e: print(type(e).__name__, e, time.monotonic()-start < 2)
''')
    assert said.endswith('True\n') and ('a.mp4: late' in said or 'limit_s=0.2' in said), said
    assert seconds < 20


def test_python_waits_a_moment_for_threads_that_are_nearly_done(tmp_path):
    run_alone(STUCK + '''
import sys
def write(path):
    time.sleep(1)
    open(path, 'w').write('whole')
ThreadPool(1).submit(write, sys.argv[1])
''', tmp_path/'file')
    assert (tmp_path/'file').read_text() == 'whole'


def test_errors_come_with_their_traceback_and_an_own_timeout_stays_what_it_is():
    from vidcls.core import WorkerError, call_within
    def own_limit(): raise TimeoutError('its own')
    with pytest.raises(TimeoutError, match='its own') as caught: call_within(own_limit, 5, WorkerError('late'))
    assert 'own_limit' in [entry.name for entry in caught.traceback]


def test_threads_are_used_again_and_a_forked_process_has_its_own():
    said, _ = run_alone(STUCK + '''
import os
for i in range(2000): assert call_within(lambda: i, 5, WorkerError('late')) == i
assert threading.active_count() < 5, threading.active_count()
if pid := os.fork(): assert os.waitpid(pid, 0)[1] == 0
else: os._exit(0 if call_within(lambda: 3, 5, WorkerError('late')) == 3 else 1)
print('right')
''')
    assert said == 'right\n'


def test_a_pool_goes_on_without_a_thread_that_is_stuck_and_leaves_none_behind():
    said, _ = run_alone(STUCK + '''
from vidcls.core import result_within
before, pool = threading.active_count(), ThreadPool(1)
stuck, after = pool.submit(never.wait), [pool.submit(lambda i=i: i) for i in range(3)]
try: result_within(stuck, .2, WorkerError('late'))
except WorkerError: pool.give_up(stuck)
assert [result_within(job, 5, WorkerError('later')) for job in after] == [0, 1, 2]
never.set()
pool.close()
time.sleep(.5)
assert threading.active_count() == before, threading.enumerate()
print('right')
''')
    assert said == 'right\n'
