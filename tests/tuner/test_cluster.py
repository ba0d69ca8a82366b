import re
from time import sleep

import numpy as np
import pytest
import ray

from tuner import cluster
from tuner.cluster import GPU_CONTEXT, ClusterError, share_of_gpu

GB = 10**9


@pytest.mark.parametrize("seed", range(20))
def test_as_many_trials_share_a_gpu_as_fit_with_a_tenth_to_spare(seed):
    rng = np.random.default_rng(seed)
    peak, total = int(rng.uniform(0.1, 30) * GB), int(rng.choice([8, 24, 80, 141]) * GB)
    trials = round(1 / share_of_gpu(peak, total))
    need = peak * 1.1 + GPU_CONTEXT
    assert trials == 1 or trials * need <= 0.9 * total
    assert (trials + 1) * need > 0.9 * total


def test_a_trial_too_large_for_its_gpu_gets_one_alone():
    assert share_of_gpu(200 * GB, 80 * GB) == 1


@pytest.mark.nightly
def test_ray_of_our_own_that_was_started_beside_other_work_counts_its_cores_and_stays_until_it_is_left():
    starting = cluster.Starting(None, dashboard=False, gpus=0)
    try:
        found = starting.join()
        assert (found.cpus, found.gpus, found.dashboard) == (ray.cluster_resources()["CPU"], 0, None)
        sleep(2)
        assert ray.get(ray.remote(num_cpus=0)(lambda: 7).remote(), timeout=60) == 7
    finally:
        starting.stop()
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "no-such-machine.invalid:6379", "nonsense"])
def test_an_address_without_an_answer_is_refused_with_what_to_start(address):
    with pytest.raises(ClusterError, match=rf"no Ray cluster answers at {re.escape(address)} .*ray start --head"):
        cluster.start(address, dashboard=False)


def test_the_address_of_a_client_is_refused_with_where_to_give_the_command():
    with pytest.raises(ClusterError, match="ray://127.0.0.1:1 .*on a node of the cluster, with --address auto"):
        cluster.start("ray://127.0.0.1:1", dashboard=False)
