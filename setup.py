"Packaging: every field comes from settings.ini, so that there is one place to change."
import json
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

root = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
suffix = '_requirements'
extras = {k[:-len(suffix)]: v.split() for k, v in cfg.items() if k.endswith(suffix)}
others = [r for name, reqs in extras.items() if name != 'dev' for r in reqs]
extras['dev'] += [r for r in others if r not in extras['dev']]
readme = root/'README.md'


class WithCourse(build_py):
    "Packs the notebooks of the course, without outputs, and the measurements that they read into a wheel."

    def run(self):
        super().run()
        if self.editable_mode:                              # the checkout has them
            return
        to = Path(self.build_lib)/'vidcls'/'course'/'pages'
        shutil.rmtree(to, ignore_errors=True)
        left_out = shutil.ignore_patterns('.*', '_*', '*.yml', '*.css', 'studies')
        shutil.copytree(root/'nbs', to, ignore=left_out)
        shutil.copytree(root/'benchmarks', to/'benchmarks')
        for page in to.rglob('*.ipynb'):
            nb = json.loads(page.read_text(encoding='utf-8'))
            for cell in nb['cells']:
                if cell['cell_type'] == 'code':
                    cell['outputs'] = []
            page.write_text(json.dumps(nb, ensure_ascii=False), encoding='utf-8')


setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    keywords=cfg['keywords'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Developers',
                 'Intended Audience :: Education',
                 'Natural Language :: English', 'Topic :: Scientific/Engineering :: Image Recognition',
                 *[f'Programming Language :: Python :: 3.{v}' for v in (11, 12, 13)]],
    python_requires=f">={cfg['min_python']}",
    # studies belong to the checkout: an editable install sees them, a wheel doesn't hold them
    packages=find_packages(include=['vidcls', 'vidcls.*'], exclude=['vidcls.studies*']),
    package_data={'vidcls.serve': ['page/*'], 'vidcls.course': ['questions/*.toml', 'scoreboard.csv']},
    cmdclass={'build_py': WithCourse},
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': ['vidcls=vidcls._modidx:d']},            # for links in documentation
)
