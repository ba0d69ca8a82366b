import json

import torch

from benchmarks.train_step import main


def test_the_benchmark_of_a_training_step_ends_with_a_line_of_json(capsys):
    before = torch.get_num_threads()
    main(backbone="test_efficientnet", size=32, batch_size=16, photos=64, rounds=1, threads=1)
    torch.set_num_threads(before)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["fit photos/s"] > 0 and figures["bare loop photos/s"] > 0 and figures["ratio"] > 0
