/** The module for apps that show runs in their own windows: `mount(element, source)`, to be used with `page.css`. */
export { mount } from "./mount.js";
export { ServedRuns } from "./served.js";
export type { Connection, ListedRun, Listing, RunEvent, RunsSource, Sink } from "./source.js";
