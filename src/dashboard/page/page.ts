/** What an app takes to show runs in a window of its own: `mount(element, source)`, with `page.css` beside it. */
export { mount } from "./mount.js";
export { ServedRuns } from "./served.js";
export type { Connection, ListedRun, Listing, RunEvent, RunsSource, Sink } from "./source.js";
