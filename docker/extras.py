"""Print the packages of extras, as settings.ini names them: python docker/extras.py runtime serve."""
import configparser
import sys
from pathlib import Path

said = configparser.ConfigParser(delimiters=['='])
said.read(Path(__file__).resolve().parents[1]/'settings.ini', encoding='utf-8')
for extra in sys.argv[1:]:
    print(*said['DEFAULT'][f'{extra}_requirements'].split(), sep='\n')
