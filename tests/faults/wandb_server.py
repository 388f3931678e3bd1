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
    return answer_about_artifact(operation, variables, address)


def answer_about_artifact(operation: str, variables: dict[str, Any], address: str) -> dict[str, Any]:
    """There is one; its files go to /upload/NAME."""
    upload = {"uploadUrl": f"{address}/upload/manifest", "uploadHeaders": []}
    manifest = {"artifactManifest": {"id": "m", "file": {"id": "f", **upload}}}
    if operation == "ArtifactType":
        return {"project": None}
    if operation == "CreateArtifact":
        created = {"id": "a", "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": created}}
    if operation in ("CreateArtifactManifest", "UpdateArtifactManifest"):
        return {operation[0].lower() + operation[1:]: manifest}
    if operation == "CreateArtifactFiles":
        nodes = [
            {"storagePath": name, "uploadUrl": f"{address}/upload/{name}", "uploadHeaders": [], "artifact": {"id": "a"}}
            for name in (file["name"] for file in variables["input"]["artifactFiles"])
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
    if operation == "CommitArtifact":
        return {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}}
    return {"artifact": artifact()} if operation == "ArtifactByID" else {}


def artifact() -> dict[str, Any]:
    """All that W&B asks for of one that has been uploaded."""
    project = {"id": "p", "internalId": "p", "name": "gan", "entity": {"name": "me"}}
    sequence = {"__typename": "ArtifactSequence", "name": "generator", "project": project}
    unset = ("description", "metadata", "commitHash", "updatedAt", "historyStep")
    return {
        **{"id": "a", "versionIndex": 0, "artifactType": {"name": "model"}, "state": "COMMITTED", "size": 1},
        **{"__typename": "Artifact", "artifactSequence": sequence, "tags": [], "aliases": [], "ttlIsInherited": False},
        **{"digest": "d", "digestAlgorithm": "MANIFEST_MD5", "fileCount": 4, "ttlDurationSeconds": 0},
        "createdAt": "2026-01-01T00:00:00Z",
        **dict.fromkeys(unset),
    }


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply: dict[str, Any] = {}
        if self.path == "/graphql":
            request = json.loads(content)
            found = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
            address = f"http://127.0.0.1:{sys.argv[1]}"
            reply = {"data": answer(found[1] if found else "", request.get("variables") or {}, address)}
        sys.stdout.write(f"{self.path}\n")  # in one piece, as other threads write too
        sys.stdout.flush()
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
