"Clips: real files give what is known of them, and the motion clips are what they claim to be."
import numpy as np
import pytest

from vidcls.core import ArgumentError, LeakageError, VideoReadError
from vidcls.data.datasets import from_csv
from vidcls.data.decode import probe, read_frames
from vidcls.data.synthetic import MOVES, make_motion_clips, motion_clip

# decoded frames, frames per second, upright width and height: as the clips' own projects assert them
KNOWN = {
    'v_SoccerJuggling_g23_c01.avi': (240, 29.97, 320, 240),
    'v_SoccerJuggling_g24_c01.avi': (251, 29.97, 320, 240),
    'RATRACE_wave_f_nm_np1_fr_goo_37.avi': (72, 30, 560, 240),
    'TrumanShow_wave_f_nm_np1_fr_med_26.avi': (48, 30, 432, 240),
    'hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi': (83, 30, 320, 240),
    'R6llTwEh07w.mp4': (303, 30, 340, 256),
    'mmaction2_test.mp4': (300, 30, 340, 256),
    'mmaction2_demo.mp4': (280, 28, 340, 256),
    'v_ApplyEyeMakeup_g01_c01.avi': (164, 25, 320, 240),
    'flipping_a_pancake.mkv': (310, 30, 426, 240),
    'unordered.mov': (4, 32, 50, 50),
    'video_0.mov': (3, 30, 568, 320),
    'video_90.mov': (3, 30, 320, 568),
    'video_180.mov': (3, 30, 568, 320),
    'video_270.mov': (3, 30, 320, 568),
}


@pytest.mark.parametrize('name', KNOWN)
def test_probe_of_real_clips(real_data, name):
    info = probe(real_data/'single'/name)
    assert (info.n_frames, round(info.fps, 2), info.width, info.height) == KNOWN[name]


@pytest.mark.parametrize('name', KNOWN)
def test_backends_give_the_same_frames(real_data, name):
    path = real_data/'single'/name
    idxs = [KNOWN[name][0]-1, 0, KNOWN[name][0]//2, 0]
    a, b = (read_frames(path, idxs, backend=k).astype(int) for k in ('pyav', 'decord'))
    assert a.shape == b.shape and np.abs(a-b).max() <= 2


@pytest.mark.parametrize('backend', ['pyav', 'decord', 'torchcodec'])
def test_reference_frames(real_data, backend):
    "torchcodec's own frames of a file whose best video stream is its fourth."
    if backend == 'torchcodec':
        try:
            import torchcodec.decoders                                    # noqa: F401
        except (ImportError, RuntimeError, OSError):
            pytest.skip('torchcodec, or its FFmpeg, is not installed')
    folder = real_data/'torchcodec'
    refs = sorted(folder.glob('*stream3.frame*.npy'))
    idxs = [int(r.stem[-6:]) for r in refs]
    for frame, ref in zip(read_frames(folder/'nasa_13013.mp4', idxs, backend=backend), refs):
        want = np.load(ref)
        want = want.transpose(1, 2, 0) if want.shape[0] == 3 else want
        assert np.abs(frame.astype(int) - want).max() <= 2


def test_corrupted_names_the_file(real_data):
    path = real_data/'single'/'corrupted.mp4'
    with pytest.raises(VideoReadError, match='corrupted.mp4: damaged after 28 readable frames'):
        read_frames(path, [probe(path).n_frames-1])


def test_real_tables(real_data):
    surv = from_csv(real_data/'surv_fight'/'clips.csv', group='source')
    assert len(surv) == 206 and surv.splits == ['train', 'valid', 'test'] and surv.df.group.nunique() == 35
    actors = from_csv(real_data/'weizmann'/'clips.csv', group='actor')
    assert set(actors.select_split('test').df.group) == {'lena', 'moshe', 'shahar'}


def test_a_random_split_leaks(real_data, tmp_path):
    lines = (real_data/'surv_fight'/'clips.csv').read_text().splitlines()
    mixed = [l.rsplit(',', 1)[0] + (',test' if i % 3 == 0 else ',train') for i, l in enumerate(lines[1:])]
    (tmp_path/'mixed.csv').write_text('\n'.join([lines[0], *mixed]))
    with pytest.raises(LeakageError, match='is in test and train'):
        from_csv(tmp_path/'mixed.csv', root=real_data/'surv_fight', group='source')


def test_motion_files_hold_the_frames(tmp_path):
    "What a file decodes to is the clip, up to the codec's loss, whatever its label."
    root = make_motion_clips(tmp_path/'m', n_groups=2)
    for label in MOVES:
        path = root/label/f'{label}_g0001_c01.mp4'
        assert probe(path).n_frames == 16
        assert np.abs(read_frames(path, range(16)).astype(int) - motion_clip(label, 1)).mean() < 3


def test_a_frame_does_not_know_its_label():
    "A linear readout of single frames, tested on half of 160 scenes, stays at chance (99.9 % limits)."
    from sklearn.linear_model import RidgeClassifier

    X = np.stack(
        [
            motion_clip(l, g, n_frames=5, seed=7)[-1, ::4, ::4].mean(-1).ravel()
            for g in range(160)
            for l in MOVES
        ]
    )
    y = np.tile(np.arange(8), 160)
    right = (RidgeClassifier(100.).fit(X[:640], y[:640]).predict(X[640:]) == y[640:]).mean()
    assert abs(right - .125) < 3.29*(.125*.875/640)**.5


def test_a_difficulty_has_limits():
    with pytest.raises(ArgumentError, match='difficulty=2'):
        motion_clip('up', difficulty=2)
