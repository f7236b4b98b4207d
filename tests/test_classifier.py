"Classifiers: asked in every form, saved beside kills and other savers; what they cannot hold is said."

import copy, http.server, io, json, os, signal, stat, subprocess, sys, threading, time, warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vidcls.calibrate import Calibration
from vidcls.training.checkpoint import save_checkpoint
from vidcls.core import ArgumentError, CheckpointError, ClipSpec, LabelError, VideoFolderError, VideoReadError
from vidcls.data.datasets import from_folder
from vidcls.data.loaders import loader
from vidcls.data.synthetic import make_motion_clips
from vidcls.evaluate import Views, evaluate, load_record, save_record
from vidcls.models.weights import save_transformers
from vidcls.models.zoo import MODELS, create_model, register_model
from vidcls.predict import Classifier, EnsembleClassifier, check_target
from vidcls.show import encode_h264


def moving(n=20, h=48, w=64):
    "A bright square that goes to the right, over grey."
    clip = np.full((n, h, w, 3), 90, np.uint8)
    for i, f in enumerate(clip):
        f[10:30, 2 * i : 2 * i + 16] = (40, 200, 220)
    return clip


@pytest.fixture(scope='module')
def clf():
    torch.manual_seed(0)
    return Classifier(create_model('videomae_tiny', n_classes=3), ['a', 'b', 'c'])


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp('v') / 'clip.mp4'
    encode_h264(path, moving(), 25, {'qp': '10'})
    return path


# ---------------------------------------------------------------- asking


@pytest.mark.parametrize('form', ['text', 'bytes', 'bytearray', 'BytesIO', 'open file', 'half-read BytesIO'])
def test_a_file_in_every_form(clf, video, form):
    raw = video.read_bytes()
    half = io.BytesIO(raw)
    half.read(100)
    with open(video, 'rb') as f:
        given = {
            'text': str(video),
            'bytes': raw,
            'bytearray': bytearray(raw),
            'BytesIO': io.BytesIO(raw),
            'open file': f,
            'half-read BytesIO': half,
        }[form]
        assert clf.predict(given) == clf.predict(video)
        assert clf.predict([given, video]) == [clf.predict(video)] * 2


@pytest.mark.parametrize(
    'form', ['tensor', 'tensor TCHW', 'pictures', 'grey pictures', 'arrays', 'tensors', 'tuple']
)
def test_frames_in_every_form(clf, form):
    clip = moving()
    if form == 'grey pictures':
        clip = np.repeat(clip[..., :1], 3, -1)
    given = {
        'tensor': lambda: torch.tensor(clip),
        'tensor TCHW': lambda: torch.tensor(clip).permute(0, 3, 1, 2),
        'pictures': lambda: [Image.fromarray(f) for f in clip],
        'grey pictures': lambda: [Image.fromarray(f[..., 0]) for f in clip],
        'arrays': lambda: list(clip),
        'tensors': lambda: list(torch.tensor(clip)),
        'tuple': lambda: tuple(clip),
    }[form]()
    assert clf.predict(given) == clf.predict(clip)
    assert clf.predict([clip, clip]) == [clf.predict(clip)] * 2  # a list of clips stays one


@pytest.mark.parametrize(
    'given, says',
    [
        (None, 'video is a NoneType; accepted: a path, the bytes'),
        (3.5, 'video is a float'),
        ({'path': 'x.mp4'}, 'video is a dict'),
        (torch.zeros(8, 48, 64, 3), 'frames are torch.float32; expected uint8'),
        (np.zeros((8, 48, 64, 3)), 'frames are float64'),
        (torch.zeros(8, 48, 64, 3, dtype=torch.bfloat16), 'bfloat16'),
        (torch.zeros(1, 8, 48, 64, 3, dtype=torch.uint8), 'a batch; give list'),
        (torch.zeros(0, 48, 64, 3, dtype=torch.uint8), 'shape'),
        (torch.zeros(8, 48, 64, dtype=torch.uint8), 'shape'),
        ([Image.new('RGB', (64, 48)), Image.new('RGB', (60, 48))], 'expected one'),
        (Image.new('RGB', (64, 48)), 'a list of pictures'),
        ('https://example.org/a.mp4', r'nothing is fetched unasked: predict\(…, url=True\)'),
        (Path('https://example.org/a.mp4'), 'is an address'),
        ('s3://bucket/a.mp4', 'is an address'),
        ('rtsp://camera/1', 'is an address'),
    ],
)
def test_what_is_no_video(clf, given, says):
    with pytest.raises(ArgumentError, match=says):
        clf.predict(given)


def test_files_that_cannot_be_read(clf, tmp_path):
    with pytest.raises(VideoFolderError, match='find_videos'):
        clf.predict(tmp_path)
    with pytest.raises(FileNotFoundError):
        clf.predict(tmp_path / 'gone.mp4')
    for junk in (b'', b'no video at all', os.urandom(1000)):
        with pytest.raises(VideoReadError):
            clf.predict(junk)


def test_an_address_on_request(clf, video):
    "A real server on this machine; without url=True it is never asked."
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *a):
            super().__init__(*a, directory=str(video.parent))

        def log_message(self, *a):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f'http://127.0.0.1:{server.server_port}/clip.mp4'
        with pytest.raises(ArgumentError):
            clf.predict(url)
        assert asked == []
        assert clf.predict(url, url=True) == clf.predict(Path(url), url=True) == clf.predict(video) and asked
        with pytest.raises(ArgumentError, match='accepted with url=True'):
            clf.predict('ftp://127.0.0.1/clip.mp4', url=True)
    finally:
        server.shutdown()


def test_a_long_video_is_told_once(clf, tmp_path, video):
    long = tmp_path / 'long.mp4'
    encode_h264(long, np.repeat(moving(20), 5, 0), 1, {'qp': '40'})  # 100 frames, one a second
    fresh = Classifier(clf.model, clf.labels)
    with pytest.warns(
        UserWarning, match=r'is 100 s long, and the model sees 8 frames spread over all of it, one every 12 s'
    ) as told:
        fresh.predict([long, long])
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        fresh.predict(long)
        Classifier(clf.model, clf.labels).predict(video)  # short ones without a remark


# ---------------------------------------------------------------- precision and place


@pytest.mark.parametrize('kind, near', [('bfloat16', 0.05), ('half', 0.01), ('double', 1e-5)])
def test_other_precisions(clf, video, tmp_path, kind, near):
    "The answer is about that of single precision, and the precision is saved."
    low = Classifier(getattr(copy.deepcopy(clf.model), kind)(), clf.labels)
    try:
        p = low.probs(video)
    except ArgumentError as e:
        assert 'take model.float()' in str(e)
        return
    assert np.abs(p - clf.probs(video)).max() < near and p.sum() == pytest.approx(1)
    again = Classifier.load(low.save(tmp_path / 'c'))
    assert {w.dtype for w in again.model.parameters()} == {w.dtype for w in low.model.parameters()}
    assert (again.probs(video) == p).all()


def test_devices_by_name(clf, tmp_path, video):
    folder = clf.save(tmp_path / 'c')
    assert Classifier.load(folder, 'cpu').predict(video) == Classifier.load(
        folder, device=torch.device('cpu')
    ).predict(video)
    with pytest.raises(ArgumentError, match="device='gpu'"):
        Classifier.load(folder, 'gpu')
    if not torch.cuda.is_available():
        with pytest.raises(ArgumentError, match='not available here'):
            Classifier.load(folder, 'cuda')
        with pytest.raises(ArgumentError, match='not available here'):
            Classifier.load(folder, 'cuda:1')
    else:
        assert Classifier.load(folder, 'cuda').predict(video)[0]['label'] == clf.predict(video)[0]['label']


def test_a_model_in_training_mode_answers_as_in_evaluation(clf, video):
    model = create_model('videomae_tiny', n_classes=3, drop_path=0.5)
    c = Classifier(model, 'a b c'.split())
    first = c.predict(video)
    model.train()
    assert c.predict(video) == first


# ---------------------------------------------------------------- what it holds


def test_wrappers_are_taken_off(clf, video, tmp_path):
    model = copy.deepcopy(clf.model)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for wrapped in (
        torch.nn.DataParallel(model),
        averaged,
        torch.compile(model),
        torch.nn.DataParallel(torch.compile(model)),
    ):
        c = Classifier(wrapped, clf.labels)
        assert c.predict(video) == clf.predict(video)
        assert Classifier.load(c.save(tmp_path / 'c')).predict(video) == clf.predict(video)


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.spec, self.n_classes = torch.nn.Linear(3, 3), ClipSpec(n_frames=4, size=32), 3

    def forward(self, x):
        return self.head(x.mean((2, 3, 4)))


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.ao.quantization.quantize_dynamic(
            create_model('videomae_tiny', n_classes=3).eval(), {torch.nn.Linear}
        )


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.jit.trace(Own(), torch.zeros(1, 3, 4, 32, 32))


def on_meta():
    with torch.device('meta'):
        return create_model('videomae_tiny', n_classes=3)


@pytest.mark.parametrize(
    'make, says',
    [
        (quantised, 'is quantised'),
        (scripted, 'TorchScript'),
        (on_meta, "device 'meta'"),
        (lambda: torch.nn.Linear(3, 3), r'without \.spec and \.n_classes'),
        (lambda: 'runs/train', 'Classifier.load reads'),
        (lambda: None, 'model is a NoneType'),
        (lambda: create_model, 'model is a function'),
    ],
)
def test_what_it_cannot_hold(make, says):
    with pytest.raises(ArgumentError, match=says):
        Classifier(make(), ['a', 'b', 'c'])


@pytest.mark.parametrize(
    'labels, says',
    [
        ('abc', 'labels is a str'),
        ({0: 'a', 1: 'b', 2: 'c'}, 'labels is a dict'),
        (['a', 'b', None], 'holds None'),
        (['a', 'b'], 'has 2 names'),
        (['a', 'a', 'b'], 'same name twice'),
        (None, 'carries no class names'),
        (3, 'labels is a int'),
    ],
)
def test_labels_that_are_none(labels, says):
    with pytest.raises(LabelError, match=says):
        Classifier(create_model('videomae_tiny', n_classes=3), labels)


def test_labels_that_the_model_carries():
    model = create_model('videomae_tiny', n_classes=3)
    model.labels = ['x', 'y', 'z']
    assert Classifier(model).labels == ['x', 'y', 'z']
    assert Classifier(create_model('videomae_tiny', n_classes=3), [0, np.int64(1), 2]).labels == [
        '0',
        '1',
        '2',
    ]


def test_a_model_of_ones_own_answers_and_is_not_saved(video, tmp_path):
    own = Classifier(Own(), ['a', 'b', 'c'])
    assert len(own.predict(video)) == 3
    with pytest.raises(ArgumentError, match='register_model'):
        own.save(tmp_path / 'c')
    changed = create_model('videomae_tiny', n_classes=3)
    changed.blocks = changed.blocks[:1]  # made by create_model, and then changed
    with pytest.raises(ArgumentError, match='other layers'):
        Classifier(changed, ['a', 'b', 'c']).save(tmp_path / 'c')
    broken = create_model('videomae_tiny', n_classes=3)
    with torch.no_grad():
        broken.head.bias[0] = float('nan')
    with pytest.raises(ArgumentError, match=r'not finite \(head.bias\)'):
        Classifier(broken, ['a', 'b', 'c']).save(tmp_path / 'c')
    assert not (tmp_path / 'c').exists()  # nothing half-made is left


def test_a_registered_model_is_saved_and_loaded(video, tmp_path):
    "Where it is not registered, the error says what is missing."

    def own_net(n_classes=3, spec=None):
        return Own()

    register_model('own_net', own_net)
    try:
        clf = Classifier(create_model('own_net', n_classes=3), ['a', 'b', 'c'])
        folder = clf.save(tmp_path / 'c')
        assert Classifier.load(folder).predict(video) == clf.predict(video)
    finally:
        MODELS.pop('own_net')
    with pytest.raises(CheckpointError, match=r"'own_net'.*register_model"):
        Classifier.load(folder)


def test_the_folder_of_an_older_vidcls(clf, tmp_path, video):
    "Format 1 knew no calibration."
    folder = clf.save(tmp_path / 'c')
    cfg = json.loads((folder / 'config.json').read_text()) | {'format': 1, 'vidcls': '0.1'}
    (folder / 'config.json').write_text(json.dumps(cfg))
    assert Classifier.load(folder).predict(video) == clf.predict(video)


# ---------------------------------------------------------------- saving


def test_names_of_transformers(clf, tmp_path, video):
    assert Classifier.from_pretrained(clf.save_pretrained(tmp_path / 'c')).predict(video) == clf.predict(
        video
    )
    team = EnsembleClassifier([clf, clf])
    for refused in (
        lambda: team.save_pretrained(tmp_path / 't'),
        lambda: EnsembleClassifier.from_pretrained(tmp_path / 'c'),
    ):
        with pytest.raises(ArgumentError, match='an ensemble is not'):
            refused()


def test_both_files_are_as_open_as_others(clf, tmp_path):
    old = os.umask(0o027)
    try:
        clf.save(tmp_path / 'c')
    finally:
        os.umask(old)
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / 'c').iterdir()} == {0o640}
    save_checkpoint(tmp_path / 'k', {'x': torch.ones(2)}, 1)
    assert len({p.stat().st_mode for p in (tmp_path / 'k' / 'step_000000001').iterdir()}) == 1


def test_tied_weights_and_a_temperature(tmp_path, video):
    model = create_model('videomae_tiny', n_classes=3)
    model.blocks[1].load_state_dict(model.blocks[0].state_dict())
    for a, b in zip(model.blocks[0].parameters(), model.blocks[1].parameters()):
        b.data = a.data
    c = Classifier(model, ['a', 'b', 'c'], Calibration(temperature=2.0, threshold=0.2, none_below=-3.0))
    again = Classifier.load(c.save(tmp_path / 'c'))
    assert again.decide(video) == c.decide(video) and again.calibration == c.calibration
    assert json.loads((tmp_path / 'c' / 'config.json').read_text())['format'] == 2


def test_other_files_stay(clf, tmp_path):
    "A note beside the classifier stays, and a folder in transformers' format is not overwritten."
    (clf.save(tmp_path / 'c') / 'README.md').write_text('mine')
    clf.save(tmp_path / 'c')
    assert (tmp_path / 'c' / 'README.md').read_text() == 'mine'
    save_transformers(clf.model, tmp_path / 'hub')
    for taken in (tmp_path / 'hub', tmp_path):
        with pytest.raises(ArgumentError, match='nothing is overwritten'):
            clf.save(taken)
    with pytest.raises(ArgumentError, match='is a file'):
        clf.save(tmp_path / 'c' / 'README.md' / 'x')


SAVER = """
import os, sys, torch
from vidcls.models.zoo import create_model
from vidcls.predict import Classifier
torch.set_num_threads(1)
def made(k):
    m = create_model('videomae_tiny', n_classes=3)
    with torch.no_grad():
        for p in m.parameters(): p.fill_(k/100)
    return Classifier(m, [f'{c}{k}' for c in 'abc'])
two = [made(k) for k in (int(sys.argv[2]), int(sys.argv[2])+1)]
for line in sys.stdin:                                            # forks, so that torch is imported once
    pid = os.fork()
    if not pid:
        while True:
            for c in two: c.save(sys.argv[1])
    print(pid, flush=True); os.waitpid(pid, 0); print('gone', flush=True)
"""


def whole(folder):
    "The number of the classifier that lies there; its labels and its weights have to agree."
    c = Classifier.load(folder)
    k = int(c.labels[0][1:])
    assert c.labels == [f'a{k}', f'b{k}', f'c{k}'] and c.model.head.bias[0].item() == pytest.approx(k / 100)
    return k


def zygote(folder, k):
    return subprocess.Popen(
        [sys.executable, '-c', SAVER, str(folder), str(k)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == 'nt', reason='kills by signal')
def test_forty_kills_leave_a_classifier(tmp_path):
    "Killed at random moments, the old one or the new one is there; the next save removes what is left."
    folder, rng, rests = tmp_path / 'c', np.random.default_rng(0), 0
    run = zygote(folder, 1)
    try:
        for i in range(40):
            print('go', file=run.stdin, flush=True)
            pid = int(run.stdout.readline())
            while i == 0 and not (folder / 'config.json').exists():
                time.sleep(0.01)
            time.sleep(0.005 + 0.06 * rng.random())
            os.kill(pid, signal.SIGKILL)
            assert run.stdout.readline() == 'gone\n'
            assert whole(folder) in (1, 2)
            rests += len(list(folder.iterdir())) > 2
        assert rests > 3  # it was met while writing
    finally:
        run.kill()
    Classifier.load(folder).save(folder)
    assert sorted(p.name for p in folder.iterdir()) == ['config.json', 'model.safetensors']
    assert [p.name for p in tmp_path.iterdir()] == ['c']


def save_ended_at(clf, folder, at):
    "The exit code of a child that saves, and ends without a word before its `at`-th rename."
    pid = os.fork()
    if not pid:
        replace, count = os.replace, [0]

        def dying(a, b):
            count[0] += 1
            if count[0] == at:
                os._exit(9)
            replace(a, b)

        os.replace = dying
        clf.save(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize('at', range(1, 5))
def test_ended_between_any_two_renames(clf, tmp_path, at):
    "Each moment of a replacement: the old one or the new one is there, and the next save is whole."
    folder = clf.save(tmp_path / 'c')
    new = Classifier(copy.deepcopy(clf.model), clf.labels)
    with torch.no_grad():
        new.model.head.bias.add_(1)
    assert save_ended_at(new, folder, at) == (9 if at < 4 else 0)
    moved = Classifier.load(folder).model.head.bias - clf.model.head.bias
    assert torch.allclose(moved, torch.full_like(moved, 0.0 if at < 3 else 1.0))
    clf.save(folder)
    assert sorted(p.name for p in folder.iterdir()) == ['config.json', 'model.safetensors']
    assert torch.equal(Classifier.load(folder).model.head.bias, clf.model.head.bias)


@pytest.mark.skipif(os.name == 'nt', reason='forks')
@pytest.mark.parametrize('at', range(1, 4))
def test_first_save_ended_between_renames(clf, tmp_path, at):
    "What a first save leaves, ended before its n-th rename, is no stranger's: the next save may replace it."
    folder = tmp_path / 'c'
    assert save_ended_at(clf, folder, at) == 9
    assert list(folder.iterdir())
    clf.save(folder)
    assert sorted(p.name for p in folder.iterdir()) == ['config.json', 'model.safetensors']
    assert torch.equal(Classifier.load(folder).model.head.bias, clf.model.head.bias)


def test_config_put_there_while_a_save_looks(clf, tmp_path, monkeypatch):
    "Another save ends while this one lists the folder: it holds a classifier, and may be replaced."
    folder = clf.save(tmp_path / 'c')
    config = (folder / 'config.json').read_text()
    (folder / 'config.json').unlink()
    iterdir = Path.iterdir

    def slow(self):
        yield from iterdir(self)
        if self == folder:
            (folder / 'config.json').write_text(config)

    monkeypatch.setattr(Path, 'iterdir', slow)
    assert check_target(folder) == folder


@pytest.mark.skipif(os.name == 'nt', reason='forks')
def test_two_savers_and_a_reader(tmp_path):
    "Two processes replace one classifier without pause; a reader finds one of four, whole, each time."
    folder = tmp_path / 'c'
    runs = [zygote(folder, k) for k in (1, 5)]
    try:
        for r in runs:
            print('go', file=r.stdin, flush=True)
        pids = [int(r.stdout.readline()) for r in runs]
        end, seen = time.time() + 60, set()
        while not (folder / 'config.json').exists() and time.time() < end:
            time.sleep(0.01)
        end = time.time() + 4
        while time.time() < end:
            seen.add(whole(folder))
        for pid in pids:
            os.kill(pid, 0)  # both are still at it: no error ended them
        assert len(seen) > 1
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    finally:
        for r in runs:
            r.kill()
    assert whole(folder) in (1, 2, 5, 6)


def test_a_rest_of_the_same_number(clf, tmp_path):
    "In a container each process is number 1: what an earlier one left neither stops the save nor stays."
    folder = clf.save(tmp_path / 'c')
    for name in (
        f'.classifier.{os.getpid()}',
        f'.classifier.{os.getpid()}.0a0b0c0d.0',
        '.classifier.1.0a0b0c0d.3',
    ):
        (folder / name).mkdir()
        (folder / name / 'model.safetensors').write_bytes(b'half')
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new' / f'.classifier.{os.getpid()}.0a0b0c0d.0').mkdir()
    for f in (folder, tmp_path / 'new'):
        clf.save(f)
        assert sorted(p.name for p in f.iterdir()) == ['config.json', 'model.safetensors']


def test_a_full_disk(clf, tmp_path):
    "A real file system of one megabyte: the old classifier stays, the error says how much was needed."
    place = tmp_path / 'small'
    place.mkdir()
    if subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', place], capture_output=True
    ).returncode:
        pytest.skip('file systems cannot be mounted here')
    small = Classifier(create_model('videomae_tiny', n_classes=3, depth=1), ['a', 'b', 'c'])
    try:
        small.save(place / 'c')
        for where in ('c', 'd'):
            with pytest.raises(
                CheckpointError, match=r'no space; the classifier needs \d+ MB and \d+ MB are free'
            ):
                Classifier(create_model('videomae_tiny', n_classes=3, depth=12), ['a', 'b', 'c']).save(
                    place / where
                )
        assert [p.name for p in place.iterdir()] == ['c'] and len(list((place / 'c').iterdir())) == 2
        Classifier.load(place / 'c')
        subprocess.run(['mount', '-o', 'remount,ro', place], check=True)
        with pytest.raises((ArgumentError, CheckpointError), match='no permission|could not be written'):
            small.save(place / 'c')
        Classifier.load(place / 'c')  # reading needs no permission to write
    finally:
        subprocess.run(['umount', place])


@pytest.mark.skipif(os.name == 'nt', reason='limits of a process')
def test_a_file_that_may_not_grow(clf, tmp_path):
    "The same for everybody: the system refuses more than 100 KB in a file."
    folder = clf.save(tmp_path / 'c')
    code = (
        "import resource, signal, sys; from vidcls.predict import Classifier\n"
        "from vidcls.core import CheckpointError\n"
        "c = Classifier.load(sys.argv[1]); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: c.save(sys.argv[1])\nexcept CheckpointError as e: print('refused:', e)"
    )
    out = subprocess.run([sys.executable, '-c', code, folder], capture_output=True, text=True)
    assert out.stdout.startswith('refused:') and 'the classifier could not be written' in out.stdout, (
        out.stderr
    )
    assert len(list(folder.iterdir())) == 2 and Classifier.load(folder).labels == clf.labels


# ---------------------------------------------------------------- loading


def edited(**changes):
    "A fault: other entries in config.json."
    def change(folder):
        path = folder/'config.json'
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return change


def one_bit_flipped(folder):
    path = folder/'model.safetensors'
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    'fault, says',
    [
        (one_bit_flipped, 'checksum'),
        (lambda f: (f/'model.safetensors').unlink(), 'incomplete'),
        (lambda f: (f/'config.json').write_text('{'), 'no classifier'),
        (edited(labels=None), 'labels missing'),
        (edited(format=9), 'newer vidcls'),
        (edited(labels=['a', 'b', 'c', 'd']), 'do not fit'),
        (edited(calibration={'warmth': 3}), 'calibration is not one'),
    ],
)
def test_each_damage_has_a_sentence_of_its_own(clf, tmp_path, fault, says):
    fault(clf.save(tmp_path/'clf'))
    with pytest.raises(CheckpointError, match=says):
        Classifier.load(tmp_path/'clf')


def test_a_folder_of_something_else_is_no_place_for_a_classifier(clf, tmp_path, video):
    (tmp_path/'motion').mkdir()
    (tmp_path/'motion'/'clip.mp4').write_bytes(video.read_bytes())
    with pytest.raises(ArgumentError, match='holds no classifier'):
        clf.save(tmp_path/'motion')
    with pytest.raises(CheckpointError, match='nowhere'):
        Classifier.load(tmp_path/'nowhere')
    for _ in range(2):                                     # saving again replaces
        clf.save(tmp_path/'clf')
    assert sorted(p.name for p in (tmp_path/'clf').iterdir()) == ['config.json', 'model.safetensors']
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]


def test_frames_of_a_short_video_are_repeated(clf):
    assert clf.predict(moving(4)) == clf.predict(np.repeat(moving(4), 4, 0))


def test_one_level_down_and_what_else_is_given(clf, tmp_path, video):
    run = tmp_path / 'runs' / 'train'
    clf.save(run / 'classifier')
    save_checkpoint(run / 'checkpoints', {'x': torch.ones(1)}, 3)
    assert (
        Classifier.load(run).predict(video) == Classifier.load(str(run)).predict(video) == clf.predict(video)
    )
    save_transformers(clf.model, tmp_path / 'hub')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'half').mkdir()
    (tmp_path / 'half' / 'model.safetensors').write_bytes(b'x')
    save_checkpoint(tmp_path / 'begun' / 'checkpoints', {'x': torch.ones(1)}, 3)
    (tmp_path / 'w.safetensors').write_bytes(b'x')
    for given, says in [
        (tmp_path / 'gone', 'no such folder'),
        (tmp_path / 'hub', "transformers' format"),
        (tmp_path / 'empty', 'no config.json'),
        (tmp_path / 'half', 'what the weights mean, is missing'),
        (run / 'checkpoints', f'its classifier is {run}/classifier'),
        (run / 'checkpoints' / 'step_000000003', f'its classifier is {run}/classifier'),
        (tmp_path / 'begun', 'not saved a classifier yet'),
        (tmp_path / 'begun' / 'checkpoints' / 'step_000000003', 'not saved a classifier yet'),
        (run / 'classifier' / 'model.safetensors', f'give its folder, {run}/classifier'),
        (tmp_path / 'w.safetensors', 'pretrained=FILE'),
        (tmp_path / 'runs', f'there is one in {run}'),
        ('owner/name', 'no such folder'),
    ]:
        with pytest.raises(CheckpointError, match=says):
            Classifier.load(given)


DEEP = '[' * 100_000 + ']' * 100_000
CALIBRATIONS = [
    {'temperature': float('nan')},
    {'temperature': None},
    {'temperature': 10**400},
    {'temperature': '2'},
    {'threshold': 'x'},
    {'threshold': [1]},
    {'none_below': {}},
    {'none_below': float('inf')},
    {'n': 'x'},
    {'keep': 'x'},
    {'fitted_on': 3},
    {'error': []},
    {'temperature': True},
]
SPECS = [
    {'mean': None},
    {'mean': 'x'},
    {'mean': [[[1]], 2]},
    {'std': None},
    {'std': [0, 0, 0]},
    {'std': float('nan')},
    {'mean': [1, 2]},
    {'n_frames': 10**9},
    {'n_frames': 1.5},
    {'n_frames': None},
    {'n_frames': True},
    {'size': '32'},
    {'size': 10**400},
    {'sampling': ['x']},
    {'sampling': 'time'},
    {'other': 1},
    {'step_s': float('nan'), 'sampling': 'time'},
    {'channels': {}},
    {'mean': 10**400},
]


@pytest.mark.parametrize(
    'change',
    [
        *(
            {'labels': l}
            for l in (
                [{}, {}, {}],
                [1, 2, 3],
                ['a', 'b', None],
                ['a', 'a', 'b'],
                [],
                ['a'],
                'abc',
                {'0': 'a'},
                [['a'], ['b'], ['c']],
                None,
            )
        ),
        *({'spec': s} for s in SPECS),
        *({'calibration': c} for c in [*CALIBRATIONS, [], 'x', 3, {'warmth': 1}]),
        *(
            {'arguments': a}
            for a in (
                {'pretrained': 'owner/x'},
                {'name': 'i3d'},
                {'n_classes': 4},
                {'spec': {}},
                {'unknown': 1},
                {'depth': 'x'},
                {'depth': []},
                [],
                None,
            )
        ),
        *({'model': m} for m in ('unknown', '../../x', '', 3, None)),
        *({'format': f} for f in (9, '2', True, None)),
        *({'sha256': s} for s in ('', 3, '../../etc/passwd', 'x' * 64)),
    ],
    ids=lambda c: json.dumps(c)[:60],
)
def test_a_crafted_config(clf, tmp_path, change, monkeypatch):
    "Every fault is a CheckpointError that names the folder, and nothing is fetched."
    import socket

    monkeypatch.setattr(socket, 'getaddrinfo', lambda *a, **k: pytest.fail('the network was asked'))
    folder = clf.save(tmp_path / 'c')
    cfg = json.loads((folder / 'config.json').read_text())
    for k, v in change.items():
        cfg[k] = {**cfg[k], **v} if k == 'spec' else v
    (folder / 'config.json').write_text(json.dumps(cfg))
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        Classifier.load(folder)


@pytest.mark.parametrize(
    'text',
    [
        '[]',
        '3',
        'null',
        '{}',
        '{',
        '',
        DEEP,
        '{"a":' * 50_000,
        '\ufeff{}',
        '{"format": 1e999}',
        '[' + '9' * 5000 + ']',
    ],
    ids=range(11),
)
def test_a_config_that_is_none(clf, tmp_path, text):
    folder = clf.save(tmp_path / 'c')
    (folder / 'config.json').write_text(text, encoding='utf-8')
    with pytest.raises(CheckpointError, match='config.json'):
        Classifier.load(folder)
    (folder / 'config.json').write_bytes(b'\xff\xfe{}')
    with pytest.raises(CheckpointError, match='no classifier'):
        Classifier.load(folder)
    (folder / 'config.json').unlink()
    (folder / 'config.json').mkdir()
    with pytest.raises(CheckpointError):
        Classifier.load(folder)


def test_a_config_that_is_huge(clf, tmp_path):
    folder = clf.save(tmp_path / 'c')
    with open(folder / 'config.json', 'r+b') as f:
        f.truncate(20 * 2**30)  # sparse: 20 GB that take no room
    with pytest.raises(CheckpointError, match='21475 MB'):
        Classifier.load(folder)


def test_every_flipped_bit_of_the_weights_is_noticed(clf, tmp_path):
    folder = clf.save(tmp_path / 'c')
    f = folder / 'model.safetensors'
    raw = f.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(raw), 60):
        f.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(CheckpointError, match='checksum differs'):
            Classifier.load(folder)
    f.write_bytes(raw)
    Classifier.load(folder)


@pytest.mark.parametrize('folder', [None, 3, '', b'x'], ids=str)
def test_what_is_no_path(clf, folder):
    for ask in (Classifier.load, clf.save):
        with pytest.raises(ArgumentError, match='accepted: the path of a folder'):
            ask(folder)


def test_paths_that_the_system_refuses(clf, tmp_path):
    (tmp_path/'loop').symlink_to(tmp_path/'loop')
    for path in ('n'*300, 'a\0b', '~nobody_of_this_name/x', tmp_path/'loop'/'x'):
        for ask in (Classifier.load, clf.save):
            with pytest.raises((ArgumentError, CheckpointError)):
                ask(path)


# ---------------------------------------------------------------- judged as it answers


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    'views',
    [None, Views(clips=2, crops=3), Views(clips=2, average='logits'), Views(flip=True), 'videomae-ssv2'],
)
def test_a_record_judges_what_the_classifier_answers(tmp_path, views, dtype):
    """Clip by clip: the probabilities of `evaluate` are those of `predict`, with calibration, views
    and precision."""
    table = from_folder(make_motion_clips(tmp_path / 'motion', n_groups=2, n_frames=12, size=48))
    table = table.select_classes(['right', 'left', 'up', 'down'])
    model = create_model('videomae_tiny', n_classes=4, n_frames=4, size=32, head_init_scale=1.0).to(dtype)
    labels = ['up', 'left', 'down', 'right']                            # another order than the table's
    clf = Classifier(model, labels, Calibration(temperature=1.7))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*in another order')
        rec = evaluate(clf, loader(table, model.spec, bs=3), views=views, show=False)
    assert rec.temperature == 1.7 and 'divided by 1.7' in repr(rec)
    assert load_record(save_record(rec, tmp_path / 'r.json')) == rec
    eps = 1e-6 if dtype == torch.float32 else 0.02
    for row in rec.clips.itertuples():
        answer = {a['label']: a['score'] for a in clf.predict(table.root / row.path, views=views)}
        assert answer == pytest.approx({l: getattr(row, f'p_{l}') for l in rec.labels}, abs=eps)
        if dtype == torch.float32:
            assert row.predicted == next(iter(answer))


def test_a_plain_model_is_judged_without_a_temperature(tmp_path):
    table = from_folder(make_motion_clips(tmp_path / 'motion', n_groups=2, n_frames=8, size=32))
    model = create_model('videomae_tiny', n_classes=8, n_frames=4, size=32)
    rec = evaluate(model, loader(table, model.spec), show=False)
    again = evaluate(Classifier(model, table.labels), loader(table, model.spec), show=False)
    assert rec.temperature == 1 and again == rec
    kept = json.loads(save_record(rec, tmp_path / 'r.json').read_text())
    assert 'temperature' not in kept and load_record(tmp_path / 'r.json') == rec


def test_an_ensemble_is_no_single_model(clf, video):
    team = EnsembleClassifier([clf, clf])
    assert not isinstance(team, Classifier) and not hasattr(team, 'calibrate')
    assert team.predict([video, video], top_k=1) == [team.predict(video)[:1]] * 2
    twice = Views(clips=2)
    assert np.allclose(team.probs(video, twice), clf.probs(video, twice))
    with pytest.raises(ArgumentError, match='Evaluate each of them'):
        evaluate(team, None)
