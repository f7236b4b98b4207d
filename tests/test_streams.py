"Streams: the same answers as files, and what goes wrong on the way."
import json
import socket
import socketserver
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler
from itertools import islice, repeat

import numpy as np
import pytest
from typer.testing import CliRunner

from hostile import encode, numbered
from vidcls.calibrate import Calibration
from vidcls.cli import app
from vidcls.core import ArgumentError, ClipSpec, VideoReadError, seed_everything
from vidcls.data.decode import crop_frame
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
from vidcls.streams import Stream, StreamClock, shown_source, source_kind, watch
from vidcls.windows import Windows, open_video, windows_of_video

SPEC = ClipSpec(n_frames=4, size=32)
FRAME = numbered(1, 32, 32)[0]


@pytest.fixture(scope='module')
def clf():
    seed_everything(0)
    return Classifier(create_model('i3d_tiny', n_classes=2, n_frames=4, size=32), ['left', 'right'])


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    d = tmp_path_factory.mktemp('streams')
    return [encode(d/'a.mp4'), encode(d/'b.mkv', frames=numbered(75, 64, 160), g=30, bf=3),
            encode(d/'c.mp4', pts=np.arange(90)*3),
            encode(d/'vfr.mp4', pts=np.r_[0:45, 45:45+3*45:3], g=30, bf=2)]


def windows_of(source, **how):
    return [w for w, _ in Stream(source, SPEC, Windows(1, .5), **how)]


def of_file(path):
    with open_video(path) as v:
        return list(windows_of_video(v, SPEC, Windows(1, .5)))


def same(a, b):
    return len(a) == len(b) and all(x[:2] == y[:2] and (x.clip == y.clip).all() for x, y in zip(a, b))


@pytest.mark.parametrize('i', range(4))
def test_stream_equals_file(files, clf, i):
    assert same(windows_of(files[i], pace=False), of_file(files[i]))
    answers = clf.predict_windows(files[i], .5, 1., bs=1)
    seen = list(watch(clf, files[i], .5, 1., pace=False))
    assert (np.stack([a.logits for a in seen]) == answers.logits).all()
    assert np.allclose(np.stack([a.probs for a in seen]), answers.probs)


def test_a_file_plays_at_its_own_pace(files):
    begin = time.monotonic()
    assert same(windows_of(files[0]), of_file(files[0]))
    assert 3.4 < time.monotonic()-begin < 6


@pytest.fixture
def server(files):
    "Serve the folder of the files over HTTP."
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), partial(Quiet, directory=files[0].parent)) as s:
        s.daemon_threads = True
        threading.Thread(target=s.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{s.server_address[1]}'
        s.shutdown()


def test_an_address_is_the_file_behind_it(files, server):
    for f in (files[0], files[1]):
        got = windows_of(f'{server}/{f.name}', live=False)
        assert same(got, of_file(f))
    with pytest.raises(VideoReadError, match="can't be read as a stream"):
        windows_of(f'{server}/none.mp4')


RTSP = """
import asyncio, sys
from aio_rtsp_toolkit.server import serve
asyncio.run(serve(sys.argv[1], '127.0.0.1', int(sys.argv[2]), control_port=int(sys.argv[3])))
"""


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def test_a_server_speaks_rtsp(tmp_path):
    "As a camera in the network does. Its password is in no message."
    pytest.importorskip('aio_rtsp_toolkit', reason='needs aio-rtsp-toolkit')
    file = encode(tmp_path/'a.mp4', frames=numbered(75, 64, 64), g=10, bf=0)
    port = free_port()
    server = subprocess.Popen([sys.executable, '-c', RTSP, tmp_path, str(port), str(free_port())],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f'rtsp://user:secret@127.0.0.1:{port}/{file.name}'
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(('127.0.0.1', port), 1).close()
                break
            except OSError:
                time.sleep(.1)
        got = windows_of(address, live=False)
    finally:
        server.kill()
        server.wait()
    with open_video(file) as v:
        known = {crop_frame(f, None, SPEC.size, short=SPEC.short_px).tobytes() for f in v.frames()}
    assert [w.start for w in got[:4]] == [0, .5, 1, 1.5] and len(got) >= 5
    assert all(f.tobytes() in known for w in got for f in w.clip)      # to the bit
    with pytest.raises(VideoReadError, match="can't be read as a stream") as e:
        windows_of(address)
    assert 'secret' not in str(e.value)


def test_ffmpeg_sends_over_udp(files):
    import imageio_ffmpeg
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    sender = subprocess.Popen([
        imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-re', '-stream_loop', '3', '-i', str(files[0]),
        '-c:v', 'libx264', '-g', '10', '-bf', '0', '-f', 'mpegts', f'udp://127.0.0.1:{port}?pkt_size=1316'])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            stream = Stream(f'udp://127.0.0.1:{port}', SPEC, Windows(1, .5), timeout_s=8)
            got = list(islice(stream, 5))
    finally:
        sender.kill()
        sender.wait()
    assert len(got) == 5 and all(w.clip is not None for w, _ in got)
    assert [w.start for w, _ in got] == [0, .5, 1, 1.5, 2]


def test_an_iterator_that_stalls_ends_with_a_sentence():
    def frames():
        yield from ((i/25, FRAME) for i in range(60))
        time.sleep(30)
    begin = time.monotonic()
    with pytest.warns(UserWarning, match='no frame for 0.5 s; the stream is taken as ended'):
        got = windows_of(frames(), timeout_s=.5)
    assert len(got) == 3 and time.monotonic()-begin < 5


def test_a_source_that_breaks_off_is_opened_again(monkeypatch):
    opened = []
    def broken(source, *args):
        opened.append(source)
        yield from ((7+i/25, FRAME) for i in range(40))
        if len(opened) < 3:
            raise VideoReadError('rtsp://x', 'connection reset')
    monkeypatch.setattr('vidcls.streams.stream_frames', broken)
    with pytest.warns(UserWarning, match='connection reset; it is opened again'):
        stream = Stream('rtsp://me:secret@x', SPEC, Windows(1, .5), timeout_s=.2, live=False)
        got = [w for w, _ in stream]
    assert len(opened) == 3 and len(stream.notes) == 2
    assert [round(w.start, 2) for w in got] == [0, .5, 1.6, 2.1, 3.2, 3.7, 4.2]
    assert shown_source('rtsp://me:secret@x/1') == 'rtsp://…@x/1'


def test_a_slow_model_drops_whole_windows(clf):
    def frames():
        for i in range(150):
            time.sleep(.004)
            yield i/25, FRAME
    stream, seen = Stream(frames(), SPEC, Windows(.4, .2), live=True), []
    for a in watch(clf, stream):
        time.sleep(.12)
        seen.append(a)
    assert stream.dropped > 3 and len(seen)+stream.dropped == 30
    assert seen[-1].dropped == stream.dropped and all(a.latency_s >= 0 for a in seen)
    assert np.allclose([a.end-a.start for a in seen[:-1]], .4)


def test_an_iterator_waits_for_the_model(clf):
    stream = Stream(iter(repeat(FRAME, 100)), SPEC, Windows(.4, .2), fps=25)
    assert [time.sleep(.02) for _ in stream] and stream.dropped == 0


def test_times_that_repeat_or_go_back_are_counted():
    t = [i/25 for i in range(100)]
    odd = t[:30] + t[29:31] + t[25:28] + t[31:] + [float('nan')]
    stream = Stream(((s, FRAME) for s in odd), SPEC, Windows(1, .5))
    got = [w[:2] for w, _ in stream]
    assert stream.left_out == 5 and got == [w[:2] for w in windows_of(((s, FRAME) for s in t))]


def test_a_clock_that_begins_anew_is_said():
    t = [100+i/25 for i in range(60)] + [i/25 for i in range(60)] + [900+i/25 for i in range(30)]
    with pytest.warns(UserWarning, match='clock has jumped'):
        stream = Stream(((s, FRAME) for s in t), SPEC, Windows(1, .5))
        got = [w for w, _ in stream]
    assert len(stream.notes) == 2
    assert [round(w.start, 2) for w in got][:6] == [0, .5, 1, 2.4, 2.9, 3.4] and stream.left_out == 0
    clock = StreamClock(1, 10)
    assert [clock.take(s)[0] for s in (5, 6, float('inf'), 5.5, 7)] == [0, 1, None, None, 2]


def test_pictures_that_change_their_size():
    large = numbered(1, 64, 80)[0]
    with pytest.warns(UserWarning, match='pictures are 80x64 pixels from 2.0 s on'):
        got = windows_of(((i/25, FRAME if i < 50 else large) for i in range(100)))
    assert {w.clip.shape for w in got} == {(4, 32, 32, 3)}


def test_streams_that_are_none(clf, tmp_path):
    assert windows_of(iter([])) == []
    for source, more, match in (
            (iter([FRAME]), {}, 'fps=None'), (iter([(0, FRAME/255)]), {}, 'a frame is float64'),
            (iter([FRAME]), dict(fps=0), 'fps=0'), (None, {}, 'source is a NoneType'),
            (iter([]), dict(timeout_s=0), 'timeout_s=0'), (iter([]), dict(ahead=0), 'ahead=0')):
        with pytest.raises(ArgumentError, match=match):
            windows_of(source, **more)
    with pytest.raises(VideoReadError, match='no such file'):
        windows_of(tmp_path/'none.mp4')
    with pytest.raises(VideoReadError, match="can't be read as a stream"):
        windows_of(99)
    with pytest.raises(ArgumentError, match='seconds=0'):
        next(watch(clf, iter([]), seconds=0))
    kinds = [source_kind(s) for s in (0, '1', '/dev/video0', 'rtsp://x', 'a.mp4', tmp_path, [FRAME])]
    assert kinds == ['camera']*3 + ['address'] + ['file']*2 + ['iterator']


def test_watching_stops_and_can_withhold(clf):
    endless = ((i/25, FRAME) for i in range(10**9))
    begin = time.monotonic()
    assert len(list(watch(clf, endless, 1., 1., seconds=.5))) >= 1 and time.monotonic()-begin < 5
    never = Classifier(clf.model, clf.labels, Calibration(threshold=1.1))
    a = next(watch(never, iter([FRAME]*60), 1., 1., fps=25))
    assert (a.label, a.reason) == (None, 'unsure')
    sets = Classifier(clf.model, clf.labels, task='multi-label', thresholds=[1e-6, 1e-6])
    assert next(watch(sets, iter([FRAME]*60), 1., 1., fps=25)).label == 'left|right'
    clf.model.task = 'single-label'


def typed(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_the_command_watch(clf, files, tmp_path):
    clf.save(tmp_path/'clf')
    r = typed('watch', tmp_path/'clf', files[0], '--every', .5, '--length', 1)
    assert r.exit_code == 0, r.output
    assert r.stdout.startswith('0:00.0\t') and 'latency' in r.stdout and 'dropped 0' in r.stdout
    assert 'the stream ended; ' in r.stderr
    assert 'parts of 1 s answered, 0 dropped, 0 frames left out, latency' in r.stderr
    r = typed('watch', tmp_path/'clf', files[0], '--every', .5, '--length', .5, '--seconds', 1)
    assert 'note: stopped; ' in r.stderr
    r = typed('watch', tmp_path/'clf', tmp_path/'none.mp4')
    assert isinstance(r.exception, VideoReadError) and 'no such file' in str(r.exception)


def test_the_command_predict_asks_about_parts(clf, files, tmp_path):
    clf.save(tmp_path/'clf')
    ask = partial(typed, 'predict', tmp_path/'clf', files[0])
    r = ask('--every', 1, '--length', 2, '--timeline', tmp_path/'a.html')
    assert r.exit_code == 0 and '\t0:00.0\t' in r.stdout and (tmp_path/'a.html').stat().st_size > 5000
    rows = json.loads(ask('--every', 1, '--length', 2, '--json').stdout)['segments']
    assert rows[0]['start'] == 0 and rows[0]['label'] in ('left', 'right')
    for args, said in ((('--timeline', 'a.png'), 'add --every 2'), (('--every', 0), 'every_s=0'),
                       ((files[1], '--every', 1, '--timeline', 'a.png'), 'takes one video, not 2'),
                       (('--every', 1, '--top-k', 2), '--top-k'),
                       (('--every', 1, '--length', 0), 'length_s=0'),
                       (('--every', 1, '--timeline', 'a.gif'), "timeline='.gif'")):
        assert said in str(ask(*args).exception)
