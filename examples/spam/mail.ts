/** Extracts the text of a mail: its first text part, decoded, without headers and markup. */

interface Entity {
  headers: Map<string, string>;
  body: string;
}

/** Parses headers, which end at the first empty line; a line that starts with white space continues a header. */
function entity(source: string): Entity {
  const end = source.search(/\n\n|^\n/);
  const head = end < 0 ? source : source.slice(0, end);
  const headers = new Map<string, string>();
  for (const line of head.replaceAll(/\n[ \t]+/g, " ").split("\n")) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(colon, 0)).toLowerCase();
    if (name !== "" && !headers.has(name)) headers.set(name, line.slice(colon + 1).trim());
  }
  return { headers, body: end < 0 ? "" : source.slice(end).replace(/^\n+/, "") };
}

/** Returns the entities between boundary lines. */
function parts(body: string, boundary: string): Entity[] {
  const [, ...inside] = `\n${body}`.split(`\n--${boundary}`);
  return inside.filter((part) => !part.startsWith("--")).map((part) => entity(part.replace(/^[^\n]*\n/, "")));
}

/** Returns the text part to read: plain text if there is any, otherwise another text. */
function leaf({ headers, body }: Entity, depth = 0): Entity | undefined {
  const type = headers.get("content-type") ?? "text/plain";
  const boundary = /boundary="?([^";]+)"?/i.exec(type)?.[1];
  if (!/^multipart\//i.test(type) || boundary === undefined || depth > 4) {
    return /^(text\/|$)/i.test(type) || depth === 0 ? { headers, body } : undefined;
  }
  const leaves = parts(body, boundary)
    .map((part) => leaf(part, depth + 1))
    .filter((part) => part !== undefined);
  const plain = leaves.find((one) => !/text\/html/i.test(one.headers.get("content-type") ?? ""));
  return plain ?? leaves[0];
}

function decoded({ headers, body }: Entity): string {
  const encoding = headers.get("content-transfer-encoding")?.toLowerCase();
  if (encoding === "base64") return Buffer.from(body, "base64").toString("latin1");
  if (encoding !== "quoted-printable") return body;
  return body
    .replaceAll(/=[ \t]*\n/g, "")
    .replaceAll(/=([0-9A-F]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

const ENTITIES: Record<string, string> = { nbsp: " ", amp: "&", lt: "<", gt: ">", quot: '"' };

function withoutMarkup(html: string): string {
  return html
    .replaceAll(/<!--.*?-->|<(style|script|title)\b.*?<\/\1\s*>/gis, " ")
    .replaceAll(/<[^>]*>/g, " ")
    .replaceAll(/&(\w+);/g, (whole, name: string) => ENTITIES[name.toLowerCase()] ?? whole);
}

/** Returns the text of a mail on one line. */
export function bodyOf(mail: string): string {
  const found = leaf(entity(mail.replaceAll("\r\n", "\n")));
  if (found === undefined) return "";
  const text = decoded(found);
  const html =
    /text\/html/i.test(found.headers.get("content-type") ?? "") || /^\s*<(!doctype|html)/i.test(text);
  return (html ? withoutMarkup(text) : text).replaceAll(/\s+/g, " ").trim();
}
