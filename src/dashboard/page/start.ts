/** The entry point of the served page. */
import { mount, ServedRuns } from "./page.js";

mount(document.body, new ServedRuns());
