"""As much of the Hugging Face hub as it takes to push a model and fetch it again, on a port of its own choice, which is
the first line it prints; a line more for each request:

python -m tests.hub_server
"""

import base64
import hashlib
import http.server
import json
from typing import Any

COMMIT = "1" * 40
TOKEN = "hf_token"
files: dict[str, bytes] = {}


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(self.command, self.path, "" if len(body) > 2000 else body.decode(), flush=True)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.reply(b"", 401)
        return self.reply(json.dumps(self.answer(body)).encode())

    def answer(self, body: bytes) -> Any:
        if self.path == "/api/repos/create":
            return {"url": f"{self.address}/{json.loads(body)['organization']}/{json.loads(body)['name']}"}
        if self.path.endswith("/preupload/main"):
            named = [entry["path"] for entry in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in named]}
        if self.path.endswith("/commit/main"):
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            print("holds", *sorted(files), flush=True)
            return {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.address}/me/model/commit/{COMMIT}"}
        return {"errors": [], "warnings": []}  # of the model card's header

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        print(self.command, self.path, self.headers["Authorization"], flush=True)
        name = self.path.rpartition("/")[2].partition("?")[0]
        if "/tree/" in self.path:
            tree = [{"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT} for name in files]
            return self.reply(json.dumps(tree).encode())
        if self.path.startswith("/api/models/me/model"):
            siblings = [{"rfilename": name} for name in files]
            return self.reply(json.dumps({"id": "me/model", "sha": COMMIT, "siblings": siblings}).encode())
        if "/resolve/" in self.path and name in files:
            tag = hashlib.sha256(files[name]).hexdigest()
            return self.reply(files[name], headers={"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        return self.reply(b"", 404)

    def reply(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}"

    def log_message(self, *words: object) -> None:
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_address[1], flush=True)
    server.serve_forever()
