/** The page as it is served. */
import { mount, ServedRuns } from "./page.js";

mount(document.body, new ServedRuns());
