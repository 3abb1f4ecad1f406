"""`trit ps`: the models of a running server, by its /v1/models."""

from typing import Annotated, Any

import typer

from trit.cli._options import Json
from trit.errors import SourceError

PATIENCE = 10  # seconds for the server to answer


def command(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where 'trit serve' listens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="Its port.")] = 8080,
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="KEY", help="If the server wants one.")
    ] = None,
    json: Json = False,
) -> None:
    """List the models of a running server: loaded or not, memory, idle."""
    from trit.cli._terminal import print_json, size, table

    answer = _models(host, port, api_key)
    if json:
        return print_json(answer)
    rows = [["model", "state", "context", "weights", "cache", "requests", "idle"]]
    for model in answer["data"]:
        meta = model["meta"]
        facts = [""] * 5 if meta is None else [
            f"{meta['n_ctx']:,}", size(meta["weight_bytes"]), size(meta["cache_bytes"]),
            str(meta["requests"]), f"{meta['idle_seconds']:.0f} s",
        ]  # fmt: skip
        rows.append([model["id"], model["state"], *facts])
    print(table(rows, frozenset(range(2, 7))))


def _models(host: str, port: int, api_key: str | None) -> Any:
    """The server's answer; SourceError where there is none."""
    import json
    from http.client import HTTPConnection, HTTPException

    place = f"http://{host}:{port}"
    key = None if api_key is None else api_key.split(",")[0].strip()  # TRIT_API_KEY may be several
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    connection = HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/v1/models", headers=headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise SourceError(f"{place} answers {response.status}: {answer['error']['message']}")
        answer["data"][0]["state"]  # another server's models have none
    except (OSError, HTTPException) as error:
        problem = getattr(error, "strerror", None) or type(error).__name__
        raise SourceError(
            f"no server answers at {place}: {problem}. Start one ('trit serve MODEL'), or name "
            "another address (--host, --port)."
        ) from None
    except (ValueError, LookupError, TypeError):
        raise SourceError(f"what answers at {place} is no 'trit serve'.") from None
    finally:
        connection.close()
    return answer
