"""Print what extras need, as settings.ini names it: python docker/extras.py runtime serve.

The name library means what vidcls itself imports.
"""
import configparser
import sys
from pathlib import Path

said = configparser.ConfigParser(delimiters=['='])
said.read(Path(__file__).resolve().parents[1]/'settings.ini', encoding='utf-8')
for extra in sys.argv[1:]:
    key = 'requirements' if extra == 'library' else f'{extra}_requirements'
    print(*said['DEFAULT'][key].split(), sep='\n')
