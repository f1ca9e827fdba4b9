"""The error document of OSS, in a body or, for HEAD, in a header.

Shape and element order as in answers of real servers ("Error responses", OSS API
reference); `EC` is the finer code that the error list explains.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from xml.sax.saxutils import escape

from starlette.responses import Response


class OssError(Exception):
    """A refusal. `details` are further elements, like the `Key` of a NoSuchKey."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        ec: str = "",
        headers: Mapping[str, str] | None = None,
        **details: str,
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.ec = ec
        self.headers = headers or {}
        self.details = details

    def response(self, request_id: str, host: str, *, head: bool) -> Response:
        document = self._document(request_id, host)
        headers = {**self.headers, **({"x-oss-ec": self.ec} if self.ec else {})}
        if head:
            headers["x-oss-err"] = base64.b64encode(document).decode()
            return Response(status_code=self.status, headers=headers)
        return Response(document, self.status, headers, media_type="application/xml")

    def _document(self, request_id: str, host: str) -> bytes:
        elements = {
            "Code": self.code,
            "Message": self.message,
            "RequestId": request_id,
            "HostId": host,
            **self.details,
        }
        if self.ec:
            elements["EC"] = self.ec
            elements["RecommendDoc"] = f"https://api.alibabacloud.com/troubleshoot?q={self.ec}"
        inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()
