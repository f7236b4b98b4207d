"""An answer in a fresh environment: `python tools/fresh_runtime.py model.onnx clip.mp4`.

Makes a virtual environment that holds the extra `runtime` and vidcls itself, without PyTorch, and asks the
file there, by Python and by the command line.
"""
import configparser, os, subprocess, sys, tempfile, time, venv
from pathlib import Path

root = Path(__file__).resolve().parents[1]

def listed():
    "Return the requirements of the extra."
    ini = configparser.ConfigParser(delimiters=['='])
    ini.read(root/'settings.ini', encoding='utf-8')
    return ini['DEFAULT']['runtime_requirements'].split()

def main(model, clip):
    "Make the environment, ask, and print what was found."
    env = {k: v for k,v in os.environ.items() if k != 'PYTHONPATH'}                # nothing from outside
    with tempfile.TemporaryDirectory() as d:
        venv.create(d, with_pip=True)
        python, bin = Path(d)/'bin'/'python', Path(d)/'bin'
        def run(*args):
            got = subprocess.run([*map(str, args)], cwd=d, env=env, text=True, capture_output=True)
            if got.returncode:
                sys.exit(f'{args}: {got.stdout}{got.stderr}')
            return got.stdout.strip()
        pip = (python, '-m', 'pip', 'install', '-q', '--disable-pip-version-check')
        run(*pip, '-c', root/'constraints.txt', *listed())
        run(*pip, '--no-deps', root)
        ask = ("import sys; from vidcls.deploy.runtime import RuntimeClassifier\n"
               "print(RuntimeClassifier(sys.argv[1]).predict(sys.argv[2]))\n"
               "assert 'torch' not in sys.modules")
        print('by Python: ', run(python, '-c', ask, Path(model).resolve(), Path(clip).resolve()))
        t0 = time.perf_counter()
        print('by command:', run(bin/'vidcls', 'predict', Path(model).resolve(), Path(clip).resolve()))
        print(f'in {time.perf_counter()-t0:.1f} s, from a cold start')
        there = run(python, '-m', 'pip', 'list', '--format=freeze').split('\n')
        size = sum(f.stat().st_size for f in Path(d).rglob('*') if f.is_file())
        print(f'{len(there)} packages, {size/1e6:.0f} MB:', ', '.join(there))
        assert not any(p.startswith('torch==') for p in there)

if __name__ == '__main__':
    main(*sys.argv[1:])
