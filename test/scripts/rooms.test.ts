/** Imports go one way: folders of src/, rooms of src/lora/ among them, and files beside them have no circle. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

import test from "ava";

const src = fileURLToPath(new URL("../../src", import.meta.url));

/** The room that a file is of: its folder, within lora/ that folder's, or the file itself; tensor.ts is tensor/'s door. */
function roomOf(path: string): string {
  const parts = path.split("/");
  return parts[0] === "lora" && parts.length > 2
    ? `lora/${parts[1]}`
    : (parts[0] as string).replace(/\.ts$/, "");
}

/** Which rooms each imports, and by which file. Types count as all else does. */
function graph(): Map<string, Map<string, string>> {
  const rooms = new Map<string, Map<string, string>>();
  const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".ts"),
  );
  for (const file of files.map((name) => name.replaceAll(sep, "/"))) {
    const text = readFileSync(join(src, file), "utf8");
    for (const [, specifier] of text.matchAll(/(?:from |import\()"(\.[^"]+)"/g)) {
      const target = relative(src, join(src, dirname(file), specifier as string)).replaceAll(sep, "/");
      const [from, to] = [roomOf(file), roomOf(target.replace(/\.js$/, ".ts"))];
      if (from === to || target.startsWith("..")) continue;
      rooms.set(from, (rooms.get(from) ?? new Map<string, string>()).set(to, file));
    }
  }
  return rooms;
}

test("no room of src/ imports one that imports it", (t) => {
  const rooms = graph();
  t.true(rooms.size > 20);
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (room: string, way: readonly string[]): void => {
    if (way.includes(room)) {
      circles.push([...way.slice(way.indexOf(room)), room].join(" → "));
      return;
    }
    if (done.has(room)) return;
    for (const next of rooms.get(room)?.keys() ?? []) visit(next, [...way, room]);
    done.add(room);
  };
  for (const room of rooms.keys()) visit(room, []);
  t.deepEqual(circles, []);
});
