"""A bound on what a visitor sends in one request, whatever the address."""

from typing import Any


FORM = 100_000  # bytes of a form around a file


class BodyLimit:
    """
    ASGI middleware that answers 413 to requests with too large a body.

    Gradio has a limit for uploads only; other addresses would take bodies of any size into memory.

    Args:
        app: the application.
        max_bytes (`int`): the largest file.
    """

    def __init__(self, app: Any, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes + FORM

    @classmethod
    def middleware(cls, max_bytes: int) -> Any:
        """For the `middleware` of a FastAPI application."""
        from starlette.middleware import Middleware

        return Middleware(cls, max_bytes=max_bytes)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.max_bytes:
            return await self._refuse(send)
        received = 0

        async def receive_counted():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            # A body of unknown length: the application sees a visitor who has left.
            return {"type": "http.disconnect"} if received > self.max_bytes else message

        await self.app(scope, receive_counted, send)

    @staticmethod
    async def _refuse(send):
        text = b"The upload is too large."
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text})
