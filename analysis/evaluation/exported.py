"""The file of an exported ensemble: what it is called, and what its metadata say under `card`."""

FILE = "ensemble.onnx"
ANSWER = "probabilities"  # the output that holds the scores
FORMAT = 1  # of the card
