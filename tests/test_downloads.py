"Archives and addresses: whole or not at all, whoever else unpacks, whatever bit was flipped."
import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from vidcls.core import ArgumentError, DataError
from vidcls.data import download as downloads
from vidcls.data.download import Archive, DamagedArchiveError, DownloadError, Source, download, fetch, unpack
from vidcls.locks import lock_folder


def pack(path, n=40, size=3000, kind='gz', seed=0):
    "An archive of n files whose bytes cannot be compressed."
    rng = np.random.default_rng(seed)
    content = {f'd{i % 3}/{i}.bin': rng.bytes(size) for i in range(n)}
    if kind == 'zip':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
            for name, data in content.items():
                z.writestr(name, data)
    else:
        with tarfile.open(path, f'w:{kind}') as t:
            for name, data in content.items():
                m = tarfile.TarInfo(name)
                m.size = len(data)
                t.addfile(m, io.BytesIO(data))
    return content

def below(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}
def beside(folder): return sorted(p.name for p in folder.iterdir())


UNPACKER = """
import sys, time
from vidcls.data.download import unpack
while time.time() < float(sys.argv[3]): time.sleep(.001)
unpack(sys.argv[1], sys.argv[2], show=False); print('whole')
"""

@pytest.mark.slow
@pytest.mark.parametrize('kind', ['gz', 'zip'])
def test_two_unpackers_of_one_archive_both_end_with_the_whole(tmp_path, kind):
    content, name = pack(tmp_path/f'a.{kind}', 2000, 200, kind), tmp_path/f'a.{kind}'
    start = str(time.time() + 2.5)
    crew = [
        subprocess.Popen(
            [sys.executable, '-c', UNPACKER, name, tmp_path / 'out', start],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    told = [p.communicate(timeout=60) for p in crew]
    assert [p.returncode for p in crew] == [0]*3 and all('whole' in out for out, _ in told), told
    assert below(tmp_path/'out') == content and beside(tmp_path) == [name.name, 'out']


@pytest.mark.slow
def test_a_killed_unpacker_leaves_nothing_for_whole_and_the_next_one_sweeps(tmp_path):
    content = pack(tmp_path/'a.zip', 4000, 200, 'zip')
    p = subprocess.Popen([sys.executable, '-c', UNPACKER, tmp_path/'a.zip', tmp_path/'out', '0'])
    for _ in range(2000):
        if any(sum(1 for _ in r.rglob('*')) > 50 for r in tmp_path.glob('.out.*')):
            break
        time.sleep(.005)
    p.send_signal(signal.SIGKILL)
    p.wait()
    assert not (tmp_path/'out').exists() and [n for n in beside(tmp_path) if n.startswith('.out')]
    unpack(tmp_path/'a.zip', tmp_path/'out', show=False)
    assert below(tmp_path/'out') == content and beside(tmp_path) == ['a.zip', 'out']


def test_a_running_unpacker_is_not_swept_away(tmp_path):
    (tmp_path/'.out.other.tmp').mkdir()
    (tmp_path/'.out.rest.tmp').mkdir()
    (tmp_path/'.out.x').mkdir()
    held = lock_folder(tmp_path/'.out.other.tmp')
    pack(tmp_path/'a.zip', 2, kind='zip')
    unpack(tmp_path/'a.zip', tmp_path/'out', show=False)
    assert beside(tmp_path) == ['.out.other.tmp', '.out.x', 'a.zip', 'out']
    held.release()


@pytest.mark.parametrize('kind', ['gz', 'bz2', 'xz', 'zip'])
def test_a_flipped_bit_anywhere_is_an_error_or_does_no_harm(tmp_path, kind):
    content = pack(tmp_path/'good', 12, 700, kind)
    good, rng, refused = (tmp_path/'good').read_bytes(), np.random.default_rng(1), 0
    (tmp_path/'good').unlink()
    for k in range(40):
        data = bytearray(good)
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (tmp_path/'a.tar').write_bytes(data)
        try:
            unpack(tmp_path/'a.tar', tmp_path/'out', show=False)
        except DownloadError:
            refused += 1
        else:
            assert below(tmp_path/'out') == content
            downloads.shutil.rmtree(tmp_path/'out')       # a time, or padding
        assert beside(tmp_path) == ['a.tar']
    assert refused >= 34


@pytest.mark.parametrize('kind', ['gz', 'bz2', 'xz', '', 'zip'])
def test_a_cut_archive_is_never_whole(tmp_path, kind):
    pack(tmp_path/'good', 12, 700, kind)
    good = (tmp_path/'good').read_bytes()
    ends = [len(good) * k // 10 for k in range(1, 10)] + (
        [512 * k for k in range(1, 34)] if kind == '' else [len(good) - 4]
    )
    for n in ends:
        (tmp_path/'a.tar').write_bytes(good[:n])
        with pytest.raises(DamagedArchiveError, match='a damaged archive'):
            unpack(tmp_path/'a.tar', tmp_path/'out', show=False)
    assert beside(tmp_path) == ['a.tar', 'good']


def test_a_tar_whose_middle_header_is_damaged_and_two_in_one(tmp_path):
    pack(tmp_path/'good', 6, 700, '')
    good = (tmp_path/'good').read_bytes()
    sick = bytearray(good)
    sick[3*1536 + 20] ^= 1                        # a name, behind its own checksum
    for data in (bytes(sick), good + good):
        (tmp_path/'a.tar').write_bytes(data)
        with pytest.raises(DamagedArchiveError, match='something follows|damaged'):
            unpack(tmp_path/'a.tar', tmp_path/'out', show=False)
        assert not (tmp_path/'out').exists()


def test_archives_made_to_fill_disks_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path/'bomb.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('zeros', bytes(2_000_000))
        z.filelist[0].file_size = 3 * 2**30                               # what its list claims
    with pytest.raises(DownloadError, match=r'0.0 MB that would become 3.2 GB; refused'):
        unpack(tmp_path/'bomb.zip', tmp_path/'out', show=False)
    monkeypatch.setattr(downloads, 'SMALL', 2**20)                         # the same for less work
    with tarfile.open(tmp_path/'bomb.tar.gz', 'w:gz') as t:
        m = tarfile.TarInfo('zeros')
        m.size = 20_000_000
        t.addfile(m, io.BytesIO(bytes(m.size)))
    with pytest.raises(DownloadError, match='would become 0.0 GB; refused'):
        unpack(tmp_path/'bomb.tar.gz', tmp_path/'out', show=False)
    assert beside(tmp_path) == ['bomb.tar.gz', 'bomb.zip']
    with pytest.raises(DownloadError, match='no such archive'):
        unpack(tmp_path/'gone.zip', tmp_path/'out')


@pytest.fixture
def site(tmp_path):
    "A real server of a folder of files."
    (tmp_path/'www').mkdir()
    asked = []
    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args): super().__init__(*args, directory=tmp_path/'www')
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', tmp_path/'www', asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize('suffix, damage', [('zip', 'cut'), ('tar.gz', 'flip'), ('rar', 'tool')])
@pytest.mark.filterwarnings('ignore:.*nobody has published')
def test_a_damaged_archive_is_fetched_again(site, tmp_path, monkeypatch, suffix, damage):
    url, www, asked = site
    content = pack(www/f'a.{suffix}', 8, 700, 'zip' if suffix == 'zip' else 'gz')
    good = (www/f'a.{suffix}').read_bytes()
    if suffix == 'rar':  # no .rar can be made here: a tool that reads a tar under that name
        (tmp_path/'bin').mkdir()
        monkeypatch.setenv('PATH', f"{tmp_path/'bin'}:/usr/bin:/bin")
        (tmp_path / 'bin' / 'unrar').write_text(
            f'#!{sys.executable}\nimport sys, tarfile\ntry: '
            'tarfile.open(sys.argv[-2]).extractall(sys.argv[-1])\n'
            'except Exception as e: sys.exit("CRC failed: " + str(e))\n'
        )
        (tmp_path/'bin'/'unrar').chmod(0o755)
    sick = bytearray(good)
    sick[len(sick)//2] ^= 8
    (www / f'a.{suffix}').write_bytes(
        good[:-30] if damage == 'cut' else bytes(sick) if damage == 'flip' else good[: len(good) // 2]
    )
    mini = Source(url, 'of the test', (Archive(f'{url}/a.{suffix}', 'videos'),))
    with pytest.raises(DamagedArchiveError):
        download(mini, tmp_path/'set', show=False)
    assert not (tmp_path/'set'/'videos').exists()
    (www/f'a.{suffix}').write_bytes(good)
    assert below(download(mini, tmp_path/'set', show=False)/'videos') == content and len(asked) == 2
    assert f'a.{suffix}.damaged' in beside(tmp_path/'set'/'archives')


def test_addresses_that_are_none(tmp_path, site):
    for url in (
        'ftp://example.org/a.zip',
        'file:///etc/passwd',
        'www.example.org/a.zip',
        '/some/a.zip',
        's3://b/a.zip',
        '',
        'http://',
        'HTTP:/x',
    ):
        with pytest.raises(ArgumentError, match='accepted: an address that begins with http:// or https://'):
            fetch(url, tmp_path/'x' if url else tmp_path/'y')
    (site[1]/'a.bin').write_bytes(b'abc')
    assert (
        fetch(
            f'{site[0]}/a.bin', tmp_path / 'b.bin', 'sha256:' + hashlib.sha256(b'abc').hexdigest()
        ).read_bytes()
        == b'abc'
    )
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ['b.bin']


def test_a_list_of_checksums_that_is_none(site, tmp_path):
    url, www, _ = site
    pack(www/'a.zip', 2, kind='zip')
    (tmp_path/'set'/'archives').mkdir(parents=True)
    for bad in ('[]', '{"a', '['*100_000):
        (tmp_path/'set'/'archives'/'hashes.json').write_text(bad)
        with pytest.raises(DataError, match='hashes.json: damaged'):
            download(Source(url, '', (Archive(f'{url}/a.zip', 'v'),)), tmp_path/'set', show=False)


def tar_of(path, *members):
    "Write a tar of (name, type, target of a link); regular files hold five bytes."
    with tarfile.open(path, 'w') as t:
        for name,kind,target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            content = b'hello' if kind == tarfile.REGTYPE else b''
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return path


def test_links_in_a_tar_become_copies(tmp_path):
    "No link is ever made, on any version of Python."
    packed = tar_of(tmp_path/'a.tar', ('x/a.txt', tarfile.REGTYPE, ''), ('x/b.txt', tarfile.SYMTYPE, 'a.txt'),
                    ('x/c.txt', tarfile.LNKTYPE, 'x/a.txt'), ('/abs/d.txt', tarfile.REGTYPE, ''))
    out = unpack(packed, tmp_path/'out')
    files = sorted(f for f in out.rglob('*') if not f.is_dir())
    assert [str(f.relative_to(out)) for f in files] == ['abs/d.txt', 'x/a.txt', 'x/b.txt', 'x/c.txt']
    assert all(f.read_bytes() == b'hello' and not f.is_symlink() and f.stat().st_nlink == 1 for f in files)


@pytest.mark.parametrize('member', [
    ('../e', tarfile.REGTYPE, ''), ('a/../../e', tarfile.REGTYPE, ''), ('s', tarfile.SYMTYPE, '/etc/passwd'),
    ('s', tarfile.SYMTYPE, '../../e'), ('h', tarfile.LNKTYPE, '../e'), ('f', tarfile.FIFOTYPE, ''),
    ('c', tarfile.CHRTYPE, ''), ('s', tarfile.SYMTYPE, 's'),
])
def test_what_leads_out_of_a_tar_is_refused(tmp_path, member):
    "Nor does anything else of such an archive stay."
    packed = tar_of(tmp_path/'a.tar', ('x/a.txt', tarfile.REGTYPE, ''), member)
    with pytest.raises(DownloadError, match=r'a\.tar'):
        unpack(packed, tmp_path/'out')
    assert [f.name for f in tmp_path.iterdir()] == ['a.tar']
