"Reads that never return: nobody waits for them for ever, and the process can still end."
import os
import subprocess
import sys
import time

import pytest

ALONE = {**os.environ, 'OMP_NUM_THREADS': '1', 'VIDCLS_PROGRESS': '0'}


def run_alone(script, *args, timeout_s=60):
    "Run a script in a process of its own, which must end by itself; return its output and its seconds."
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, '-c', script, *map(str, args)],
        capture_output=True,
        text=True,
        env=ALONE,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, time.monotonic()-start


STUCK = '''
import threading, time
from vidcls.core import DecodeTimeoutError, WorkerError
from vidcls.parallel import ThreadPool, call_within, map_ahead
never, start = threading.Event(), time.monotonic()
'''


@pytest.mark.parametrize('what', [
    "call_within(never.wait, .2, DecodeTimeoutError('a.mp4', 'late'))",
    "list(map_ahead(lambda i: never.wait(), range(5), threads=2, timeout_s=.2))",
    "list(map_ahead(lambda i: i or never.wait(), range(5), threads=2, ahead=2, timeout_s=.2))"])
def test_python_ends_although_a_thread_does_not(what):
    said, seconds = run_alone(STUCK + f'''
try: {what}
except (DecodeTimeoutError, WorkerError) as e: print(type(e).__name__, e, time.monotonic()-start < 2)
''')
    assert said.endswith('True\n') and ('a.mp4: late' in said or 'timeout_s=0.2' in said), said
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
    from vidcls.core import WorkerError
    from vidcls.parallel import call_within
    def own_limit(): raise TimeoutError('its own')
    with pytest.raises(TimeoutError, match='its own') as caught:
        call_within(own_limit, 5, WorkerError('late'))
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
from vidcls.parallel import result_within
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


BLOCKED = '''
import sys, time
from vidcls.core import ClipSpec, VidclsError
from vidcls.data.cache import FrameCache
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader
table = from_folder(sys.argv[1])
SPEC, DRAWN = ClipSpec(n_frames=4, size=32), ClipSpec(n_frames=4, size=32, sampling='random')
def rows(spec, **kwargs):
    batches = list(loader(table, spec, shuffle=spec is DRAWN, **kwargs))
    failed = [(table.paths[r].name, why) for b in batches for r, why in b.failed]
    return len([r for b in batches for r in b.rows]), failed
def cache(threads):
    made = FrameCache(sys.argv[2] + str(threads), SPEC, 'raw')
    return made.build(table, threads=threads, timeout_s=1)
for what in sys.argv[3:]:
    start = time.monotonic()
    try: said = eval(what)
    except VidclsError as e: said = type(e).__name__, str(e).splitlines()[0]
    print(said, 'in time' if time.monotonic()-start < 10 else 'late')
'''
HOLDER = '''
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)          # asked to give the file back, it does nothing
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()
'''


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    from vidcls.data.synthetic import make_motion_clips
    return make_motion_clips(tmp_path_factory.mktemp('clips'), n_groups=1, n_frames=8, size=32)


@pytest.fixture
def held(root):
    "One of eight clips; opening it blocks for 45 seconds, the system's default: another process holds it."
    path = sorted(root.glob('*/*.mp4'))[5]
    holder = subprocess.Popen(
        [sys.executable, '-c', HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if holder.stdout.readline() != 'held\n':
        pytest.skip('this file system has no leases, which make opening a file block')
    yield path
    holder.kill()
    holder.communicate()


LEASES = pytest.mark.skipif(sys.platform != 'linux', reason='leases are known to Linux')


@LEASES
def test_a_file_that_never_opens_is_named_and_the_process_ends(root, held, tmp_path):
    said, seconds = run_alone(
        BLOCKED, root, tmp_path/'cache',
        'rows(DRAWN, bs=4, threads=2, timeout_s=1)',
        "rows(DRAWN, bs=4, threads=2, timeout_s=1, on_error='skip')",
        # decoded into memory
        'rows(SPEC, bs=4, timeout_s=1)', "rows(SPEC, bs=4, timeout_s=1, on_error='skip')",
        'cache(threads=2).failed', 'cache(threads=1)')
    threads, skipped, memory, memory_skipped, failed, report = said.splitlines()
    assert seconds < 30 and 'late' not in said
    for line in (threads, memory):
        assert 'WorkerError' in line and held.name in line and 'timeout_s=1' in line
    for line in (skipped, memory_skipped):
        assert line.startswith(f"(7, [('{held.name}', 'not read within timeout_s=1 seconds')")
    assert held.name in failed and 'timeout_s=1' in failed
    # one thread was lost, another took its place
    assert '7 clips stored' in report and "1 can't be decoded" in report


@LEASES
def test_a_file_that_never_opens_in_a_worker_process(root, held, tmp_path):
    said, seconds = run_alone(BLOCKED, root, tmp_path, 'rows(DRAWN, bs=4, workers=2, timeout_s=2)')
    assert (
        'WorkerError' in said and 'timed out after 2' in said and held.name in said and 'in time' in said
    ), said
    assert 'crash' not in said and seconds < 25


WORKERS = '''
import multiprocessing, os, signal, sys, time
from vidcls.core import ClipSpec, WorkerError
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import as_loader, loader
start, SPEC = time.monotonic(), ClipSpec(n_frames=4, size=32, sampling='random')
def begin(**kwargs):
    made = loader(from_folder(sys.argv[1]), SPEC, bs=1, shuffle=True, timeout_s=2, **kwargs)
    batches = iter(made)
    next(batches)
    return made, batches, made._iterator._workers
def ends(batches):
    try: print(len(list(batches)))
    except WorkerError as e: print('WorkerError', str(e).replace(chr(10), ' '))
'''


@pytest.mark.skipif(sys.platform == 'win32', reason='signals of POSIX')
def test_a_stopped_killed_or_crashed_worker_is_called_that(root):
    said, seconds = run_alone(WORKERS + '''
for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP):
    made, batches, workers = begin(workers=2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)    # PyTorch's raises wherever the script is just then
    for w in workers: os.kill(w.pid, number)
    ends(batches)
''', root)
    killed, crashed, stopped = said.splitlines()
    assert (
        'killed from outside' in killed
        and ('may crash the decoder' in crashed or 'It ended by itself' in crashed)
        and 'are stopped (SIGSTOP)' in stopped
    )
    for line in (killed, crashed, stopped):
        assert line.startswith('WorkerError') and '.mp4' in line
    for line in (killed, stopped):
        assert 'crash' not in line
    assert seconds < 40


@pytest.mark.skipif(sys.platform != 'linux', reason='RLIMIT_NPROC counts as on Linux')
def test_a_worker_that_the_system_refuses(root):
    said, _ = run_alone(WORKERS + '''
import resource
begin(workers=1)                                     # all modules are there
made = loader(from_folder(sys.argv[1]), SPEC, bs=1, shuffle=True, workers=2)
if os.getuid() == 0: os.setgid(65534); os.setuid(65534)                 # the limit does not hold for root
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
ends(made)
''', root)
    assert 'WorkerError' in said and 'never started' in said and '.mp4' not in said


@pytest.mark.skipif(sys.platform == 'win32', reason='signals of POSIX')
def test_python_ends_although_a_worker_is_stopped_after_its_last_batch(root):
    said, seconds = run_alone(WORKERS + '''
loader, batches, workers = begin(workers=1)
ends(batches)
os.kill(workers[0].pid, signal.SIGSTOP)
''', root)
    assert said == '7\n' and seconds < 25


def test_a_worker_that_never_started_is_no_broken_clip(root, tmp_path):
    (tmp_path / 'unguarded.py').write_text(
        'import multiprocessing\nmultiprocessing.set_start_method("spawn", force=True)\n'
        + WORKERS
        + '''
ends(loader(from_folder(sys.argv[1]), SPEC, bs=4, shuffle=True, workers=1, timeout_s=30))
'''
    )
    done = subprocess.run(
        [sys.executable, tmp_path / 'unguarded.py', root],
        capture_output=True,
        text=True,
        env=ALONE,
        timeout=60,
    )
    assert 'WorkerError' in done.stdout and 'never started' in done.stdout and '__main__' in done.stdout, (
        done.stdout + done.stderr
    )
    assert '.mp4' not in done.stdout


def test_a_dataset_of_a_notebook_does_not_reach_spawned_workers(root):
    said, seconds = run_alone(WORKERS + '''
class Here:
    classes = ['a', 'b']
    def __len__(self): return 4
    def __getitem__(self, i):
        import numpy as np
        return np.zeros((4, 32, 32, 3), np.uint8), i % 2
multiprocessing.set_start_method('spawn', force=True)
ends(as_loader(Here(), SPEC, workers=1, timeout_s=30))
''', root)
    assert 'WorkerError' in said and 'never started' in said and seconds < 40, said


def test_loaders_give_the_same_under_spawn(root, tmp_path):
    "As on macOS and Windows, and, nearly so, on Linux from Python 3.14 on."
    (tmp_path/'script.py').write_text(WORKERS + '''
import torch
if __name__ == '__main__':
    multiprocessing.set_start_method('spawn')
    def clips(**kwargs):
        made = loader(from_folder(sys.argv[1]), SPEC, bs=3, shuffle=True, **kwargs)
        return torch.cat([b.clips for _ in range(2) for b in made])
    print(torch.equal(clips(cache=sys.argv[2], cache_format='raw', workers=2, timeout_s=60), clips()))
''')
    done = subprocess.run(
        [sys.executable, tmp_path / 'script.py', root, tmp_path / 'cache'],
        capture_output=True,
        text=True,
        env=ALONE,
        timeout=120,
    )
    assert done.stdout == 'True\n', done.stdout + done.stderr


@LEASES
def test_a_shard_that_never_opens(root, tmp_path):
    pytest.importorskip('webdataset')
    from vidcls.data.datasets import from_folder
    from vidcls.data.shards import write_shards
    place = write_shards(from_folder(root), tmp_path/'shards', show=False)
    shard = next(place.glob('train-*.tar'))
    holder = subprocess.Popen(
        [sys.executable, '-c', HOLDER, shard], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == 'held\n'
    said, seconds = run_alone(BLOCKED + '''
from vidcls.data.shards import shard_loader
try: list(shard_loader(sys.argv[2], DRAWN, bs=2, timeout_s=1))
except VidclsError as e: print(type(e).__name__, e)
''', root, place)
    holder.kill()
    holder.communicate()
    assert 'WorkerError' in said and 'no clip came within timeout_s=1' in said and seconds < 25, said
