"""As much of a W&B server as it takes for a run to be online, with a line printed for each request:

python -m tests.faults.wandb_server PORT
"""

import http.server
import json
import re
import sys
from typing import Any

ME = {"id": "u", "entity": "me", "username": "me", "email": "me@localhost", "flags": "{}", "teams": {"edges": []}}


def answer(operation: str, variables: dict[str, Any], address: str) -> dict[str, Any]:
    """To a GraphQL request."""
    if operation == "Viewer":
        return {"viewer": ME}
    if operation == "UpsertBucket":
        project = {"id": "p", "name": "gan", "entity": {"id": "e", "name": "me"}}
        run = {"id": "b", "name": variables.get("name"), "displayName": "run", "description": "", "config": "{}"}
        return {"upsertBucket": {"bucket": {**run, "sweepName": "", "project": project}, "inserted": True}}
    if operation == "CreateRunFiles":
        files = [{"name": name, "uploadUrl": f"{address}/upload"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
    if operation.startswith("Organization"):
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}
    return {}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply: dict[str, Any] = {}
        if self.path == "/graphql":
            request = json.loads(content)
            found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            address = f"http://127.0.0.1:{sys.argv[1]}"
            reply = {"data": answer(found[1] if found else "", request.get("variables") or {}, address)}
        print(self.path, flush=True)
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST

    def log_message(self, *words: object) -> None:
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
