"""Video files that readers get wrong (HOSTILE) and files that nobody can read (BROKEN).

Each is made from frames that carry their number.
"""
import subprocess
from fractions import Fraction
import av, cv2, numpy as np

N = 90


def numbered(n=N, h=96, w=128):
    "n frames; each shows its number in eight squares that survive lossy coding."
    clip = np.full((n, h, w, 3), 90, np.uint8)
    for i, f in enumerate(clip):
        f[:, :, 0] = np.linspace(40, 160, w) + 60*np.sin(i/5)
        cv2.circle(f, (int(20 + 88*i/n), 64), 16, (40, 200, 220), -1)
        for b in range(8):
            f[4:28, 4+15*b:17+15*b] = 235 if i >> b & 1 else 20
    return clip


def read_numbers(frames):
    return [sum(int(f[8:24, 7 + 15 * b : 14 + 15 * b].mean() > 128) << b for b in range(8)) for f in frames]


def encode(path, codec='libx264', frames=None, pts=None, pix_fmt='yuv420p', container=None, **options):
    frames = numbered() if frames is None else frames
    with av.open(str(path), 'w', format=container) as file:
        s = file.add_stream(codec, rate=25, options={k.replace('_', '-'): str(v) for k, v in options.items()})
        s.height, s.width, s.pix_fmt, s.thread_count = *frames.shape[1:3], pix_fmt, 1
        for i, x in enumerate(frames):
            f = av.VideoFrame.from_ndarray(x, format='rgb24').reformat(format=pix_fmt, threads=1)
            if pts is not None:
                f.pts, f.time_base = int(pts[i]), Fraction(1, 25)
            file.mux(s.encode(f))
        file.mux(s.encode())
    return path


def ffmpeg(*args):
    import imageio_ffmpeg

    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-y', *map(str, args)],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def packed(path):
    "XviD with packed B-frames, as in HMDB51."
    raw = encode(path.with_suffix('.src.mp4'), qp=10, g=1)
    ffmpeg(
        '-i',
        raw,
        '-c:v',
        'mpeg4',
        '-bf',
        2,
        '-g',
        30,
        '-q:v',
        3,
        '-flags',
        '+bitexact',
        '-vtag',
        'XVID',
        path,
    )


def edit_list(path):
    "Cut without decoding: the first frames are in the file and must not be shown."
    raw = encode(path.with_suffix('.src.mp4'), g=30, bf=2)
    ffmpeg('-ss', 1.5, '-i', raw, '-c', 'copy', path)


def open_gop(path):
    raw = encode(path.with_suffix('.src.mp4'), qp=10, g=1)
    ffmpeg('-i', raw, '-c:v', 'libx264', '-x264-params', 'open-gop=1:keyint=20:bframes=3:scenecut=0', path)


HOSTILE = {
    'plain.mp4': lambda p: encode(p, g=30, bf=2),
    'long_gop.mp4': lambda p: encode(p, g=250, bf=3, b_pyramid='normal'),
    'no_b.mp4': lambda p: encode(p, g=30, bf=0),
    'fragmented.mp4': lambda p: fragmented(p),
    'mpeg4.avi': lambda p: encode(p, 'mpeg4', g=30, qscale=3),
    'mpeg4_b.avi': lambda p: encode(p, 'mpeg4', g=12, bf=2, qscale=3),
    'mpeg4_b.mp4': lambda p: encode(p, 'mpeg4', g=12, bf=2, qscale=3),
    'packed.avi': packed,
    'h264.avi': lambda p: encode(p, g=30, bf=2),
    'edit_list.mp4': edit_list,
    'open_gop.mp4': open_gop,
    'vfr.mp4': lambda p: encode(p, pts=np.r_[0:45, 45 : 45 + 3 * 45 : 3], g=30, bf=2),
    'hevc.mp4': lambda p: encode(p, 'libx265', x265_params='keyint=30:log-level=none'),
    'vp9.webm': lambda p: encode(p, 'libvpx-vp9', g=30, cpu_used=8, deadline='realtime'),
    'transport.ts': lambda p: encode(p, g=30, bf=2),
    'mjpeg.mov': lambda p: encode(p, 'mjpeg', pix_fmt='yuvj420p', qscale=3),
    'loop.gif': lambda p: encode(p, 'gif', pix_fmt='rgb8'),
    'ten_bit.mp4': lambda p: encode(p, pix_fmt='yuv420p10le', g=30),
    'yuv444.mp4': lambda p: encode(p, pix_fmt='yuv444p', g=30),
}


def fragmented(path):
    raw = encode(path.with_suffix('.src.mp4'), g=30, bf=2)
    ffmpeg('-i', raw, '-c', 'copy', '-movflags', 'frag_keyframe+empty_moov', path)


def cut(path, share):
    whole = encode(path.with_suffix('.src.mp4'), g=30).read_bytes()
    path.write_bytes(whole[:int(len(whole)*share)])


def faststart_cut(path, share=.5):
    raw = encode(path.with_suffix('.src.mp4'), g=30, qp=10)
    ffmpeg('-i', raw, '-c', 'copy', '-movflags', '+faststart', path)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size*share)])


def holed(path, codec='libx264', fill=b'\0'):
    whole = bytearray(encode(path.with_suffix('.src'+path.suffix), codec, g=30).read_bytes())
    a, b = len(whole)//3, len(whole)//2
    whole[a:b] = fill*(b-a)
    path.write_bytes(whole)


def sound(path):
    with av.open(str(path), 'w') as file:
        s = file.add_stream('aac', rate=44100)
        f = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format='fltp', layout='mono')
        f.rate = 44100
        file.mux(s.encode(f))
        file.mux(s.encode())


def no_frames(path):
    with av.open(str(path), 'w') as file:
        s = file.add_stream('libx264', rate=25)
        s.height, s.width, s.pix_fmt = 32, 32, 'yuv420p'
        file.start_encoding()
        file.mux(s.encode())


def archive(path):
    import zipfile
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr('clip.mp4', b'x'*999)


# name -> (makes the file, what the message must say)
BROKEN = {
    'empty.mp4': (lambda p: p.touch(), 'empty'),
    'random.mp4': (lambda p: p.write_bytes(np.random.default_rng(0).bytes(9999)), 'not a video'),
    'text.mp4': (lambda p: p.write_text('not a film\n' * 99), 'not a video'),
    'page.mp4': (lambda p: p.write_text('<!DOCTYPE html><p>404</p>'), 'HTML'),
    'page_upper.mp4': (lambda p: p.write_text('\n  <HTML><body>moved'), 'HTML'),
    'json.mp4': (lambda p: p.write_text('{"error": "quota"}'), 'not a video'),
    'no_moov.mp4': (lambda p: cut(p, 0.5), 'truncated'),
    'head_only.mp4': (lambda p: cut(p, 0.02), ''),
    'one_byte.mp4': (lambda p: p.write_bytes(b'\0'), 'not a video'),
    'faststart_cut.mp4': (faststart_cut, 'damaged'),
    'holed.mp4': (holed, 'damaged'),
    'holed_ff.mp4': (lambda p: holed(p, fill=b'\xff'), 'damaged'),
    'sound.mp4': (sound, 'no video stream'),
    'wav.mp4': (lambda p: p.write_bytes(b'RIFF$\0\0\0WAVEfmt '), 'not a video'),
    'no_frames.mp4': (no_frames, ''),
    'zip.mp4': (archive, 'not a video'),
    'list.mp4': (lambda p: p.write_text("ffconcat version 1.0\nfile 'other.mp4'\n"), 'not a video'),
    'hls.mp4': (
        lambda p: p.write_text('#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n'),
        'not a video',
    ),
    'pickle.mp4': (lambda p: p.write_bytes(b'\x80\x04\x95' + b'\0' * 500), 'not a video'),
    'zeros.mp4': (lambda p: p.write_bytes(bytes(5000)), 'not a video'),
    'part.mp4.part.mp4': (lambda p: cut(p, 0.9), 'truncated'),
    'sdp.mp4': (
        lambda p: p.write_text('v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n'),
        'not a video',
    ),
}


def mutate(raw, rng):
    "Flip, overwrite, remove, insert or cut."
    b, kind = bytearray(raw), rng.integers(5)
    at, n = int(rng.integers(len(b))), int(rng.integers(1, 200))
    if kind == 0:
        b[at] ^= 1 << int(rng.integers(8))
    if kind == 1:
        b[at:at+n] = rng.bytes(len(b[at:at+n]))
    if kind == 2:
        del b[at:at+n]
    if kind == 3:
        b[at:at] = rng.bytes(n)
    if kind == 4:
        del b[max(at, len(b)//4):]
    return bytes(b)
