import copy
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from subprocess import run

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml
from botocore.session import Session
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray

from analysis.ensemble.__main__ import app as ensemble
from search_spaces.read import shipped_spaces
from tests.s3 import BUCKET, s3_server
from trainables.storage import open_folder
from tuner.run import run as search

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
PINS = tomllib.loads((ROOT / "pyproject.toml").read_text())
KUBERNETES = "1.37"

cluster_file = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
scripts, job = yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
NODE_TYPES = cluster_file["available_node_types"]


# What is checked


@cache
def launch_request():
    """What EC2 takes when it is asked for machines, as Amazon's own client knows it."""
    return Session().get_service_model("ec2").operation_model("RunInstances").input_shape


def check_cluster(config: dict) -> None:
    """Raises: jsonschema.ValidationError or ValueError where Ray or EC2 would refuse it."""
    validate_config(prepare_config(copy.deepcopy(config)))
    for name, node_type in config["available_node_types"].items():
        report = ParamValidator().validate({**node_type["node_config"], "MinCount": 1, "MaxCount": 1}, launch_request())
        if report.has_errors():
            raise ValueError(f"{name}: {report.generate_report()}")


def check_job(resource: dict) -> None:
    """Raises: jsonschema.ValidationError where KubeRay or Kubernetes would refuse it."""
    jsonschema.validate(resource, json.loads((Path(__file__).parent / "rayjob.schema.json").read_text()))
    for name, template in templates(resource).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def templates(resource: dict) -> dict[str, dict]:
    cluster = resource["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"]["template"]} | {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}


def keys(tree, *, free: set[str], path: tuple = ()) -> Iterator[tuple]:
    """The path of every key below a mapping, but for the keys right below those that are `free` to have any."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if not path or path[-1] not in free:
                yield (*path, key)
            yield from keys(value, free=free, path=(*path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from keys(value, free=free, path=(*path, place))


def misspelt(tree, path: tuple):
    """A copy in which the last key of the path ends in a letter too many."""
    changed = copy.deepcopy(tree)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[f"{path[-1]}x"] = inner.pop(path[-1])
    return changed


def readme_blocks() -> list[str]:
    return re.findall(r"^```(?:bash|sh)?\n(.*?)^```$", (DEPLOY / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """(module, words) of every call of this project's commands in deploy/."""
    texts = [*readme_blocks(), scripts["data"]["search.sh"], (DEPLOY / "cluster.yaml").read_text()]
    joined = "\n".join(texts).replace("\\\n", " ")
    found = re.findall(r"python -m ((?:tuner|analysis)[.\w]*)([^'\n#;|&]*)", joined)
    return [(module, shlex.split(words)) for module, words in found]


def command_line(module: str):
    if module == "tuner.run":
        app = typer.Typer()
        app.command()(search)
        return typer.main.get_command(app)
    return typer.main.get_command({"analysis.ensemble": ensemble}[module])


# A cluster of machines


def test_the_cluster_file_is_what_ray_up_and_ec2_accept():
    check_cluster(cluster_file)


# What lies below these is named by whoever writes the file, or is the provider's.
FREE_IN_CLUSTER = {"provider", "file_mounts", "available_node_types", "resources"}


@pytest.mark.parametrize("path", list(keys(cluster_file, free=FREE_IN_CLUSTER)), ids=lambda path: "/".join(map(str, path)))
def test_a_misspelt_field_of_the_cluster_file_is_refused(path):
    # Ray itself looks for the provider before it looks at the schema.
    with pytest.raises(KeyError if path == ("provider",) else (jsonschema.ValidationError, ValueError)):
        check_cluster(misspelt(cluster_file, path))


def test_workers_are_spot_machines_with_a_gpu_and_the_head_is_neither():
    head, worker = (NODE_TYPES[name]["node_config"] for name in ("head", "worker"))
    assert cluster_file["head_node_type"] == "head"
    assert "InstanceMarketOptions" not in head
    assert worker["InstanceMarketOptions"]["MarketType"] == "spot"
    assert cluster_file["provider"]["cache_stopped_nodes"] is False


def test_no_trial_runs_on_a_head_and_a_worker_is_there_from_the_start():
    # The share of CPUs that goes with a GPU, and whether there is a GPU at all, are read from the cluster when the command starts.
    cluster = job["spec"]["rayClusterSpec"]
    assert NODE_TYPES["head"]["resources"]["CPU"] == 0
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert 1 <= NODE_TYPES["worker"]["min_workers"] <= NODE_TYPES["worker"]["max_workers"] <= cluster_file["max_workers"]
    for group in cluster["workerGroupSpecs"]:
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_asks_for_its_token_everywhere():
    assert any("RAY_AUTH_MODE=token" in line for line in cluster_file["setup_commands"])
    assert cluster_file["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_a_node_gets_the_commit_that_was_bundled_and_after_another_ray_up_the_next_one(tmp_path):
    project, home = tmp_path / "project", tmp_path / "home"
    bundle = home / "sweepvote.bundle"
    home.mkdir()

    def shell(line: str, folder: Path) -> str:
        settings = {"PATH": os.environ["PATH"], "HOME": str(home)}
        return run(["bash", "-c", line], cwd=folder, env=settings, check=True, capture_output=True, text=True).stdout

    shell(f"git init --quiet {project} && git -C {project} config user.name a && git -C {project} config user.email a@b", tmp_path)
    bundled = next(line for block in readme_blocks() for line in block.splitlines() if line.startswith("git bundle"))
    assert cluster_file["file_mounts"]["/home/ubuntu/sweepvote.bundle"] in bundled
    for version in ("one", "two"):
        (project / "file").write_text(version)
        shell("git add file && git commit --quiet -m change", project)
        shell(re.sub(r"/tmp/sweepvote\.bundle.*", str(bundle) + " HEAD", bundled), project)
        for line in cluster_file["setup_commands"]:
            if "git " in line:
                shell(line, home)
        assert (home / "sweepvote/file").read_text() == version
        assert shell("git rev-parse HEAD", home / "sweepvote") == shell("git rev-parse HEAD", project)


# A job on Kubernetes


def test_the_job_is_what_kuberay_and_kubernetes_accept():
    check_job(job)
    kubernetes_validate.validate(scripts, KUBERNETES, strict=True)


FREE_IN_JOB = {"rayStartParams", "requests", "limits"}


@pytest.mark.parametrize("path", list(keys(job, free=FREE_IN_JOB)), ids=lambda path: "/".join(map(str, path)))
def test_a_misspelt_field_of_the_job_is_refused(path):
    with pytest.raises(jsonschema.ValidationError):
        check_job(misspelt(job, path))


def test_what_a_pod_mounts_is_there():
    for template in templates(job).values():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        containers = template["spec"]["containers"] + template["spec"].get("initContainers", [])
        assert {mount["name"] for container in containers for mount in container["volumeMounts"]} == volumes.keys()
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name") in (None, scripts["metadata"]["name"])


def test_stopping_the_job_leaves_trials_the_time_to_report_and_save():
    (head,) = templates(job)["head"]["spec"]["containers"]
    wait = next(int(item["value"]) for item in head["env"] if item["name"] == "RAY_JOB_STOP_WAIT_TIME_S")
    assert wait > 30


def attempt(folder: Path, storage: str, module: str = 'echo "$@"'):
    """Run the job's script as the job does, with a `python` that runs these words of shell in place of a module, by default to name it."""
    program, script = folder / "bin/python", folder / "search.sh"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f'#!/bin/sh\nif [ "$1" = -m ]; then {module}; else exec {sys.executable} "$@"; fi\n')
    program.chmod(0o755)
    script.write_text(scripts["data"]["search.sh"].replace("s3://BUCKET/runs", storage))
    assert shlex.split(job["spec"]["entrypoint"]) == ["bash", "/scripts/search.sh"]
    settings = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return run(["bash", str(script)], env=settings, capture_output=True, text=True)


def test_the_first_attempt_begins_the_run_and_a_later_one_resumes_with_it(tmp_path):
    storage = tmp_path / "runs"
    vote = f"-m analysis.ensemble --run {storage}/faces --top 3"
    begin = f"-m tuner.run --space effnet.yaml --data /photos --address auto --storage {storage} --name faces"
    assert attempt(tmp_path, str(storage)).stdout.splitlines() == [begin, vote]
    (storage / "faces").mkdir(parents=True)
    (storage / "faces/run.json").write_text("{}")
    assert attempt(tmp_path, str(storage)).stdout.splitlines() == [f"-m tuner.run --resume {storage}/faces --address auto", vote]


def test_in_an_object_store_a_later_attempt_resumes_too(tmp_path, monkeypatch):
    with s3_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        storage = f"s3://{BUCKET}/runs"
        assert f"--storage {storage} --name faces" in attempt(tmp_path, storage).stdout
        (open_folder(storage) / "faces" / "run.json").write_bytes(b"{}")
        assert f"--resume {storage}/faces" in attempt(tmp_path, storage).stdout


def test_an_attempt_that_cannot_see_the_records_begins_nothing_and_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    failed = attempt(tmp_path, f"s3://{BUCKET}/runs")
    assert failed.returncode != 0
    assert failed.stdout == ""


def test_an_attempt_whose_search_fails_ends_with_its_exit_code_and_lets_nothing_vote(tmp_path):
    program = """case "$2" in tuner.run) exit 143 ;; analysis.ensemble) echo voted ;; esac"""
    failed = attempt(tmp_path, str(tmp_path / "runs"), program)
    assert (failed.returncode, failed.stdout) == (143, "")


# Commands, versions and files


@pytest.mark.parametrize("module, words", commands(), ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_every_command_in_deploy_is_one_that_this_project_has(module, words):
    values = command_line(module).make_context(module, list(words)).params
    assert values.get("space") is None or values["space"] in shipped_spaces()
    assert module != "tuner.run" or bool(values["space"]) != bool(values["resume"])


def ray_commands() -> list[list[str]]:
    """The words of every call of Ray in deploy/, `ray` left out."""
    lines = [line for block in readme_blocks() for line in block.splitlines()]
    lines += [line for key, texts in cluster_file.items() if key.endswith("_ray_commands") for line in texts]
    found = [match[1] for line in lines if (match := re.search(r"(?:uv run |^|; |-- )ray ([a-z].*)", line))]
    return [shlex.split(words.replace("$RAY_HEAD_IP", "127.0.0.1"), comments=True) for words in found]


@pytest.mark.parametrize("words", ray_commands(), ids=" ".join)
def test_every_ray_command_in_deploy_is_one_that_ray_has(words):
    command, name = ray, ""
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    assert command.make_context(name, list(words)).command is command


def test_an_option_that_no_command_has_would_be_noticed():
    module, words = commands()[0]
    with pytest.raises(Exception, match="No such option: --storag"):
        command_line(module).make_context(module, [*words, "--storag", "here"])


def test_each_way_is_written_down_from_the_search_to_the_ensemble():
    modules = [module for module, _ in commands()]
    assert modules.count("tuner.run") >= 3 and modules.count("analysis.ensemble") >= 2


def test_the_readme_names_files_that_exist():
    named = {name for block in readme_blocks() for name in re.findall(r"\bdeploy/[\w.-]+", block)}
    assert {"deploy/cluster.yaml", "deploy/rayjob.yaml", "deploy/Dockerfile"} <= named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_nodes_have_the_ray_and_the_python_that_the_project_pins():
    (version,) = (match[1] for pin in PINS["tool"]["uv"]["constraint-dependencies"] if (match := re.fullmatch(r"ray==(.*)", pin)))
    python = PINS["project"]["requires-python"].removeprefix(">=")
    setup = "\n".join(cluster_file["setup_commands"])
    image = (DEPLOY / "Dockerfile").read_text()
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version
    assert re.findall(r"ray --version \| grep --fixed-strings (\S+)", setup) == [version]
    assert re.findall(r"--python (\S+)", setup) == [python]
    assert re.findall(r"^FROM python:(\S+)$", image, re.MULTILINE) == [python]
    assert re.findall(r"astral.sh/uv/([\d.]+)/", setup) == re.findall(r"uv==([\d.]+)", image)


def test_what_launches_the_workers_is_pinned():
    assert any("pip install boto3" in line for line in cluster_file["head_setup_commands"])
    assert any(pin.startswith("boto3==") for pin in PINS["tool"]["uv"]["constraint-dependencies"])
