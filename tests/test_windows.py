"Windows along files and streams, their answers and segments."
import numpy as np
import pytest

from hostile import encode, numbered
from vidcls.core import ArgumentError, ClipSpec, VideoReadError
from vidcls.data.clips import load_clip
from vidcls.data.decode import Video
from vidcls.windows import (
    Window, WindowCutter, Windows, end_of_video, open_video, wanted_frames, windows_of_video,
)

RULES = {
    'uniform': {}, 'segment': {}, 'still': {}, 'center': dict(stride=2), 'random': dict(stride=3),
    'time': dict(step_s=.11),
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "A plain file, one with B-frames and odd shapes, one whose frame rate changes on the way."
    d = tmp_path_factory.mktemp('windows')
    return {
        'plain': encode(d/'plain.mp4', g=12),
        'b-frames': encode(d/'bframes.mkv', frames=numbered(75, 64, 160), g=30, bf=3),
        'slow': encode(d/'slow.mp4', pts=np.arange(90)*7, g=10),
        'vfr': encode(d/'vfr.mp4', pts=np.r_[0:45, 45:45+3*45:3], g=30, bf=2),
    }


def spec_of(rule, **more):
    return ClipSpec(n_frames=4, size=32, resize=36, sampling=rule, **RULES[rule], **more)


def file_windows(path, spec, windows, on_error='raise'):
    with open_video(path, on_error=on_error) as v:
        return list(windows_of_video(v, spec, windows, on_error))


def stream_windows(path, spec, windows):
    "The windows of a stream that gives each frame of a file."
    cutter = WindowCutter(spec, windows)
    with Video(path) as v:
        for t, f in zip(v.times.tolist(), v.frames()):
            yield from cutter.push(t, f)
    yield from cutter.finish()


@pytest.mark.parametrize('name', ['plain', 'b-frames', 'slow', 'vfr'])
@pytest.mark.parametrize('rule', RULES)
def test_stream_equals_file_equals_load_clip(files, name, rule):
    for windows in (Windows(1.2, .5), Windows(.7), Windows(.5, .9)):
        of_file = file_windows(files[name], spec_of(rule), windows)
        of_stream = list(stream_windows(files[name], spec_of(rule), windows))
        assert len(of_file) == len(of_stream) >= 3
        for a, b in zip(of_file, of_stream):
            assert a[:2] == b[:2] and (a.clip == b.clip).all()
            assert (a.clip == load_clip(files[name], spec_of(rule), window=(a.start, a.end))).all()


def test_windows_are_those_of_the_rule(files):
    for name, file in files.items():
        with Video(file) as v:
            spans = Windows(1.2, .5).spans(end_of_video(v.n_frames, v.times[-1]))
        cut = [w[:2] for w in file_windows(file, spec_of('uniform'), Windows(1.2, .5))]
        assert cut == [tuple(s) for s in spans.tolist()], name


def test_only_needed_frames_are_converted(files, monkeypatch):
    asked = []
    frames = Video.frames
    monkeypatch.setattr(Video, 'frames', lambda v, idxs: asked.append(len(idxs)) or frames(v, idxs))
    file_windows(files['plain'], spec_of('uniform'), Windows(1, 1))
    assert asked == [16]                                   # four windows of four frames, in one pass


@pytest.mark.parametrize('args, match', [
    ((0,), 'length_s=0'), ((1, 0), 'every_s=0'), ((-1,), 'length_s=-1'), ((float('nan'),), 'length_s=nan'),
    ((float('inf'),), 'finite'), (('4',), "length_s='4'"), ((True,), 'length_s=True'),
])
def test_wrong_windows(args, match):
    with pytest.raises(ArgumentError, match=match):
        Windows(*args)


def test_windows_without_frames_have_a_reason(tmp_path):
    rare = encode(tmp_path/'rare.mp4', frames=numbered(4), pts=np.arange(4)*75)     # one in 3 seconds
    got = file_windows(rare, spec_of('uniform'), Windows(1))
    assert [w.clip is not None for w in got] == [True, False, False]*4
    assert got[1].reason == "no frame is shown in it"
    got = file_windows(rare, spec_of('uniform', short='error'), Windows(1))
    assert all(w.clip is None for w in got) and 'the spec asks for n_frames=4' in got[0].reason


def test_a_single_frame_is_a_window(tmp_path):
    one = encode(tmp_path/'one.mp4', frames=numbered(1))
    (w,) = file_windows(one, spec_of('uniform'), Windows(4, 2))
    assert (w.start, w.end) == (0, .04) and w.clip.shape == (4, 32, 32, 3)


def test_a_file_that_breaks_in_the_middle(tmp_path):
    whole = encode(tmp_path/'whole.mp4', frames=numbered(250), g=25)
    data = bytearray(whole.read_bytes())
    middle = len(data)//2
    data[middle:middle+400] = np.random.default_rng(0).integers(0, 256, 400, np.uint8).tobytes()
    broken = tmp_path/'broken.mp4'
    broken.write_bytes(data)
    spec, windows = spec_of('uniform'), Windows(1)
    with pytest.raises(VideoReadError, match='damaged'):
        file_windows(broken, spec, windows)
    good = file_windows(whole, spec, windows)
    with pytest.warns(UserWarning, match='damaged'):
        got = file_windows(broken, spec, windows, on_error='skip')
    lost = [w for w in got if w.clip is None]
    assert 1 <= len(lost) <= 3 and all('damaged' in w.reason for w in lost)
    same = [a.clip is not None and (a.clip == b.clip).all() for a, b in zip(got, good)]
    assert sum(same) >= 7
    with pytest.raises(ArgumentError, match='on_error'):
        file_windows(whole, spec, windows, on_error='ignore')


def test_pictures_and_missing_files_are_refused(tmp_path):
    with pytest.raises(VideoReadError, match='no such file'):
        file_windows(tmp_path/'none.mp4', spec_of('uniform'), Windows(1), on_error='skip')


def test_frames_that_go_back_are_refused():
    cutter = WindowCutter(spec_of('uniform'), Windows(1))
    cutter.push(1., numbered(1)[0])
    with pytest.raises(ArgumentError, match='at least 1, the time before'):
        cutter.push(.5, numbered(1)[0])
    assert cutter.push(1., numbered(1)[0]) == []
    assert WindowCutter(spec_of('uniform'), Windows(1)).finish() == []


def test_the_buffer_holds_one_window():
    cutter, frame, most = WindowCutter(spec_of('uniform'), Windows(2, .5)), numbered(1)[0], 0
    for i in range(3000):
        cutter.push(i/25, frame)
        most = max(most, len(cutter.frames))
    assert most <= 52
    assert isinstance(cutter.finish()[0], Window)
    assert wanted_frames(np.arange(3000)/25, spec_of('uniform'), Windows(2)).sum() == 60*4
