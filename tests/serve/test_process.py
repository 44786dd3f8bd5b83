"""A real server: signals, slow and rude clients, nothing left behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serve.answers import Predicted
from serve.client import Client, ServerRefusedError
from tests.bundle.conftest import WriteTiny
from tests.serve.films import grey, noise, png
from tests.serve.processes import ServerProcess
from weakray.errors import DataError, WeakrayError

TIMEOUTS = ("--load.header-timeout-s", "0.5", "--load.body-timeout-s", "1", "--load.idle-timeout-s", "1")
FILM = png(grey(16, 32, 51))


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[ServerProcess]:
    """One server for the tests that leave it running; it has one place, so that a held one would be seen."""
    with ServerProcess(tiny_bundle, *TIMEOUTS, "--load.requests", "1") as process:
        yield process


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server hangs up."""
    parts: list[bytes] = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def still_serves(server: ServerProcess) -> None:
    with Client(server.url, patience_s=None) as client:
        assert client.predict([FILM]).images[0].findings[0].probability == pytest.approx(0.1, abs=1e-6)


def body(*films: bytes) -> bytes:
    parts = (b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + film + b"\r\n" for film in films)
    return b"".join(parts) + b"--b--\r\n"


def head(length: int) -> bytes:
    return (
        b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n" % length
    )


def test_client_speaks_with_it(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(FILM)
    with Client(server.url) as client:
        assert client.ready()
        told = client.predict([tmp_path / "film.png", png(noise(20, 9))], maps=True, film=True)
        assert [image.height for image in told.images] == [16, 20]
        assert told.images[0].findings[0].map is not None
        assert told.images[0].film is not None
        assert client.models().bundle_sha256 == told.bundle.sha256
        assert client.examples().examples == []
        with pytest.raises(ServerRefusedError, match=r"404 not_found: no example of this name") as refused:
            client.truth("none")
        assert (refused.value.status, refused.value.code) == (404, "not_found")
        with pytest.raises(DataError, match=r"none\.png: expected an image file, got No such file"):
            client.predict([tmp_path / "none.png"])


def test_client_says_that_nobody_is_there() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{unheard.getsockname()[1]}") as client:
            assert not client.ready()
            with pytest.raises(WeakrayError, match="no answer .*; does the server run"):
                client.models()


def test_a_head_that_never_ends_is_cut_off(server: ServerProcess) -> None:
    start = time.monotonic()
    with server.connect() as connection:
        for _ in range(40):
            try:
                connection.sendall(b"GET /healthz HTTP/1.1\r\n"[:1])
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(0.1)
        assert read_all(connection) == b""
    assert time.monotonic() - start < 3
    still_serves(server)


def test_a_silent_connection_is_closed(server: ServerProcess) -> None:
    with server.connect() as connection:
        assert read_all(connection) == b""
    with server.connect() as connection:  # idle after an answer
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200 OK")


def test_a_body_that_drips_is_answered_408_and_holds_no_place(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.sendall(head(100_000) + b"--b\r\n")
        for _ in range(4):
            time.sleep(0.1)
            connection.sendall(b"x")
        with Client(server.url, patience_s=None) as client, pytest.raises(ServerRefusedError, match="429 busy") as busy:
            client.predict([FILM])  # the only place is taken until the drip is given up
        assert busy.value.retry_after_s == 1
        assert read_all(connection).startswith(b"HTTP/1.1 408")
    still_serves(server)


def test_half_closed_and_vanishing_clients_hold_no_place(server: ServerProcess) -> None:
    for sent in (head(len(body(FILM))) + body(FILM), head(100_000) + body(FILM), head(100_000)[:40]):
        with server.connect() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)
        still_serves(server)
        connection = server.connect()
        connection.sendall(sent)
        connection.close()
        time.sleep(0.05)
        still_serves(server)


def test_garbage_is_answered_400(server: ServerProcess) -> None:
    for garbage in (b"\x00\xff" * 200 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/predict HTTP/1.1\r\n\r\n"):
        with server.connect() as connection:
            connection.sendall(garbage)
            assert read_all(connection).startswith(b"HTTP/1.1 4")
    still_serves(server)


def test_a_refused_body_is_still_read_so_that_the_answer_arrives(server: ServerProcess) -> None:
    big = png(noise(1500, 1500))  # far more than a socket's buffers
    files = [("other", big), ("image", big)]
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for _ in range(3):
            answer = client.post("/v1/predict", files=files)
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")
        assert client.get("/healthz").status_code == 200


def test_the_rest_of_a_refused_body_is_not_waited_for_for_long(server: ServerProcess) -> None:
    start = time.monotonic()
    with server.connect() as connection:
        connection.sendall(head(1_000_000).replace(b"multipart/form-data", b"text/plain"))
        for _ in range(100):
            try:
                connection.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                break
            time.sleep(0.05)
    assert time.monotonic() - start < 4
    still_serves(server)


def test_two_requests_on_one_connection_the_first_refused(server: ServerProcess) -> None:
    sent = body(FILM)
    with server.connect() as connection:
        connection.sendall(head(len(sent)).replace(b"multipart/form-data", b"text/plain") + sent)
        connection.sendall(head(len(sent)) + sent)
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 415" in answers
    assert b"HTTP/1.1 200" in answers


def test_a_client_that_does_not_fetch_its_answer_is_given_up(tiny_bundle: Path) -> None:
    films = [png(noise(1200, 1500))] * 5  # an answer of 12 MB, more than the system's buffers take
    with ServerProcess(tiny_bundle, "--load.write-timeout-s", "0.5") as server:
        before = server.sockets()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            sent = body(*films)
            connection.sendall(head(len(sent)).replace(b"/v1/predict", b"/v1/predict?include=film") + sent)
            server.wait_for_line(r"POST /v1/predict 200")
            until = time.monotonic() + 10
            while server.sockets() > before:
                assert time.monotonic() < until, "the connection is still held"
                time.sleep(0.05)
        still_serves(server)
        assert server.stop() == 0


def test_told_to_stop_it_finishes_what_it_took(tiny_bundle: Path) -> None:
    film = png(noise(500, 400))
    with ServerProcess(tiny_bundle, "--load.batch-images", "1") as server, ThreadPoolExecutor(6) as pool:

        def ask() -> int:
            with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
                files = [("image", film)] * 4
                return client.post("/v1/predict", params={"include": ["maps", "film"]}, files=files).status_code

        answers = [pool.submit(ask) for _ in range(6)]
        held = 0.0
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            while held < 6:
                lines = client.get("/metrics").text.splitlines()
                held = next(float(line.split()[1]) for line in lines if line.startswith("weakray_held_requests "))
                if any(answer.done() for answer in answers):
                    break
        assert held > 1
        assert server.stop() == 0
        assert [answer.result() for answer in answers] == [200] * 6
        assert any(line.startswith("requests: ") for line in server.output)


def test_told_twice_to_stop_it_ends_at_once(tiny_bundle: Path) -> None:
    with ServerProcess(tiny_bundle) as server, server.connect() as connection:
        connection.sendall(head(100_000) + b"--b\r\n")  # an upload that it would wait for
        time.sleep(0.2)
        server.tell(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(0.7)
        server.tell(signal.SIGTERM)
        assert server.wait(5) == 1
        assert "told twice" in server.wait_for_line("told twice")


def test_another_bundle_takes_over_without_a_lost_request(tmp_path: Path, write_tiny: WriteTiny) -> None:
    first = write_tiny(tmp_path / "first")
    part = first.classifiers.model_copy(update={"calibration": "another"})
    write_tiny(tmp_path / "second", classifiers=part)
    link = tmp_path / "bundle"
    link.symlink_to("first")
    stop = threading.Event()
    with ServerProcess(link) as server, ThreadPoolExecutor(4) as pool:
        told: list[Predicted] = []

        def ask() -> None:
            with Client(server.url, patience_s=None) as client:
                while not stop.is_set():
                    told.append(client.predict([FILM, FILM]))

        def wait_for_more() -> None:
            before, until = len(told), time.monotonic() + 30
            while len(told) < before + 12 and time.monotonic() < until:
                time.sleep(0.01)

        asking = [pool.submit(ask) for _ in range(4)]
        for target, words in (("second", "bundle exchanged"), ("none", "the one before goes on answering")):
            wait_for_more()
            (tmp_path / "new").symlink_to(target)
            (tmp_path / "new").replace(link)
            server.tell(signal.SIGHUP)
            server.wait_for_line(words)
        wait_for_more()
        stop.set()
        for one in asking:
            one.result()
        shas = [one.bundle.sha256 for one in told]
        assert len(set(shas)) == 2
        assert {one.images[0].findings[0].probability for one in told} == {told[0].images[0].findings[0].probability}
        assert server.stop() == 0


def test_a_taken_port_is_said(server: ServerProcess, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from weakray.cli import main

    assert main(["serve", str(tiny_bundle), "--port", str(server.port), "--threads", "1"]) == 2
    assert f"could not listen on 127.0.0.1:{server.port}" in capsys.readouterr().err


def test_a_library_that_the_bundle_has_nothing_for_is_refused(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from weakray.cli import main

    assert main(["serve", str(tiny_bundle), "--engine", "openvino", "--port", "0"]) == 2
    assert "openvino" in capsys.readouterr().err
