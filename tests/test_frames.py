"""Streams whose packets and pictures do not match, odd clocks and pictures, damage, names, memory,
threads: the frames of a full forward decode, or one clear error."""
import io, os, random, struct, subprocess, sys, threading, time, warnings
from fractions import Fraction
from pathlib import Path
import av, cv2, numpy as np, pytest
from hostile import HOSTILE, encode, ffmpeg, mutate, numbered, read_numbers
from vidcls.core import ClipSpec, DecodeTimeoutError, VideoReadError
from vidcls.data import decode, packets as index, video as videos
from vidcls.data.decode import Video, crop_frame, probe, read_frames
from vidcls.data.sampling import sample_idxs

VOP, NOT_CODED = b'\0\0\1\xb6', b'\0\0\1\xb6\x50\x00\x7f\xff'


def full(path):
    "The truth: every frame that FFmpeg gives, decoded in order."
    with av.open(str(path), metadata_errors='ignore') as c:
        return [f.to_ndarray(format='rgb24', threads=1) for f in c.decode(video=0)]


def check(path, backends=('pyav', 'decord')):
    "All frames, each by itself, some in a row: as in the full decode, whatever is asked for."
    truth = full(path)
    n = len(truth)
    assert n and probe(path).n_frames == n
    for backend in backends:
        tolerance = 0 if backend == 'pyav' else 3
        with Video(path, backend) as v:
            for idxs in (*([i] for i in range(0, n, 3)), np.arange(n), np.linspace(0, n-1, 5).astype(int)):
                got = v.read(idxs)
                assert np.abs(got.astype(int) - np.stack([truth[i] for i in idxs])).max() <= tolerance, (
                    backend,
                    idxs,
                )
            assert len(v.times) == n and (np.diff(v.times) >= 0).all()
    return truth


def remux(source, path, change=lambda i, data, pts: [(data, pts)], rate=25, **options):
    "Put the packets of a file into another one; `change` gives (data, time stamp) to write for a packet."
    with av.open(str(source)) as src, av.open(str(path), 'w', **options) as out:
        s = src.streams.video[0]
        o = out.add_stream_from_template(s)
        for i, p in enumerate(p for p in src.demux(s) if p.size):
            for data, pts in change(i, bytes(p), p.pts):
                q = av.Packet(data)
                q.stream, q.pts, q.dts, q.time_base, q.is_keyframe = o, pts, pts, p.time_base, p.is_keyframe
                out.mux(q)
    return path


# ---- packets that give no picture, or more than one

def boxes(b, s, e):
    while s < e:
        n, kind = struct.unpack('>I4s', b[s:s+8])
        yield s, n, kind
        s += n


def find(b, *way, s=0, e=None):
    for at, n, kind in boxes(b, s, len(b) if e is None else e):
        if kind == way[0]:
            return (at, n) if len(way) == 1 else find(b, *way[1:], s=at+8, e=at+n)


def set_edits(source, path, edits):
    "edits: (seconds shown, from which second; -1 shows nothing)."
    b = bytearray(source.read_bytes())
    movie, media = (
        struct.unpack('>I', b[(at := find(b, b'moov', *way)[0]) + 20 : at + 24])[0]
        for way in ([b'mvhd'], [b'trak', b'mdia', b'mdhd'])
    )
    body = struct.pack('>II', 0, len(edits))
    for seconds, start in edits:
        body += struct.pack('>IiHH', round(seconds*movie), -1 if start < 0 else round(start*media), 1, 0)
    edts = struct.pack('>I4sI4s', 16+len(body), b'edts', 8+len(body), b'elst') + body
    moov, trak, old, head = (
        find(b, b'moov', *w) for w in ([], [b'trak'], [b'trak', b'edts'], [b'trak', b'tkhd'])
    )
    grown = len(edts)
    if old:
        del b[old[0]:sum(old)]
        grown -= old[1]
    b[sum(head):sum(head)] = edts
    for at, n in (moov, trak):
        b[at:at+4] = struct.pack('>I', n+grown)
    path.write_bytes(b)
    return path


@pytest.mark.parametrize('b_frames', [0, 2])
@pytest.mark.parametrize('edits',
    [[(1, 0)], [(1.5, -1), (1.2, 1.2)], [(.5, .2), (.6, 1.5)], [(1, .5), (1, .5)], [(2, .3)], [(.04, 1)]],
                         ids=['end', 'late', 'middle', 'twice', 'begin', 'one'])
def test_edit_lists(tmp_path, edits, b_frames):
    plain = encode(tmp_path/'plain.mp4', frames=numbered(60), g=20, bf=b_frames, qp=12)
    check(set_edits(plain, tmp_path/'cut.mp4', edits))


@pytest.mark.parametrize('suffix', ['.webm', '.ivf'])
def test_invisible_vp8(tmp_path, suffix):
    plain = encode(
        tmp_path / 'plain.webm', 'libvpx', numbered(60), g=25, qmin=2, qmax=10, b='2M', auto_alt_ref=0
    )
    seen = [0]

    def hide(i, data, pts):
        if i not in (20, 40):
            seen[0] = pts
        return [(bytes([data[0] & ~16])+data[1:], seen[0]+1)] if i in (20, 40) else [(data, pts)]
    assert len(check(remux(plain, tmp_path/f'hidden{suffix}', hide))) == 58


def superframe(data):
    "The frames of a VP9 packet: some are never shown."
    if data[-1] & 0xe0 != 0xc0:
        return [data]
    n, width = (data[-1] & 7) + 1, (data[-1] >> 3 & 3) + 1
    sizes, at, out = data[-1-n*width:-1], 0, []
    for k in range(n):
        size = int.from_bytes(sizes[k*width:(k+1)*width], 'little')
        out.append(data[at:at+size])
        at += size
    return out


def test_invisible_vp9(tmp_path):
    "In one packet with a shown one, as libvpx writes them, and each in a packet of its own."
    noise = np.random.default_rng(0).integers(-20, 20, (60, 96, 128, 3))
    source = encode(tmp_path/'s.mp4', frames=np.clip(numbered(60)+noise, 0, 255).astype(np.uint8), qp=5)
    for n in (1, 2):
        ffmpeg(
            '-i',
            source,
            '-c:v',
            'libvpx-vp9',
            '-b:v',
            '200k',
            '-g',
            60,
            '-auto-alt-ref',
            1,
            '-lag-in-frames',
            25,
            '-cpu-used',
            4,
            '-pass',
            n,
            '-passlogfile',
            tmp_path / 'log',
            *(['-f', 'null', '-'] if n == 1 else [tmp_path / 'a.webm']),
        )
    with av.open(str(tmp_path/'a.webm')) as c:
        assert sum(len(superframe(bytes(p))) > 1 for p in c.demux(video=0) if p.size) > 2
    ffmpeg('-i', tmp_path/'a.webm', '-c', 'copy', tmp_path/'a.mp4')
    split = remux(
        tmp_path / 'a.webm',
        tmp_path / 'split.nut',  # other muxers would put them together again
        lambda i, data, pts: [
            (d, pts - len(superframe(data)) + 1 + k) for k, d in enumerate(superframe(data))
        ],
    )
    for name in ('a.webm', 'a.mp4', 'split.nut'):
        assert len(check(tmp_path/name)) == 60
    assert probe(tmp_path/'a.webm').safe_seek and not probe(split).safe_seek


def test_av1(tmp_path):
    for suffix in ('.mp4', '.ivf', '.mkv'):
        check(encode(tmp_path/f'a{suffix}', 'libsvtav1', numbered(40), preset=12, g=20, svtav1_params='lp=1'))
    assert probe(tmp_path/'a.mp4').safe_seek


def packed(path, placeholder=True):
    "I PB n PB n …: each P and the B shown before it in one packet, then a place holder."
    with av.open(str(path)) as c:
        packets = [bytes(p) for p in c.demux(video=0) if p.size]
    mark, out, i = b'\0\0\1\xb2DivX503b1393p\0', [], 0
    while i < len(packets):
        data = packets[i]
        if not out:
            data = data[:data.find(VOP)] + mark + data[data.find(VOP):]
        pair = i+1 < len(packets) and packets[i+1][packets[i+1].find(VOP)+4] >> 6 == 2
        out += ([data+packets[i+1]] + [NOT_CODED]*placeholder) if pair else [data]
        i += 1 + pair
    return out


def write_packets(packets, template, path, step=1):
    with av.open(str(template)) as src, av.open(str(path), 'w') as out:
        o = out.add_stream_from_template(src.streams.video[0])
        for i, data in enumerate(packets):
            q = av.Packet(data)
            q.stream, q.pts, q.dts, q.time_base = o, i*step, i*step, Fraction(1, 25)
            q.is_keyframe = data.find(VOP) >= 0 and data[data.find(VOP)+4] >> 6 == 0
            out.mux(q)
    return path


@pytest.mark.parametrize('placeholder', [True, False])
@pytest.mark.parametrize('suffix', ['.mkv', '.mp4', '.avi', '.mov'])
def test_packed_b_frames(tmp_path, suffix, placeholder):
    plain = encode(tmp_path/'b.avi', 'mpeg4', numbered(61), g=12, bf=1, qmin=2, qmax=3)
    path = write_packets(
        packed(plain, placeholder), plain, tmp_path / f'packed{suffix}', 1 if placeholder else 2
    )
    check(path)


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_packed_b_frames_of_hmdb51(real_data, tmp_path, suffix):
    source = real_data/'single/RATRACE_wave_f_nm_np1_fr_goo_37.avi'
    with av.open(str(source), metadata_errors='ignore') as c:
        packets = [bytes(p) for p in c.demux(video=0) if p.size]
    check(write_packets(packets, source, tmp_path/f'hmdb{suffix}'), ['pyav'])


@pytest.mark.parametrize('padding', [0, 300])
@pytest.mark.parametrize('suffix', ['.avi', '.mp4', '.mkv'])
def test_frames_that_are_not_coded(tmp_path, suffix, padding):
    plain = encode(tmp_path/'m.avi', 'mpeg4', numbered(60), g=30, qmin=2, qmax=2, bf=0)

    def not_coded(i):
        bits = '01' + '0' + '1' + format(i % 25, '05b') + '1' + '0'
        bits += '0' + '1'*((-len(bits)-1) % 8)
        return VOP + int(bits, 2).to_bytes(len(bits)//8, 'big') + b'\x7f'*padding
    same = (10, 11, 25, 40)
    path = remux(
        plain, tmp_path / f'n{suffix}', lambda i, data, pts: [(not_coded(i) if i in same else data, pts)]
    )
    assert len(check(path)) == 56


@pytest.mark.parametrize('codec,options,suffix',
    [('libx264', dict(flags='+ildct+ilme', g=15, bf=2), '.mp4'),
        ('mpeg2video', dict(flags='+ildct+ilme', g=12, bf=2), '.mkv'),
                                                  ('mpeg2video', dict(g=12, bf=2), '.mp4'),
                                                  ('mpeg4', dict(flags='+ildct+ilme', g=12), '.mp4'),
                                                  ('libx264', dict(x264_params='fake-interlaced=1'), '.mkv')])
def test_interlaced_is_alike_by_all_backends(tmp_path, codec, options, suffix):
    path = encode(tmp_path/f'i{suffix}', codec, numbered(40), **options)
    check(path)
    with Video(path) as v:
        assert not v.seekable or not v.first_frame().interlaced_frame
    if codec != 'mpeg4':
        assert not probe(path).safe_seek                          # fields may come one by one


def test_headers_of_h264():
    "Which streams may hold fields is read from their headers, as x264 wrote them."
    for flags, profile, only in (
        ('+cgop', 'high', True),
        ('+ildct+ilme', 'high', False),
        ('+cgop', 'baseline', True),
        ('+cgop', 'high444', True),
    ):
        file = io.BytesIO()
        with av.open(file, 'w', format='mp4') as out:
            s = out.add_stream(
                'libx264',
                rate=25,
                options={'flags': flags, 'profile': profile}
                | ({'x264-params': 'cqm=jvt'} if 'high' in profile else {}),
            )
            s.width, s.height, s.pix_fmt = 64, 64, 'yuv444p' if '444' in profile else 'yuv420p'
            for f in numbered(2, 64, 64):
                out.mux(s.encode(av.VideoFrame.from_ndarray(f, format='rgb24')))
            out.mux(s.encode())
        file.seek(0)
        with av.open(file) as c:
            extra = bytes(c.streams.video[0].codec_context.extradata)
        assert (
            all(
                map(
                    index.frames_only,
                    [s for s in index.parameter_sets(extra, False)[1] if s[0] & 31 == 7],
                )
            )
            == only
        )


def test_a_plan_that_fails_becomes_a_forward_decode(tmp_path, monkeypatch):
    "Should a codec hide pictures in a way that we do not know, a sound file is not called damaged."
    plain = encode(
        tmp_path / 'plain.webm', 'libvpx', numbered(60), g=25, qmin=2, qmax=10, b='2M', auto_alt_ref=0
    )
    path = remux(
        plain, tmp_path / 'h.webm', lambda i, d, pts: [(bytes([d[0] & ~16]) + d[1:] if i == 40 else d, pts)]
    )
    monkeypatch.setitem(index.PLANNED, 'vp8', lambda extra, has_b: lambda data: index.ONE_PICTURE)
    truth = full(path)
    with Video(path) as v:
        assert v.safe_seek and v.n_frames == 60
        assert (v.read([42, 55])[1] == truth[55]).all() and not v.safe_seek and v.n_frames == 59


# ---- what the container says of pictures and times

MATRICES = [
    (0, False, False),
    (90, False, False),
    (180, False, False),
    (270, False, False),
    (0, True, False),
    (0, False, True),
    (90, True, False),
    (270, True, False),
]


@pytest.mark.parametrize('degrees,h,v', MATRICES)
def test_turned_and_mirrored(tmp_path, degrees, h, v):
    "As a player shows it: FFmpeg's own program is the reference."
    path = tmp_path/'m.mp4'
    with av.open(str(path), 'w') as out:
        s = out.add_stream('libx264', rate=25, options={'qp': '8'})
        s.width, s.height, s.pix_fmt = 128, 96, 'yuv420p'
        s.set_display_rotation(degrees, hflip=h, vflip=v)
        for f in numbered(5):
            out.mux(s.encode(av.VideoFrame.from_ndarray(f, format='rgb24')))
        out.mux(s.encode())
    ffmpeg('-i', path, '-frames:v', 1, tmp_path/'want.png')
    want = cv2.imread(str(tmp_path/'want.png'))[:, :, ::-1]
    info = probe(path)
    assert (info.height, info.width) == want.shape[:2] and info.mirrored == (h != v)
    for backend in ('pyav', 'decord'):
        got = read_frames(path, [0], backend=backend)[0]
        assert got.shape == want.shape and np.abs(got.astype(int) - want).mean() < 4, backend


@pytest.mark.parametrize('suffix,container', [('.ts', 'mpegts'), ('.mpg', 'mpeg')])
def test_a_clock_that_starts_anew(tmp_path, suffix, container):
    codec = 'libx264' if suffix == '.ts' else 'mpeg2video'
    parts = [
        encode(tmp_path / f'{i}{suffix}', codec, f, container=container, bf=0, g=25)
        for i, f in enumerate((numbered(100)[:50], numbered(100)[50:], numbered(100)[:40]))
    ]
    path = tmp_path/f'all{suffix}'
    path.write_bytes(b''.join(p.read_bytes() for p in parts))
    n = len(check(path))
    with Video(path) as v:
        assert n >= 138 and (np.diff(v.times) > 0).all() and abs(v.times[-1] - (n-1)/25) < .3
        part = v.part(2.5, 3.5)
        assert (
            abs(part.n_frames - 25) <= 2
            and np.abs(np.array(read_numbers(part.read([0, part.n_frames - 1]))) - (62, 87)).max() <= 2
        )
        idx = sample_idxs(n, ClipSpec(n_frames=8, size=32, sampling='time', step_s=.4), times=v.times)
        assert len(set(idx.tolist())) == 8


@pytest.mark.parametrize('offset', [95443.0, 40000.])
def test_a_clock_that_overflows_or_jumps_ahead(tmp_path, offset):
    "A transport stream counts to 2**33 (95,443.7 s); and the second recording may have begun hours later."
    one = encode(tmp_path/'one.ts', frames=numbered(100)[:50], bf=0, g=25, container='mpegts')
    ffmpeg(
        '-i',
        encode(tmp_path / 'two.mp4', frames=numbered(100)[50:], bf=0, g=25),
        '-c',
        'copy',
        '-output_ts_offset',
        offset,
        tmp_path / 'two.ts',
    )
    joined = tmp_path/'joined.ts'
    joined.write_bytes(one.read_bytes() + (tmp_path/'two.ts').read_bytes())
    for path in (tmp_path/'two.ts', joined):
        n = len(check(path))
        with Video(path) as v:
            assert abs(v.times[-1] - (n-1)/25) < .3 and (np.diff(v.times) > 0).all()


def test_a_clock_with_gaps():
    step = videos.unbroken_times
    np.testing.assert_array_equal(step([None, None, 10, None, 14], 2, np.inf), [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(step([None]*3, 2, np.inf), [0, 2, 4])
    # disorder is no new start
    np.testing.assert_array_equal(step([0, 3, 1, 2, 4, 5], 1, np.inf), [0, 3, 3, 3, 4, 5])
    np.testing.assert_array_equal(step([5, 6, 7, 0, 1, 2], 1, np.inf), [0, 1, 2, 3, 4, 5])


def test_frame_rate_from_the_times(tmp_path):
    path = tmp_path/'a.mkv'
    encode(path, pts=np.arange(0, 90)*2, g=30, bf=0)
    with Video(path) as v:
        class NoRate:  # a container without a rate: its stream says 0
            average_rate, time_base, guessed_rate, sample_aspect_ratio = None, v._stream.time_base, None, None
        v._stream = NoRate()
        assert abs(v.info.fps - 12.5) < .01 and abs(v.info.duration - 90/12.5) < .01


def test_pixels_that_are_not_square(tmp_path):
    source = encode(tmp_path/'s.mp4', frames=numbered(10), qp=8)
    for name, turn in (('a.mp4', []), ('b.mp4', ['-metadata:s:v', 'rotate=90'])):
        ffmpeg('-i', source, '-vf', 'setsar=16/9', '-c:v', 'libx264', *turn, tmp_path/name)
    info = probe(tmp_path/'a.mp4')
    assert abs(info.pixel_aspect - 16/9) < .01 and (info.width, info.height) == (128, 96)
    for backend in ('pyav', 'decord'):
        square = read_frames(tmp_path/'a.mp4', [3], backend=backend, square_pixels=True)
        assert square.shape == (1, 96, 228, 3)
        as_stored = read_frames(tmp_path/'a.mp4', [3])[0]
        assert np.abs(cv2.resize(as_stored, (228, 96)).astype(int) - square[0]).mean() < 3
    with Video(tmp_path/'a.mp4', square_pixels=True) as v:
        assert (v.info.width, v.info.pixel_aspect) == (228, 1.)
    assert probe(source).pixel_aspect == 1 and read_frames(source, [0], square_pixels=True).shape == (
        1,
        96,
        128,
        3,
    )


def test_sound_with_a_cover(tmp_path):
    from hostile import sound
    sound(tmp_path/'s.m4a')
    cv2.imwrite(str(tmp_path/'c.jpg'), np.full((64, 64, 3), 128, np.uint8))
    for name in ('song.mp4', 'song.mkv'):
        ffmpeg(
            '-i',
            tmp_path / 's.m4a',
            '-i',
            tmp_path / 'c.jpg',
            '-map',
            0,
            '-map',
            1,
            '-c',
            'copy',
            '-disposition:v:0',
            'attached_pic',
            tmp_path / name,
        )
        with av.open(str(tmp_path/name)) as c:
            attached = any(s.disposition & 1024 for s in c.streams.video)
        if attached:
            with pytest.raises(VideoReadError, match='holds no video stream .sound with a cover picture'):
                probe(tmp_path/name)
    film = encode(tmp_path/'film.mp4', frames=numbered(10))
    ffmpeg(
        '-i',
        tmp_path / 'c.jpg',
        '-i',
        film,
        '-map',
        0,
        '-map',
        1,
        '-c',
        'copy',
        '-disposition:v:0',
        'attached_pic',
        tmp_path / 'both.mp4',
    )
    assert probe(tmp_path/'both.mp4').n_frames == 10


# ---- names and containers

NAMES = [
    '12:30:05.mp4',
    'http:clip.mp4',
    'file:other.mp4',
    'concat:other.mp4|other.mp4',
    'async:other.mp4',
    'cache:other.mp4',
    'data:x.mp4',
    'crypto:other.mp4',
    'subfile,,start,0,end,0,,:other.mp4',
    os.fsdecode(b'caf\xe9.mp4'),
    'pipe:0',
    '-',
    '%03d.mp4',
]


@pytest.mark.parametrize('backend', ['pyav', 'decord'])
def test_a_name_is_only_a_name(tmp_path, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    encode(tmp_path/'other.mp4', frames=numbered(12)[::-1])
    for name in NAMES:
        encode(tmp_path/'x.mp4', frames=numbered(10))
        os.replace('x.mp4', name)
        for given in (name, Path(name), f'./{name}', os.path.abspath(name), os.fsencode(name)):
            assert read_numbers(read_frames(given, [7, 2], backend=backend)) == [7, 2], given
    Path(os.fsdecode(b'bad\xe9.mp4')).write_bytes(b'')
    with pytest.raises(VideoReadError) as e:
        probe(os.fsdecode(b'bad\xe9.mp4'))
    assert str(e.value).encode() == b'bad\\xe9.mp4: the file is empty; copy or download it again'


CONTAINERS = {
    'a.mxf': ('mpeg2video', 'mxf'),
    'a.ivf': ('libvpx', 'ivf'),
    'a.nut': ('libx264', 'nut'),
    'a.mjpeg': ('mjpeg', 'mjpeg'),
    'a.flv': ('flv1', 'flv'),
    'a.3gp': ('h263', '3gp'),
    'a.MTS': ('libx264', 'mpegts'),
    'a.y4m': ('wrapped_avframe', 'yuv4mpegpipe'),
    'a.wmv': ('wmv2', 'asf'),
    'a.h264': ('libx264', 'h264'),
    'a.ogv': ('libtheora', 'ogg'),
    'a.mpg': ('mpeg1video', 'mpeg'),
    'a.vob': ('mpeg2video', 'vob'),
    'a.apng': ('apng', 'apng'),
    'a.gxf': ('mpeg2video', 'gxf'),
    'a.rm': ('rv20', 'rm'),
}


def test_containers_of_ordinary_video(tmp_path):
    made = []
    for name, (codec, container) in CONTAINERS.items():
        h, w = (288, 352) if codec in ('h263', 'rv20') else (96, 128)
        if container == 'gxf':
            continue
        try:
            encode(
                tmp_path / name,
                codec,
                numbered(10, h, w),
                container=container,
                pix_fmt='rgb24' if 'apng' in codec else 'yuvj420p' if codec == 'mjpeg' else 'yuv420p',
            )
        except Exception:
            continue                               # this build of FFmpeg can't write it
        if name == 'a.apng':
            continue
        made.append(name)
        truth = full(tmp_path/name)
        assert (read_frames(tmp_path/name, [0, len(truth)-1]) == np.stack([truth[0], truth[-1]])).all(), name
    assert len(made) >= 10, made
    ffmpeg(
        '-f',
        'lavfi',
        '-i',
        'testsrc=s=720x576:r=25:d=0.2',
        '-pix_fmt',
        'yuv420p',
        '-target',
        'pal-dv',
        tmp_path / 'a.dv',
    )
    assert probe(tmp_path/'a.dv').n_frames == 5 and probe(tmp_path/'a.dv').pixel_aspect > 1
    a, b = (read_frames(tmp_path/'a.dv', [1, 3], backend=k).astype(int) for k in ('pyav', 'decord'))
    assert (a == b).all()


def test_what_is_not_accepted_is_called_that(tmp_path):
    ffmpeg('-f', 'lavfi', '-i', 'testsrc=s=320x240:r=25:d=0.2', '-c:v', 'flv', '-f', 'swf', tmp_path/'a.swf')
    with pytest.raises(VideoReadError, match="not accepted .SWF .ShockWave Flash., 'swf'"):
        probe(tmp_path/'a.swf')
    (tmp_path/'a.mp4').write_text('#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n')
    with pytest.raises(VideoReadError, match='a list of other files .HLS'):
        probe(tmp_path/'a.mp4')


# ---- memory

@pytest.mark.parametrize('name',
    ['plain.mp4', 'long_gop.mp4', 'mpeg4.avi', 'mpeg4_b.mp4', 'edit_list.mp4', 'open_gop.mp4', 'vp9.webm',
        'transport.ts', 'packed.avi', 'fragmented.mp4', 'loop.gif', 'hevc.mp4'])
def test_packets_that_are_not_held(tmp_path, monkeypatch, name):
    HOSTILE[name](tmp_path/name)
    monkeypatch.setattr(index, 'HELD_BYTES', 0)
    with Video(tmp_path/name) as v:
        assert v.packets.held is None
        truth = full(tmp_path/name)
        for idxs in ([len(truth)-1], [40, 3], np.arange(0, len(truth), 7), [0]):
            assert (v.read(idxs) == np.stack([truth[i] for i in idxs])).all()
        v.info
        assert all((a == b).all() for a, b in zip(v.frames(), truth, strict=True))
    data = io.BytesIO((tmp_path/name).read_bytes())
    assert (read_frames(data, [40, 3]) == np.stack([truth[40], truth[3]])).all()


# MB; ru_maxrss would hold the parent's as well
PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])/1e3"
MEMORY = f"""
import sys
from vidcls.core import ClipSpec
from vidcls.data.loaders import load_clip
load_clip(sys.argv[1], ClipSpec(n_frames=16, size=64))
before = {PEAK}
load_clip(sys.argv[2], ClipSpec(n_frames=16, size=64))
print({PEAK} - before)
"""


def test_memory_of_a_long_video(tmp_path):
    "VIDCLS_LONG_MB makes it longer: 1000 was tried, too."
    part = encode(
        tmp_path / 'part.mp4',
        frames=np.random.default_rng(0).integers(0, 255, (10, 240, 320, 3), np.uint8),
        preset='ultrafast',
        qp=10,
        g=10,
        bf=0,
    )
    mb = int(os.environ.get('VIDCLS_LONG_MB', 150))
    with av.open(str(part)) as src, av.open(str(tmp_path/'long.mp4'), 'w') as out:
        o = out.add_stream_from_template(src.streams.video[0])
        packets = [(bytes(p), p.is_keyframe) for p in src.demux(video=0) if p.size]
        for i in range(int(mb*1e6/part.stat().st_size)*len(packets)):
            q = av.Packet(packets[i % 10][0])
            q.stream, q.pts, q.dts, q.time_base, q.is_keyframe = o, i, i, Fraction(1, 25), packets[i % 10][1]
            out.mux(q)
    out = subprocess.run(
        [sys.executable, '-c', MEMORY, part, tmp_path / 'long.mp4'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    print(f'{(tmp_path/"long.mp4").stat().st_size/1e6:.0f} MB: {out.strip()} MB more')
    assert float(out) < 60


def test_a_huge_file_without_its_index_is_not_read_whole(tmp_path):
    path = tmp_path/'huge.mp4'
    with path.open('wb') as f:
        f.write(struct.pack('>I4s4sI', 16, b'ftyp', b'isom', 0) + struct.pack('>I4sQ', 1, b'mdat', 6*10**9))
        f.truncate(6*10**9)
    start = time.monotonic()
    with pytest.raises(VideoReadError, match='truncated: the index .moov. is missing'):
        probe(path)
    assert time.monotonic() - start < 5


def test_a_stream_that_grows_is_too_large(tmp_path):
    small, large = (
        encode(
            tmp_path / f'{n}.h264',
            frames=np.zeros((3, n, n, 3), np.uint8),
            container='h264',
            preset='ultrafast',
            bf=0,
        )
        for n in (64, 2048)
    )
    (tmp_path/'grows.h264').write_bytes(small.read_bytes() + large.read_bytes())
    for limit in (10**6, 3*10**6):
        with pytest.raises(VideoReadError, match='too large|damaged'):
            read_frames(tmp_path/'grows.h264', [4], max_pixels=limit)
    with pytest.raises(VideoReadError, match='changes its frame size'):
        read_frames(tmp_path/'grows.h264', [0, 4])


def test_a_strip_needs_little_memory(tmp_path):
    path = encode(
        tmp_path / 'strip.mov',
        'png',
        np.random.default_rng(0).integers(0, 255, (3, 2, 30000, 3), np.uint8),
        pix_fmt='rgb24',
    )
    assert read_frames(path, [1]).shape == (1, 2, 30000, 3)
    with pytest.raises(VideoReadError, match='too large: 753 million'):
        read_frames(path, [1], size=224)
    code = ("from vidcls.data.decode import *\n"
            f"crop_frame(read_frames({str(path)!r}, [1])[0], None, 224); print({PEAK})")
    assert (
        float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)
        < 400
    )
    assert crop_frame(numbered(1)[0], None, 48).shape == (48, 48, 3)


# ---- damage

def long_clip(path, codec='libx264', **options):
    "Detailed pictures, so that most bytes of the file are pictures."
    noise = np.random.default_rng(0).integers(-30, 30, (60, 96, 128, 3))
    return encode(path, codec, np.clip(numbered(60) + noise, 0, 255).astype(np.uint8), g=20, **options)


def marks(path):
    "Does FFmpeg say of any packet or frame that it is damaged?"
    with av.open(str(path)) as c:
        try:
            return any(f.is_corrupt for f in c.decode(video=0))
        except av.error.FFmpegError:
            return True


@pytest.mark.parametrize('codec,suffix', [('libx264', '.mp4'), ('mpeg4', '.avi')])
def test_noise_inside_pictures(tmp_path, codec, suffix):
    "64 bytes of noise: what FFmpeg marks as damaged is an error; the rest is the tolerant full decode."
    path = long_clip(tmp_path/f'a{suffix}', codec)
    rng, seen, clean, raw = np.random.default_rng(1), 0, full(path), path.read_bytes()
    for k in range(12):
        at = int(rng.integers(len(raw)//10, len(raw)*8//10))
        bad = tmp_path/f'bad{suffix}'
        bad.write_bytes(raw[:at] + rng.bytes(64) + raw[at+64:])
        try:
            with Video(bad) as v:
                got = v.read(np.arange(v.n_frames))
        except VideoReadError as e:
            seen += 1
            assert 'salvage=True' in str(e)
            with warnings.catch_warnings(record=True) as said, Video(bad, salvage=True) as v:
                warnings.simplefilter('always')
                assert v.n_frames > 30 and v.read([0]).shape == (1, 96, 128, 3)
            continue
        assert len(got) == len(clean) and all((a == b).all() for a, b in zip(got, full(bad)))
        assert not marks(bad)
    assert seen >= 4, seen


def test_salvage_marks(tmp_path):
    path = long_clip(tmp_path/'a.mp4')
    with av.open(str(path)) as c:
        p = [p for p in c.demux(video=0) if p.size][25]
    raw = bytearray(path.read_bytes())
    raw[p.pos+p.size//2:p.pos+p.size//2+64] = np.random.default_rng(3).bytes(64)
    path.write_bytes(raw)
    with pytest.raises(VideoReadError, match='a frame is incomplete|Invalid data'):
        read_frames(path, np.arange(60))
    with pytest.warns(UserWarning, match='marked as damaged'), Video(path, salvage=True) as v:
        assert v.damaged and v.n_frames == 60
        assert (v.read([3])[0] == full(path)[3]).all()
    assert read_frames(path, [5]).shape[0] == 1  # the groups before it are sound


@pytest.mark.parametrize('share', [.6, .9])
@pytest.mark.parametrize('kind', ['faststart.mp4', 'fragmented.mp4', 'a.mkv', 'a.webm', 'a.avi', 'a.mov'])
def test_a_file_without_its_end(tmp_path, kind, share):
    if kind == 'faststart.mp4':
        ffmpeg('-i', long_clip(tmp_path/'s.mp4'), '-c', 'copy', '-movflags', '+faststart', tmp_path/kind)
    elif kind == 'fragmented.mp4':
        ffmpeg(
            '-i',
            long_clip(tmp_path / 's.mp4'),
            '-c',
            'copy',
            '-movflags',
            'frag_keyframe+empty_moov',
            tmp_path / kind,
        )
    elif kind == 'a.mov':
        ffmpeg('-i', long_clip(tmp_path/'s.mp4'), '-c', 'copy', '-movflags', '+faststart', tmp_path/kind)
    else:
        long_clip(tmp_path/kind, 'libvpx' if 'webm' in kind else 'mpeg4' if 'avi' in kind else 'libx264')
    assert probe(tmp_path/kind).n_frames == 60
    raw = (tmp_path/kind).read_bytes()
    for source in (tmp_path/kind, io.BytesIO(raw[:int(len(raw)*share)])):
        if source == tmp_path/kind:
            source.write_bytes(raw[:int(len(raw)*share)])
        with pytest.raises(VideoReadError, match='damaged.*cut off'):
            read_frames(source, [0])
    with pytest.warns(UserWarning, match='cut off'), Video(tmp_path/kind, salvage=True) as v:
        assert v.n_frames == len(tolerant(tmp_path/kind)) < 60 and len(v.read([0])) == 1


def test_a_transport_stream_without_its_end(tmp_path):
    raw = long_clip(tmp_path/'a.ts').read_bytes()
    (tmp_path/'a.ts').write_bytes(raw[:len(raw)*6//10//188*188 + 77])
    with pytest.warns(UserWarning, match='last packet is incomplete'):
        assert probe(tmp_path/'a.ts').n_frames < 60


def test_no_false_alarm(real_data):
    "Each real clip that FFmpeg reads is read whole, without a warning."
    odd = {'corrupted.mp4'}
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for p in sorted(real_data.rglob('*')):
            if p.suffix not in ('.mp4', '.avi', '.mov', '.mkv', '.gif') or p.name in odd:
                continue
            if p.parent.parent.name in ('surv_fight', 'weizmann') and int(p.stat().st_size) % 7:
                continue       # a seventh of them
            with Video(p) as v:
                assert sum(1 for _ in v.frames()) == v.n_frames > 0
    with pytest.raises(VideoReadError, match='damaged'):
        read_frames(real_data/'single/corrupted.mp4', np.arange(40))


def test_colours_that_ffmpeg_refuses(tmp_path):
    from vidcls.data.loaders import load_clip
    encode(tmp_path/'a.mp4', frames=numbered(5), x264_params='colormatrix=YCgCo', pix_fmt='yuv420p')
    with pytest.raises(VideoReadError, match="can't convert its colours"):
        read_frames(tmp_path/'a.mp4', [0])
    with pytest.raises(VideoReadError):
        load_clip(tmp_path/'a.mp4', ClipSpec(n_frames=4, size=32))


@pytest.mark.parametrize('curve,name', [('smpte2084', 'PQ'), ('arib-std-b67', 'HLG'), ('bt709', '')])
def test_hdr_is_named(tmp_path, curve, name):
    path = encode(
        tmp_path / 'a.mp4',
        frames=numbered(5),
        pix_fmt='yuv420p10le',
        x264_params=f'colormatrix=bt2020nc:colorprim=bt2020:transfer={curve}',
    )
    assert probe(path).hdr == name
    check(path)


@pytest.mark.parametrize('pix_fmt,options',
    [('yuv420p', 'colormatrix=bt709'), ('yuv420p', 'colormatrix=smpte170m'), ('yuv420p', 'fullrange=on'),
        ('yuvj420p', ''), ('yuv422p', ''), ('yuv444p', ''),
                                             ('gray', ''), ('yuv420p10le', 'colormatrix=bt709')])
def test_pixels_are_alike_by_all_backends(tmp_path, pix_fmt, options):
    path = encode(
        tmp_path / 'a.mp4',
        frames=numbered(20),
        pix_fmt=pix_fmt,
        bf=0,
        **({'x264_params': options} if options else {}),
    )
    check(path)
    odd = encode(tmp_path/'odd.mkv', 'libvpx-vp9', numbered(8, 97, 131), cpu_used=8, deadline='realtime')
    check(odd)
    ffmpeg(
        '-f',
        'lavfi',
        '-i',
        'testsrc=s=64x64:d=0.2,format=yuva420p',
        '-c:v',
        'libvpx',
        '-auto-alt-ref',
        0,
        tmp_path / 'alpha.webm',
    )
    check(tmp_path/'alpha.webm')


# ---- permission, waiting, threads, processes

UNREADABLE = """
import os, sys
os.setgid(65534); os.setuid(65534)
from vidcls.data.decode import probe
from vidcls.core import VideoPermissionError
for p in sys.argv[1:]:
    try: probe(p)
    except VideoPermissionError as e: print('refused', e)
"""


@pytest.mark.skipif(not hasattr(os, 'getuid') or os.getuid() != 0,
    reason='needs root, to become somebody else')
def test_no_permission():
    import tempfile
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        d.chmod(0o755)
        (d/'closed').mkdir()
        for p in (d/'a.mp4', d/'closed/b.mp4'):
            encode(p, frames=numbered(3))
        (d/'a.mp4').chmod(0)
        (d/'closed').chmod(0o600)
        # the packages stand in a folder that only root may enter, so they are read before
        code = "import av, cv2, vidcls.data.decode\n" + UNREADABLE
        done = subprocess.run(
            [sys.executable, '-c', code, str(d / 'a.mp4'), str(d / 'closed/b.mp4')],
            capture_output=True,
            text=True,
        )
        assert done.stdout.count('refused') == 2, done.stdout + done.stderr
        (d/'closed').chmod(0o700)


def test_a_name_that_no_file_can_have(tmp_path):
    for name in ('x'*300 + '.mp4', 'a\0b.mp4'):
        with pytest.raises(VideoReadError):
            probe(tmp_path/name)


class Blocks(io.BytesIO):
    "A file whose reads never return once it has given so many bytes."
    def __init__(self, data, after):
        super().__init__(data)
        self.left = after
    def read(self, n=-1):
        self.left -= 1
        if self.left < 0:
            threading.Event().wait()
        return super().read(n)


@pytest.mark.slow
def test_a_read_that_never_returns(tmp_path, monkeypatch):
    data = long_clip(tmp_path/'a.mp4', qp=2).read_bytes()
    start = time.monotonic()
    for after in (0, 2): # while it is opened
        with pytest.raises(DecodeTimeoutError, match='timeout_s=0.3'):
            read_frames(Blocks(data, after), [5], timeout_s=.3)
    monkeypatch.setattr(index, 'HELD_BYTES', 0)
    source = Blocks(data, 10**6)
    with Video(source, timeout_s=.3) as v:
        source.left = 0                                          # while it is read
        for _ in range(2):
            with pytest.raises(DecodeTimeoutError):
                v.read([55])
    assert time.monotonic() - start < 8
    code = (
        "import sys, io; sys.path.insert(0, 'tests'); from test_frames import *\n"
        f"try: read_frames(Blocks(open({str(tmp_path / 'a.mp4')!r}, 'rb').read(), 0), [5], "
        "timeout_s=.3)\nexcept DecodeTimeoutError: print('late')"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout == 'late\n', done.stderr                    # and the process has ended


@pytest.mark.parametrize('held', [True, False])
@pytest.mark.parametrize('from_bytes', [False, True])
def test_six_threads_share_a_video(tmp_path, monkeypatch, held, from_bytes):
    path = encode(tmp_path/'a.mp4', frames=numbered(90), g=15, bf=2)
    if not held:
        monkeypatch.setattr(index, 'HELD_BYTES', 0)
    wrong = []

    def work(seed, v):
        rng = random.Random(seed)
        for _ in range(6):
            idxs = [rng.randrange(90) for _ in range(5)]
            if read_numbers(v.read(idxs)) != idxs:
                wrong.append(idxs)
            some = sorted(set(idxs))
            if read_numbers(v.frames(some)) != some:
                wrong.append(some)
    with Video(io.BytesIO(path.read_bytes()) if from_bytes else path) as v:
        threads = [threading.Thread(target=work, args=(i, v)) for i in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong


def test_two_readers_take_turns(tmp_path):
    path = encode(tmp_path/'a.mp4', frames=numbered(40, 480, 640), g=15)
    with Video(path) as v:
        a, b = v.frames(), v.frames([5, 20, 39])
        got = []
        for f in a:
            got.append(f)
            if len(got) in (3, 20):
                next(b)
            if len(got) == 10:
                assert (v.read([30])[0] == full(path)[30]).all()
        assert (
            all((x == y).all() for x, y in zip(got, full(path), strict=True)) and (next(b) == got[39]).all()
        )


def test_a_forked_process_reads_on(tmp_path, monkeypatch):
    path = encode(tmp_path/'a.mp4', frames=numbered(90), g=15)
    for held in (2**24, 0):
        monkeypatch.setattr(index, 'HELD_BYTES', held)
        with Video(path) as v:
            assert read_numbers(v.read([80])) == [80]
            pid = os.fork()
            if pid == 0:
                os._exit(0 if read_numbers(v.read([3, 60, 88])) == [3, 60, 88] else 1)
            assert read_numbers(v.read([70, 2])) == [70, 2]
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_decord_and_torchcodec_in_one_process(tmp_path):
    try:
        import torchcodec.decoders  # noqa: F401
    except Exception:
        pytest.skip('torchcodec does not run here')
    encode(tmp_path/'a.mp4', 'libsvtav1', numbered(20), preset=12, svtav1_params='lp=1')
    encode(tmp_path/'b.mp4', frames=numbered(20, 128, 128))
    code = (
        f"from vidcls.data.decode import read_frames\nfor p in ({str(tmp_path / 'a.mp4')!r}, "
        f"{str(tmp_path / 'b.mp4')!r}):\n"
        "    for b in ('decord', 'torchcodec', 'decord'): print(read_frames(p, [3, 17], backend=b).shape)"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count('(2,') == 6, done.stderr


# ---- random mutations

def tolerant(path):
    "All that FFmpeg gives, errors or not: (time stamp, frame)."
    out = []
    try:
        with av.open(str(path), metadata_errors='ignore', options={'format_whitelist': decode.FORMATS}) as c:
            s = c.streams.best('video')
            s.thread_count = 1
            for p in c.demux(s):
                try:
                    out += [
                        (f.pts, f.to_ndarray(format='rgb24', threads=1))
                        for f in s.codec_context.decode(p if p.size else None)
                    ]
                except av.error.FFmpegError:
                    pass
    except (av.error.FFmpegError, OSError):
        pass
    return out


def test_random_mutations(real_data, tmp_path):
    """No crash, no hang; a frame that comes without an error is that of the tolerant full decode.

    VIDCLS_MUTATIONS: how many.
    """
    names = [
        'single/v_Basketball_g01_c01.avi',
        'single/TrumanShow_wave_f_nm_np1_fr_med_26.avi',
        'single/video_90.mov',
        'single/flipping_a_pancake.mkv',
        'single/mmaction2_demo.mp4',
    ]
    made = [
        encode(tmp_path / 'hevc.mp4', 'libx265', numbered(30), x265_params='keyint=10:log-level=none'),
        encode(tmp_path / 'vp9.webm', 'libvpx-vp9', numbered(30), g=10, cpu_used=8, deadline='realtime'),
        encode(tmp_path / 'a.ts', frames=numbered(30), g=10),
        encode(tmp_path / 'm.mp4', 'mpeg4', numbered(30), g=10, bf=1),
    ]
    sources = made + [real_data/n for n in names]
    rng, counts, total = (
        np.random.default_rng(int(os.environ.get('VIDCLS_SEED', 0))),
        dict(refused=0, read=0),
        int(os.environ.get('VIDCLS_MUTATIONS', 18)),
    )
    for k in range(total):
        source = sources[k % len(sources)]
        path = tmp_path/f'mutated{source.suffix}'
        path.write_bytes(mutate(source.read_bytes(), rng))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                with Video(path, timeout_s=30) as v:
                    n = v.n_frames
                    idxs = np.unique(rng.integers(0, n, 6))
                    got, pts = v.read(idxs), np.array(v.time_stamps())[idxs]
            except VideoReadError:
                counts['refused'] += 1
                continue
        counts['read'] += 1
        if source.suffix == '.mov':
            continue                     # turned: compared by the other tests
        truth = tolerant(path)
        if any(p is None for p in pts) or len(truth) == n:
            wanted = [truth[i][1] for i in idxs]
        else:
            wanted = [dict(truth)[p] for p in pts]             # one that can't be decoded is missing there
        bad = [int(i) for i, g, w in zip(idxs, got, wanted, strict=True) if (g != w).any()]
        assert not bad, (k, source.name, bad)
    print(counts)
    assert counts['read'] and counts['refused']
