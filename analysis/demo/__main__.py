"""The command: a page to show images to, or a camera, and what an ensemble says to them."""

import secrets
import socket
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from analysis.command import BatchOption, DeviceOption, FalseAlarmsOption, refusals, warn
from analysis.demo.with_onnx import AGAIN, WithOnnx, exported_file
from analysis.evaluation.answering import device_of, no_such_device, open_ensemble
from analysis.evaluation.fitted_ensemble import maker
from analysis.evaluation.novelty import FALSE_ALARMS
from analysis.pages.access import is_loopback, listen, names_at
from search_spaces.errors import UserError
from trainables.commands import program
from trainables.console import document, output
from trainables.options import AsJson, TrustCode
from trainables.progress import waiting
from trainables.record import RunError
from trainables.storage import Folder, open_folder

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python-multipart": "python_multipart"}  # module by what is installed
SHORTEST = 8  # characters of a token
PATIENCE = 3  # seconds that requests have to end when the server does
CONNECTIONS = 256


@app.command()
def main(
    ensemble: Annotated[
        str, typer.Option(help="The folder of an ensemble, runs/<run>/ensemble; that of an exported one, or its file; or their address.")
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 and others that are reached from elsewhere take --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the address; 0: one that is free.")] = 8000,
    token: Annotated[
        str,
        typer.Option(envvar="SWEEPVOTE_TOKEN", show_default=False, help=f"What requests have to bring, {SHORTEST} characters or more."),
    ] = "",
    device: DeviceOption = "auto",
    batch: BatchOption = None,
    false_alarms: FalseAlarmsOption = FALSE_ALARMS,
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Show images or a camera to an ensemble, on a page in the browser; programs ask the same address.

        python -m analysis.demo --ensemble runs/faces/ensemble
        curl -F images=@a.jpg -F images=@b.jpg http://127.0.0.1:8000/predict

        python -m analysis.demo --ensemble exported/ensemble.onnx

    The answers are those of analysis.predict, by PyTorch, or by ONNX Runtime where the ensemble is an exported one, which needs no torch.
    Images stay on this machine, and none is kept. Beside POST /predict there are GET /model (the
    ensemble's card), /health, /openapi.json and /docs. Ctrl-C ends it.

    Exit codes: 2 it cannot be served, 130 Ctrl-C.
    """
    try:
        with refusals():
            serve(open_folder(ensemble), host, port, token, device, batch, false_alarms)
    except KeyboardInterrupt:
        sys.exit(130)


def serve(folder: Folder, host: str, port: int, token: str, device: str, batch: int | None, false_alarms: float) -> None:
    """Check, load, listen, answer until Ctrl-C.

    Raises: RunError naming everything that is wrong with the options; DataError, StorageError.
    """
    mistakes, example = [], secrets.token_urlsafe(16)
    if gone := [name for name, module in PACKAGES.items() if not find_spec(module)]:
        mistakes.append(f"{', '.join(gone)}: not installed; pip install {' '.join(PACKAGES)}, or uv run --extra demo ...")
    if not token and not is_loopback(host):
        mistakes.append(f"--host {host} can be reached from elsewhere: give a token that nobody can guess, --token {example}")
    if token and (len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token):
        mistakes.append(f"--token takes {SHORTEST} or more characters of ASCII without blanks, such as {example}")
    heard = opened = None
    exported = exported_file(folder)
    try:
        opened = WithOnnx(exported) if exported else open_ensemble(folder, batch)
    except UserError as error:
        mistakes.append(str(error))
    try:
        heard = listen(host, port)
    except RunError as error:
        mistakes.append(str(error))
    if exported and (device not in ("auto", "cpu") or batch):
        mistakes.append(f"{exported}: an exported ensemble answers on the CPU, a request at a time; leave --device and --batch out")
    elif not exported and (wrong := no_such_device(device)):
        mistakes.append(wrong)
    if mistakes or heard is None or opened is None:
        raise RunError("\n".join(mistakes))
    with waiting("loading the models"):
        import uvicorn

        from analysis.demo.card import card_of
        from analysis.demo.model import Model
        from analysis.demo.server import make_app
        from analysis.demo.with_torch import WithTorch

        model = Model(opened if isinstance(opened, WithOnnx) else WithTorch(opened, device_of(device)))
        card = card_of(model)
        served = make_app(model, card, names_at(host), token, false_alarms=false_alarms)
        settings = uvicorn.Config(
            served,
            http="h11",
            ws="none",
            lifespan="off",
            log_level="warning",
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=PATIENCE,
        )
    address = f"http://{_shown(host)}:{heard.getsockname()[1]}/"
    page = f"{address}#token={token}" if token else address
    console = output()
    console.print(f"Open {page}  (Ctrl-C ends it)", soft_wrap=True)
    if card.score is None:
        warn(console, "What the ensemble is worth is not known: no scores.json that can be read lies beside it.")
    if not card.flags:
        again = AGAIN if exported else f"Vote again: {maker(folder)}"
        warn(console, f"Images unlike anything learned are not flagged: what that takes is not beside the ensemble. {again}")
    document({"address": address, "page": page, "model": card.model_dump()})
    sys.stdout.flush()
    uvicorn.Server(settings).run(sockets=[heard])


def _shown(host: str) -> str:
    """The host in an address that a browser opens."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    app(prog_name=program("analysis.demo"))
