// Checks the built site: every internal link leads to an existing page and anchor, and no page loads anything from
// elsewhere. TypeDoc checks its input; this checks its output.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const decoded = (text) =>
  text.replaceAll("&amp;", "&").replaceAll("&quot;", '"').replaceAll("&#39;", "'").replaceAll("&#x27;", "'");

/** Yields the tags of a page with their names and attributes. TypeDoc quotes every value. */
function* tagsOf(html) {
  for (const [, name, rest] of html.matchAll(/<([a-z][\w-]*)((?:\s+[\w:-]+(?:="[^"]*")?)*)\s*\/?>/gi)) {
    const attributes = [...rest.matchAll(/([\w:-]+)="([^"]*)"/g)];
    yield { name, attributes: new Map(attributes.map(([, key, value]) => [key, decoded(value)])) };
  }
}

const pagesOf = (site) =>
  readdirSync(site, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".html"));

/** Returns the errors of a built site, one line each. */
export function problems(site) {
  const pages = pagesOf(site);
  const tags = new Map(
    pages.map((name) => [join(site, name), [...tagsOf(readFileSync(join(site, name), "utf8"))]]),
  );
  const anchors = new Map(
    [...tags].map(([path, all]) => [
      path,
      new Set(all.flatMap(({ attributes }) => attributes.get("id") ?? [])),
    ]),
  );
  const wrong = [];
  for (const [path, all] of tags) {
    for (const { name, attributes } of all) {
      const to = attributes.get("href") ?? attributes.get("src");
      if (to === undefined || /^(data:|mailto:|javascript:)/.test(to)) continue;
      if (/^(\w+:)?\/\//.test(to)) {
        if (name !== "a") wrong.push(`${relative(site, path)}: <${name}> loads ${to}`);
        continue;
      }
      const [file, anchor] = to.split("#");
      const target = file === "" ? path : resolve(dirname(path), decodeURIComponent(file));
      if (!existsSync(target) || statSync(target).isDirectory())
        wrong.push(`${relative(site, path)}: ${to} is not there`);
      else if (anchor && anchors.has(target) && !anchors.get(target).has(decodeURIComponent(anchor)))
        wrong.push(`${relative(site, path)}: ${to} has no such anchor`);
    }
  }
  return wrong;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const site = resolve(process.argv[2] ?? "site");
  const wrong = problems(site);
  for (const line of wrong) console.error(line);
  if (wrong.length > 0) process.exit(1);
  console.log(
    `${pagesOf(site).length} pages in ${relative(process.cwd(), site)}: every link leads somewhere`,
  );
}
