"A page for a Space: one exported classifier, asked in a browser."
from pathlib import Path

from vidcls.deploy.runtime import RuntimeClassifier
from vidcls.serve.demo import demo

if __name__ == '__main__':
    demo(RuntimeClassifier(Path(__file__).with_name('model.onnx'))).launch()
