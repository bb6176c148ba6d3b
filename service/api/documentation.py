"""The page at /api-docs, with Swagger's files from the image: compressed once, and cached by their contents."""

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.api.httperrors import RouteNotFound
from service.api.mapbody import accepts_gzip
from service.api.problems import render

PATH, ASSETS_PATH = "/api-docs", "/api-docs/assets"
TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
FOR_EVER = "public, max-age=31536000, immutable"
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, as it is and compressed."""

    plain: bytes
    packed: bytes


@cache
def _assets() -> tuple[str, Mapping[str, Asset]]:
    """The files, and a version that changes with their contents."""
    folder = files("fastapi_offline") / "static"
    contents = {name: (folder / name).read_bytes() for name in TYPES}
    version = hashlib.sha256(b"".join(contents.values())).hexdigest()[:12]
    return version, {name: Asset(content, gzip.compress(content, mtime=0)) for name, content in contents.items()}


def add_documentation(app: FastAPI) -> None:
    """Adds the page and its files. Their addresses are relative: they are right below a proxy's path prefix too."""
    html = _page()
    headers = {"Content-Security-Policy": _policy(html)}

    async def page(_request: Request) -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    async def redirect(request: Request) -> RedirectResponse:
        return RedirectResponse("api-docs" if request.url.path == "/" else "../api-docs")

    app.add_route(PATH, page, include_in_schema=False)
    app.add_route(ASSETS_PATH + "/{version}/{name}", _asset, include_in_schema=False)
    for path in ("/", PATH + "/"):
        app.add_route(path, redirect, include_in_schema=False)


def _page() -> bytes:
    place = f"{ASSETS_PATH.removeprefix('/')}/{_assets()[0]}"
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Rowlock",
        swagger_js_url=f"{place}/swagger-ui-bundle.js",
        swagger_css_url=f"{place}/swagger-ui.css",
        swagger_favicon_url=f"{place}/favicon.png",
        # Otherwise Swagger would keep the token in the browser's localStorage.
        swagger_ui_parameters={"persistAuthorization": False, "displayRequestDuration": True},
    )
    return bytes(page.body)


def _policy(page: bytes) -> str:
    """The page may load its own files, and run the scripts in it. No frame may be around it."""
    hashes = [hashlib.sha256(script).digest() for script in INLINE_SCRIPT.findall(page)]
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _asset(request: Request) -> Response:
    version, assets = _assets()
    name = request.path_params["name"]
    asset = assets.get(name)
    if asset is None or request.path_params["version"] != version:
        return render(RouteNotFound(), request.state.request_id)
    headers = {"Cache-Control": FOR_EVER, "Vary": "Accept-Encoding"}
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        return Response(asset.packed, 200, headers | {"Content-Encoding": "gzip"}, TYPES[name])
    return Response(asset.plain, 200, headers, TYPES[name])
