/** Downloads a model in a separate process, and prints the folder. */
import { parseHubName, type HubName } from "../../src/hub/name.js";
import { fetchSnapshot } from "../../src/hub/snapshot.js";

const { folder } = await fetchSnapshot(parseHubName(process.argv[2] as string) as HubName);
process.stdout.write(folder);
