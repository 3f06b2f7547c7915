// Resolves and reads ES modules of an archive in its view; their URLs name their place in the archive.
import { pathToFileURL } from "node:url";

let archive;
let view;

export function initialize(data) {
  archive = pathToFileURL(data.archive).href;
  view = pathToFileURL(data.view).href;
}

const inView = (url) => (url?.startsWith(`${archive}/`) ? view + url.slice(archive.length) : url);
const inArchive = (url) => (url.startsWith(`${view}/`) ? archive + url.slice(view.length) : url);

export async function resolve(specifier, context, next) {
  const resolved = await next(inView(specifier), { ...context, parentURL: inView(context.parentURL) });
  return { ...resolved, url: inArchive(resolved.url) };
}

export async function load(url, context, next) {
  return next(inView(url), context);
}
