"""The Open Inference Protocol v2 over HTTP, with Triton's repository extension and ``/metrics``."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from importlib.metadata import version as installed_version
from typing import Any

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving import protocol
from serving.engine import Features, Predicted, UnusableOutput
from serving.metrics import ServeMetrics
from serving.protocol import RequestError
from serving.publisher import Batch, Full, PredictionPublisher
from serving.registry import Loaded, ModelRegistry
from streams.errors import DriftlineError
from streams.settings import ServeSettings

INLINE_ROWS = 256
"""Up to so many rows the model runs in the event loop: a single row takes 15 µs, a hand-over to a thread 100 µs."""
BINARY_HEADER = "inference-header-content-length"
EXTENSIONS = ["model_repository"]
log = structlog.get_logger()
Handler = Callable[[Request], Awaitable[Response]]


class InferenceServer:
    """The handlers of one server."""

    def __init__(
        self, registry: ModelRegistry, publisher: PredictionPublisher, metrics: ServeMetrics, settings: ServeSettings
    ) -> None:
        self._registry = registry
        self._publisher = publisher
        self._metrics = metrics
        self._settings = settings
        self._answered = {result: metrics.requests.labels(result) for result in ("ok", "refused", "failed")}

    def app(self) -> Starlette:
        """The ASGI application."""
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        routes = [
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            *(Route(at, self.model_metadata) for at in (model, version)),
            *(Route(f"{at}/ready", self.model_ready) for at in (model, version)),
            *(Route(f"{at}/infer", self.infer, methods=["POST"]) for at in (model, version)),
            Route("/v2/repository/index", self.repository_index, methods=["GET", "POST"]),
            Route("/v2/repository/models/{model}/load", self.repository_load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self.repository_unload, methods=["POST"]),
            Route("/metrics", self.prometheus),
        ]
        handlers: dict[Any, Any] = {RequestError: _refused, HTTPException: _http_error, Exception: _bug}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def server_metadata(self, _: Request) -> Response:
        """Who answers here."""
        return _json({"name": "driftline", "version": installed_version("driftline"), "extensions": EXTENSIONS})

    async def live(self, _: Request) -> Response:
        """The process answers."""
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        """At least one model is served."""
        ready = bool(self._registry.models())
        return _json({"ready": ready}, 200 if ready else 503)

    async def model_ready(self, request: Request) -> Response:
        """The model, or one version of it, is served."""
        loaded = self._find(request)
        return _json({"name": loaded.engine.model, "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        """How a model is asked, and what it answers."""
        loaded = self._find(request)
        served = self._registry.served(loaded.engine.model)
        versions = sorted(served.versions) if served else [loaded.engine.version]
        return _json(protocol.metadata(loaded.engine.manifest, versions))

    def _find(self, request: Request) -> Loaded:
        model = request.path_params["model"]
        version = request.path_params.get("version")
        if version is not None and not (version.isascii() and version.isdigit()):
            raise RequestError(404, f"version {version!r} is not a number")
        loaded = self._registry.find(model, None if version is None else int(version))
        if loaded is not None:
            return loaded
        served = self._registry.served(model)
        if served is None:
            known = ", ".join(self._registry.models()) or "none"
            raise RequestError(404, f"no model {model!r} is served (served: {known})")
        known = ", ".join(map(str, sorted(served.versions)))
        raise RequestError(404, f"version {version} of {model} is not loaded (loaded: {known})")

    async def infer(self, request: Request) -> Response:
        """Answer the rows of one request and hand them to the publisher."""
        try:
            response = await self._infer(request)
        except RequestError as error:
            self._answered["failed" if error.status == 500 else "refused"].inc()
            raise
        except BaseException:
            self._answered["failed"].inc()
            raise
        self._answered["ok"].inc()
        return response

    async def _infer(self, request: Request) -> Response:
        if BINARY_HEADER in request.headers:
            raise RequestError(400, "binary tensors are not supported: send JSON (binary_data=False)")
        loaded = self._find(request)
        manifest = loaded.engine.manifest
        asked = protocol.decode(await _body(request, self._settings.max_request_bytes))
        rows = protocol.rows(asked, manifest.signature, self._settings.max_in_flight)
        ids = protocol.prediction_ids(asked, len(rows)) or [str(uuid.uuid4()) for _ in range(len(rows))]
        self._reserve(len(rows))
        try:
            predicted = await _predict(loaded, rows.tensor)
            response = protocol.respond(asked, manifest, predicted, ids)
        except BaseException:
            self._publisher.release(len(rows))
            raise
        self._publisher.publish(
            Batch(
                manifest,
                rows,
                predicted,
                ids,
                time.time_ns() // 1_000_000,
                asked.parameters.segment,
                request.headers.get("traceparent"),
                self._registry.beside(loaded),
            )
        )
        return _json(response)

    def _reserve(self, rows: int) -> None:
        try:
            self._publisher.reserve(rows)
        except Full:
            raise RequestError(503, "too many predictions wait for Kafka (serve.max_in_flight); try again") from None

    async def repository_index(self, _: Request) -> Response:
        """Every version in the repository and whether it is loaded."""
        lines = await asyncio.to_thread(self._registry.index)
        return _json(
            [
                {
                    "name": line.model,
                    "version": str(line.version),
                    "state": "READY" if line.ready else "UNAVAILABLE",
                    "reason": line.reason,
                }
                for line in lines
            ]
        )

    async def repository_load(self, request: Request) -> Response:
        """Serve what the repository says of a model now; a failure leaves the old version serving."""
        model = request.path_params["model"]
        try:
            await asyncio.to_thread(self._registry.load, model)
        except DriftlineError as error:
            raise RequestError(400, f"failed to load {model!r}: {error}") from None
        if self._registry.served(model) is None:
            raise RequestError(400, f"failed to load {model!r}: the repository has no champion of that name")
        return _json({})

    async def repository_unload(self, request: Request) -> Response:
        """Stop serving a model until it is loaded again."""
        model = request.path_params["model"]
        if not await asyncio.to_thread(self._registry.unload, model):
            raise RequestError(400, f"failed to unload {model!r}: it is not served")
        return _json({})

    async def prometheus(self, _: Request) -> Response:
        """The metrics."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _predict(loaded: Loaded, tensor: Features) -> Predicted:
    started = time.perf_counter()
    try:
        if len(tensor) <= INLINE_ROWS:
            return loaded.engine.predict(tensor)
        return await asyncio.to_thread(loaded.engine.predict, tensor)
    except UnusableOutput as error:
        raise RequestError(500, str(error)) from None
    finally:
        loaded.seconds.observe(time.perf_counter() - started)


async def _body(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
    except ClientDisconnect:
        raise RequestError(400, "the client left before its request was whole") from None
    return b"".join(parts)


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the request is larger than {limit} bytes (serve.max_request_bytes)")


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _refused(_: Request, error: RequestError) -> Response:
    return _json({"error": str(error)}, error.status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    return _json({"error": f"{error.detail}: {request.method} {request.url.path}"}, error.status_code)


async def _bug(request: Request, error: Exception) -> Response:
    log.error("request failed", path=request.url.path, exc_info=error)
    return _json({"error": "internal error: see the server's log"}, 500)
