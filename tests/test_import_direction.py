import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "search_spaces": set(),
    "trainables": {"search_spaces"},
    "tuner": {"search_spaces", "trainables", "analysis"},
    "analysis": {"search_spaces", "trainables"},
    "sweepvote": {"search_spaces", "trainables", "tuner", "analysis"},
}
# Pages about names, printed for people and imported by no other: spaces themselves stay plain data that knows nothing of training.
EXCEPTIONS = {"search_spaces/describe.py": {"trainables", "tuner"}, "search_spaces/backbones.py": {"trainables"}}
FLOORS = (
    "votes",
    "members",
    "evaluation",
)  # of analysis, from the ground; the commands are its roof, and its figures and pages stand beside
OWNERS = {
    "ray": ("tuner/", "trainables/trial.py"),
    "optuna": ("tuner/searchers/", "analysis/evaluation/search/", "sweepvote/run.py"),  # the last for a type alone
    "cmaes": ("tuner/searchers/cmaes.py",),
    "albumentations": ("trainables/data/augment.py", "trainables/data/changes.py"),
    "timm": ("trainables/models/", "trainables/optimizers.py"),
    "wandb": ("analysis/export_wandb/",),
    "mlflow": ("analysis/export_mlflow/",),
    "pytorch_grad_cam": ("analysis/members/heatmaps.py", "analysis/pages/heatmaps.py"),
    "facenet_pytorch": ("trainables/data/faces.py",),
    "open_clip": ("trainables/models/clip.py",),
}
LABEL_WORDS = {"mask", "gender", "age"}
OURS = [file for package in ALLOWED for file in sorted((ROOT / package).rglob("*.py"))]


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def dotted(files: list[Path]) -> dict[str, Path]:
    """Files by the names of their modules."""
    return {file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): file for file in files}


def imported_modules(file: Path) -> set[str]:
    """Every module that a file imports, and every name that it imports from one, which may be a module too."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
    return plain | {node.module for node in named} | {f"{node.module}.{alias.name}" for node in named for alias in node.names}


def imported_packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(file)}


def docstrings(tree: ast.AST) -> set[ast.Constant]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, owners)]
    return {body[0].value for body in bodies if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)}


def words_of(file: Path) -> Iterator[str]:
    """The words of all identifiers and texts in a module, docstrings and comments aside."""
    tree = ast.parse(file.read_text())
    explained = docstrings(tree)
    for node in ast.walk(tree):
        texts = [value for name in ("id", "attr", "arg", "name", "asname") if isinstance(value := getattr(node, name, None), str)]
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in explained:
            texts.append(node.value)
        for text in texts:
            yield from re.findall(r"[a-z]+", text.lower())


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_downstream(package):
    for file in modules(package):
        ours = imported_packages(file) & ALLOWED.keys() - {package}
        allowed = ALLOWED[package] | EXCEPTIONS.get(str(file.relative_to(ROOT)), set())
        assert ours <= allowed, f"{file} imports {ours - allowed}"


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_what_may_import_upstream_does_so_and_is_imported_by_no_other(exception):
    assert imported_packages(ROOT / exception) >= EXCEPTIONS[exception]
    module = exception.removesuffix(".py").replace("/", ".")
    assert [str(file) for package in ALLOWED for file in modules(package) if module in imported_modules(file)] == []


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_only_where_it_is_owned(library):
    importers = [str(file.relative_to(ROOT)) for package in ALLOWED for file in modules(package) if library in imported_packages(file)]
    assert importers
    assert [name for name in importers if not name.startswith(OWNERS[library])] == []


def test_only_the_layout_and_the_demo_of_the_contest_know_what_it_predicts():
    # What draws masks speaks of those, and is told by its user what the target and its classes are called.
    drawing = {ROOT / file for file in ("trainables/data/drawn_masks.py", "tuner/draw_masks.py", "tuner/masking.py")}
    guest = {ROOT / "trainables/data/layouts/contest.py", *modules("tuner/demo"), *drawing}
    strangers = [file for package in ALLOWED for file in modules(package) if file not in guest]
    assert {str(file): words for file in strangers if (words := LABEL_WORDS.intersection(words_of(file)))} == {}
    assert set(words_of(ROOT / "trainables/data/layouts/contest.py")) >= LABEL_WORDS


def test_no_file_imports_one_that_imports_it():
    files = dotted(OURS)
    graph = {name: (imported_modules(file) & files.keys()) - {name} for name, file in files.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def places_in_analysis() -> dict[str, str]:
    """By module of analysis, the package of it that it lies in, or its own name."""
    return {name: name.split(".")[1] for name in dotted(modules("analysis")) if "." in name}


def test_inside_analysis_no_import_climbs_to_a_higher_floor():
    def floor(place: str) -> int:
        return FLOORS.index(place) if place in FLOORS else len(FLOORS)

    places, files = places_in_analysis(), dotted(modules("analysis"))
    climbing = [
        f"{name} imports {one}"
        for name, place in places.items()
        for one in imported_modules(files[name]) & places.keys()
        if floor(places[one]) > floor(place)
    ]
    assert climbing == []


def test_commands_import_figures_and_pages_and_no_command_is_imported():
    places, files = places_in_analysis(), dotted(modules("analysis"))
    commands = {place for name, place in places.items() if name.endswith(".__main__")}
    assert commands >= {"ensemble", "report", "suspects", "mistakes", "soup", "leaks", "predict", "export"}
    assert set(places.values()) == commands | {*FLOORS, "figures", "pages", "command"}
    for name, place in places.items():
        found = {places[one] for one in imported_modules(files[name]) & places.keys()} - {place}
        assert not found & commands, f"{name} imports a command: {found & commands}"
        assert "figures" not in found or place in {*commands, "pages"}, f"{name} imports figures, which are for commands and pages"
        assert "pages" not in found or place in commands, f"{name} imports pages, which are for commands"
