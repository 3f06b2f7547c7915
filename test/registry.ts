/** A local npm registry with the packages to publish and their dependencies. */
import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { execFileSync } from "node:child_process";

interface Version {
  manifest: { name: string; version: string };
  tarball: Buffer;
}

/** Returns the package.json in a tarball that npm packed. */
const manifestOf = (path: string): Version["manifest"] =>
  JSON.parse(
    execFileSync("tar", ["-xzOf", path, "package/package.json"], { encoding: "utf8" }),
  ) as Version["manifest"];

/** Serves tarballs; returns the server, which the caller closes, and its address. */
export async function registry(tarballs: readonly string[]): Promise<{ server: Server; url: string }> {
  const versions = new Map<string, Version>();
  for (const path of tarballs) {
    const manifest = manifestOf(path);
    versions.set(manifest.name, { manifest, tarball: readFileSync(path) });
  }
  let url = "";
  const server = createServer((request, response) => {
    const [, name = "", file] =
      /^\/((?:@[^/?]+\/)?[^/?]+)(\/-\/[^?]+)?/.exec(decodeURIComponent(request.url ?? "")) ?? [];
    const found = versions.get(name);
    if (found === undefined) {
      response.writeHead(404, { "content-type": "application/json" }).end('{"error":"Not found"}');
      return;
    }
    if (file !== undefined) {
      response.writeHead(200, { "content-type": "application/octet-stream" }).end(found.tarball);
      return;
    }
    const { manifest, tarball } = found;
    const dist = {
      tarball: `${url}/${name}/-/${name}-${manifest.version}.tgz`,
      integrity: `sha512-${createHash("sha512").update(tarball).digest("base64")}`,
      shasum: createHash("sha1").update(tarball).digest("hex"),
    };
    response.writeHead(200, { "content-type": "application/json" }).end(
      JSON.stringify({
        name,
        "dist-tags": { latest: manifest.version },
        versions: { [manifest.version]: { ...manifest, dist } },
      }),
    );
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  // Lets a finished test process end although the registry still listens.
  server.unref();
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { server, url };
}
