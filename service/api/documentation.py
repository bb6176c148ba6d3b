"""The OpenAPI document, and the page at /api-docs with Swagger's files from the image: all of them compressed once.

They have no rate limit, because an answer costs no more than a refusal. `ROWLOCK_DOCS` switches them off.
"""

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import orjson
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.api.httperrors import RouteNotFound
from service.api.mapbody import accepts_gzip

DOCUMENT_PATH, PATH, ASSETS_PATH = "/openapi.json", "/api-docs", "/api-docs/assets"
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


def _packed(content: bytes) -> Asset:
    return Asset(content, gzip.compress(content, mtime=0))


@cache
def _assets() -> tuple[str, Mapping[str, Asset]]:
    """The files, and a version that changes with their contents."""
    folder = files("fastapi_offline") / "static"
    contents = {name: (folder / name).read_bytes() for name in TYPES}
    version = hashlib.sha256(b"".join(contents.values())).hexdigest()[:12]
    return version, {name: _packed(content) for name, content in contents.items()}


def add_documentation(app: FastAPI) -> None:
    """Adds the document, the page and its files. Their addresses are relative: they are right below a proxy's path
    prefix too.
    """
    html = _page()
    headers = {"Content-Security-Policy": _policy(html)}

    async def page(_request: Request) -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    @cache
    def described() -> Asset:
        # Not before the first request: the document is completed after all routes are there.
        return _packed(orjson.dumps(app.openapi()))

    async def document(request: Request) -> Response:
        return _answer(request, described(), "application/json")

    async def redirect(request: Request) -> RedirectResponse:
        return RedirectResponse("api-docs" if request.url.path == "/" else "../api-docs")

    app.add_route(DOCUMENT_PATH, document, include_in_schema=False)
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
        raise RouteNotFound
    return _answer(request, asset, TYPES[name], {"Cache-Control": FOR_EVER})


def _answer(request: Request, asset: Asset, media_type: str, more: Mapping[str, str] | None = None) -> Response:
    headers = {"Vary": "Accept-Encoding", **(more or {})}
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        return Response(asset.packed, 200, headers | {"Content-Encoding": "gzip"}, media_type)
    return Response(asset.plain, 200, headers, media_type)
